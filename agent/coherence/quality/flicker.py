"""Flicker: features that swing to and fro at a frequency.

Each token is watched through two fixed random projections of its features, over a short ring of frames with their true
times. Now and then the ring is brought to even steps, freed of its trend, and transformed; a token flickers where most
of what is left of its movement is one narrow peak, and all parts of the ring have their share in it. Variance alone, as
is common, takes every passer-by for flicker, and a pattern of neighbouring similarities knows one frequency, which
hangs on the frame rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vpi_ops.choice import host_library

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Slots = NDArray[np.int64]

_PROJECTIONS = 2
_LEAST_CYCLES = 3
"""In the ring; slower movement can't be told from a change."""
_NARROW = 0.5
"""Share of a token's movement that lies in the peak."""
_EVERYWHERE = 0.25
"""Share of the mean movement that each quarter of the ring has at least; something passing by moves in one or two."""


@dataclass(frozen=True, slots=True)
class Flicker:
    """hz: float32 (T,), 0 where a token does not flicker; above half the frame rate it folds back, as a lamp's 100 Hz
    does. swing: float32 (T,), effective movement at the peak over the length of the features, flickering or not.
    seconds: the time looked at."""

    hz: Floats
    swing: Floats
    seconds: float

    @property
    def share(self) -> float:
        """Share of tokens that flicker, 0–1."""
        return float((self.hz > 0).mean())

    @property
    def median_hz(self) -> float | None:
        """Of the tokens that flicker."""
        return float(np.median(self.hz[self.hz > 0])) if (self.hz > 0).any() else None


class FlickerDetector:
    """The detector of one camera. swing: least effective movement, over the length of the features, that is flicker.
    least_hz: what swings more slowly, like somebody doing squats, is content.
    frames: of the ring, even; every half of it, it is transformed. latest: what was found then, None until the ring has
    been full once. Memory: 8 bytes a token and frame of the ring."""

    def __init__(
        self, tokens: int, dim: int, *, frames: int = 64, swing: float = 0.1, least_hz: float = 0.5, seed: int = 0
    ) -> None:
        signs = np.random.default_rng(seed).integers(0, 2, (_PROJECTIONS, dim))
        self._project = (2 * signs - 1).astype(np.float32)
        self._ring = np.zeros((frames, _PROJECTIONS, tokens), np.float32)
        self._times: Doubles = np.zeros(frames, np.float64)
        self._swing, self._least_hz = swing, least_hz
        self.reset()

    def reset(self) -> None:
        self._count = 0
        self.latest: Flicker | None = None

    def fetch(self, source: Slots) -> None:
        """Every slot takes over the past of slot `source[slot]`."""
        self._ring = self._ring[:, :, source]

    def process(self, features: Floats, now_s: float, *, again: bool = False) -> Flicker | None:
        """Take in one frame, features (T, D); what was found when this one filled half a ring, else None. again: they
        are those of the frame before."""
        if self._count and now_s <= self._times[(self._count - 1) % len(self._times)]:
            self.reset()  # time does not go back: this is another video
        at = self._count % len(self._times)
        if again and self._count:
            self._ring[at] = self._ring[at - 1]
        else:
            _project(features, self._project, self._ring[at])
        self._times[at] = now_s
        self._count += 1
        if self._count < len(self._times) or self._count % (len(self._times) // 2):
            return None
        length = float(np.sqrt(np.einsum("td,td->t", features, features)).mean())
        self.latest = self._measure(length)
        return self.latest

    def _measure(self, length: float) -> Flicker:
        frames, start = len(self._times), self._count % len(self._times)
        times = np.roll(self._times, -start)
        values = np.roll(self._ring, -start, axis=0).reshape(frames, -1)
        seconds = float(times[-1] - times[0])
        even = _evenly(values, times)
        power = self._by_token(_spectrum(even))
        quarters = self._by_token(
            np.stack([np.square(np.diff(part, axis=0)).sum(0) for part in np.array_split(even, 4)])
        )
        lasting = quarters.min(axis=0) > _EVERYWHERE * quarters.mean(axis=0)
        power[0] = 0
        peak = np.argmax(power[_LEAST_CYCLES:-1], axis=0) + _LEAST_CYCLES
        around = np.stack([np.take_along_axis(power, (peak + i)[None], axis=0)[0] for i in (-1, 0, 1)])
        in_peak = around.sum(axis=0)
        swing = np.sqrt(in_peak) / max(length, 1e-9)
        narrow = in_peak > _NARROW * power.sum(axis=0)
        bent = around[0] - 2 * around[1] + around[2]
        aside = np.divide(around[0] - around[2], 2 * bent, out=np.zeros_like(bent), where=bent < 0)
        rate = (frames - 1) / seconds
        hz = (peak + np.clip(aside, -0.5, 0.5)) * rate / frames
        flickers = narrow & lasting & (swing > self._swing) & (hz >= self._least_hz)
        return Flicker(np.where(flickers, hz, 0).astype(np.float32), swing.astype(np.float32), seconds)

    def _by_token(self, values: Floats) -> Floats:
        """Mean over the projections: (k, projections · T) → (k, T)."""
        return np.asarray(values.reshape(len(values), _PROJECTIONS, -1).mean(axis=1), np.float32)


def _project(features: Floats, signs: Floats, out: Floats) -> None:
    """Scalar products of features (T, D) with each row of signs (2, D), into `out` (2, T). No BLAS: its threads would
    fight with the inference runtime's."""
    native = host_library()
    if native is None:
        for row, along in zip(out, signs, strict=True):
            np.einsum("td,d->t", features, along, out=row)
    else:
        features = np.ascontiguousarray(features, np.float32)
        native.project(features.ctypes.data, signs.ctypes.data, *features.shape, out.ctypes.data)


def _evenly(values: Floats, times: Doubles) -> Floats:
    """Columns of (frames, n) as they would have been at even times, between neighbours in proportion."""
    even = np.linspace(times[0], times[-1], len(times))
    left = np.clip(np.searchsorted(times, even, side="right") - 1, 0, len(times) - 2)
    share = ((even - times[left]) / (times[left + 1] - times[left])).astype(np.float32)[:, None]
    return np.asarray(values[left] + share * (values[left + 1] - values[left]), np.float32)


def _spectrum(values: Floats) -> Floats:
    """Mean square of each frequency, (frames // 2 + 1, n), of columns freed of their line and faded at the ends."""
    frames = len(values)
    line = np.linspace(-1, 1, frames, dtype=np.float32)[:, None]
    slope = (line * values).sum(axis=0) / np.square(line).sum()
    window = np.hanning(frames).astype(np.float32)[:, None]
    rows = np.ascontiguousarray(((values - values.mean(axis=0) - slope * line) * window).T)
    # OpenCV's transform stays in single precision and on this thread: a third of the time of NumPy's. It packs real
    # and imaginary parts in turn, but for the first and the last, which have no imaginary part.
    waves = np.square(np.asarray(cv2.dft(rows, flags=cv2.DFT_ROWS)))
    inner = waves[:, 1:-1:2] + waves[:, 2:-1:2]
    power = np.concatenate([waves[:, :1], inner, waves[:, -1:]], axis=1).T
    return np.asarray(2 * power / (frames * np.square(window).sum()), np.float32)
