"""How a picture is sampled from a frame, as tables that a kernel reads.

The host resizes in steps (halve while at least twice too long, then interpolate, `engines.preprocess.shrink`). Each
step is linear and works on rows and columns apart, so all of them together are one weighted sum per axis: a kernel gets
from the frame to the picture in one pass. What differs from the host is its rounding between the steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: target pixel i is the sum over k of `weight[k, i]` · source pixel `first[i] + k`.

    first: int32 (n,), −1 where the target shows no source. weight: float32 (taps, n). No tap leaves the source.
    """

    first: NDArray[np.int32]
    weight: NDArray[np.float32]

    @property
    def taps(self) -> int:
        return len(self.weight)

    @classmethod
    def interpolated(cls, source: int, target: int) -> Axis:
        """One linear step, pixel centres at i + ½ and the edge repeated, as cv2.INTER_LINEAR does it."""
        at = (np.arange(target) + 0.5) * (source / target) - 0.5
        first = np.clip(np.floor(at), 0, max(source - 2, 0))
        lean = np.clip(at - first, 0, 1)
        weight = np.stack([1 - lean, lean]) if source > 1 else np.ones((1, target))
        return cls(first.astype(np.int32), weight.astype(np.float32))

    @classmethod
    def shrunk(cls, source: int, target: int) -> Axis:
        """Halved while at least twice too long, then interpolated."""
        if source < 2 * target:
            return cls.interpolated(source, target)
        half = (source + 1) // 2
        return cls.shrunk(half, target).after(cls.interpolated(source, half), source)

    def after(self, before: Axis, source: int) -> Axis:
        """Both as one step; `before` reads the source of so many pixels, this one what came of it."""
        last = before.first[self.first + self.taps - 1] + before.taps
        taps = int((last - before.first[self.first]).max())
        first = np.minimum(before.first[self.first], source - taps)
        weight = np.zeros((taps, len(first)), np.float32)
        target = np.arange(len(first))
        for outer, mine in enumerate(self.weight):
            middle = self.first + outer
            for inner, its in enumerate(before.weight):
                weight[before.first[middle] + inner - first, target] += mine * its[middle]
        return Axis(first.astype(np.int32), weight)

    def within(self, before: int, size: int) -> Axis:
        """The same in a longer target of `size` pixels, of which `before` come first; the others show nothing."""
        first = np.full(size, -1, np.int32)
        weight = np.zeros((self.taps, size), np.float32)
        first[before : before + len(self.first)] = self.first
        weight[:, before : before + len(self.first)] = self.weight
        return Axis(first, weight)

    def repeated(self, size: int) -> Axis:
        """The same in a longer target of `size` pixels, the further ones as the last."""
        beyond = np.minimum(np.arange(size), len(self.first) - 1)
        return Axis(self.first[beyond], np.ascontiguousarray(self.weight[:, beyond]))


@dataclass(frozen=True, slots=True)
class Resampling:
    """Both axes, from a part of a frame to a picture. It depends on sizes alone: sliding the part costs nothing."""

    x: Axis
    y: Axis

    @classmethod
    def shrinking(cls, part: tuple[int, int], size: tuple[int, int], seen: Box | None = None) -> Resampling:
        """From a part (width, height) of a frame to the box `seen` (x0, y0, x1, y1), default all, of a picture (width,
        height), as `engines.preprocess.Preprocessor.picture` does it."""
        x0, y0, x1, y1 = seen or (0, 0, *size)
        x, y = Axis.shrunk(part[0], x1 - x0), Axis.shrunk(part[1], y1 - y0)
        return cls(x.within(x0, size[0]), y.within(y0, size[1]))

    @classmethod
    def interpolating(cls, part: tuple[int, int], size: tuple[int, int]) -> Resampling:
        """One linear step, as `vpi_ops.host.HostOps.analysis` does it."""
        return cls(Axis.interpolated(part[0], size[0]), Axis.interpolated(part[1], size[1]))

    def repeated(self, size: tuple[int, int]) -> Resampling:
        """The same in a larger picture of `size` (width, height), which its last row and column fill."""
        return Resampling(self.x.repeated(size[0]), self.y.repeated(size[1]))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture."""
        return len(self.x.first), len(self.y.first)

    @property
    def tables(self) -> NDArray[np.int32]:
        """What the kernels want on the device, int32 (words,): first of x, of y, weights of x, of y (float32 bits).
        Those of x are filled up with zeros to a multiple of four taps."""
        x = np.pad(self.x.weight, ((0, -self.x.taps % 4), (0, 0)))
        return np.concatenate(
            [self.x.first, self.y.first, *(each.ravel().view(np.int32) for each in (x, self.y.weight))]
        )
