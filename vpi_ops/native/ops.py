"""`VisionOps` in C: a call of the library where `vpi_ops.host` makes ten of OpenCV and NumPy.

The same bytes and the same numbers come out; a test compares them. What costs a small picture its time is not the
arithmetic but the calls, so addresses of pyramids are looked up once, when they are made.
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_float, c_int, c_int32, c_ssize_t, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpi_ops.host import Floats, HostOps
from vpi_ops.interface import PatchPyramid, Residual

_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "fill": (c_void_p, c_void_p),
    "residual": (c_void_p, c_void_p, c_void_p, c_void_p),
    "residual_at": (c_void_p, c_void_p, c_void_p, c_void_p, c_int, c_void_p),
    "moved": (c_void_p, c_void_p, c_void_p),
    "histogram": (c_void_p, c_void_p),
    "blend": (c_void_p, c_void_p, c_void_p, c_int, c_int),
    "same": (c_void_p, c_ssize_t, c_void_p, c_ssize_t, c_int, c_int),
    "assess": (c_void_p,) * 6,
    "expect": (*[c_void_p] * 5, c_float, c_float, c_float, c_void_p, c_void_p),
    "learn": (c_void_p, c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_void_p),
    "cosines": (c_void_p, c_void_p, c_int, c_int, c_void_p),
    "project": (c_void_p, c_void_p, c_int, c_int, c_void_p),
    "sums": (c_void_p, c_void_p, c_ssize_t, c_void_p),
    "shrink": (c_void_p, c_ssize_t, c_int, c_int, c_void_p, c_ssize_t, c_int, c_int),
}
_NO_MEMORY, _OUT_OF_RANGE, _NOT_MINE = 1, 2, 3


class _Layout(ctypes.Structure):
    """`Pyramid` of ops.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("half", "quarter", "means")),
        *((name, c_int32) for name in ("rows", "cols", "patch", "half_side", "quarter_side")),
    ]


@dataclass(frozen=True, slots=True)
class NativePyramid(PatchPyramid):
    """layout: where its arrays lie, as the library reads it; address: of `layout`."""

    layout: Any
    address: int


class Library:
    """The functions of a loaded ops.c, each with the types of its arguments."""

    def __init__(self, loaded: ctypes.CDLL) -> None:
        for name, arguments in _ARGUMENTS.items():
            function = loaded[name]  # a new object each time: other users of the library keep theirs
            function.argtypes, function.restype = arguments, c_int
            setattr(self, name, function)

    def __deepcopy__(self, memo: dict[int, Any]) -> Library:
        return self  # it keeps nothing

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"ops.c has no function {name} that is known here")

    def shrunk(self, image: NDArray[np.uint8], out: NDArray[np.uint8]) -> bool:
        """`engines.preprocess.shrink`, with the same bytes; False where it is left to that: rows that are not packed,
        odd lengths to halve."""
        if image.strides[1:] != (3, 1) or out.strides[1:] != (3, 1) or not image.size:
            return False
        status = self.shrink(
            *(image.ctypes.data, image.strides[0], image.shape[1], image.shape[0]),
            *(out.ctypes.data, out.strides[0], out.shape[1], out.shape[0]),
        )
        if status != _NOT_MINE:
            _check(status)
        return bool(status != _NOT_MINE)


class NativeOps(HostOps):
    """`HostOps` with its patches, histogram and blending in C. Pyramids must be its own kind."""

    def __init__(self, library: Library, *, width: int = 320, threads: int = 1, finest_scale: int = 2) -> None:
        super().__init__(width=width, threads=threads, finest_scale=finest_scale)
        self._c = library
        self._exposure = (c_double * 2)()
        self._exposure_at = ctypes.addressof(self._exposure)

    def same(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
        if a.shape != b.shape or a.strides[1:] != (3, 1) or b.strides[1:] != (3, 1):
            return super().same(a, b)
        rows = a.ctypes.data, a.strides[0], b.ctypes.data, b.strides[0]
        return bool(self._c.same(*rows, a.shape[0], 3 * a.shape[1]))

    def pyramid(self, grid: tuple[int, int], patch: int) -> NativePyramid:
        plain = super().pyramid(grid, patch)
        half, quarter = plain.levels
        sides = (round(level.shape[1] ** 0.5) for level in plain.levels)
        layout = _Layout(half.ctypes.data, quarter.ctypes.data, plain.means.ctypes.data, *grid, patch, *sides)
        return NativePyramid(grid, patch, plain.levels, plain.means, layout, ctypes.addressof(layout))

    def fill(self, pyramid: PatchPyramid, picture: NDArray[np.uint8]) -> None:
        (rows, cols), patch = pyramid.grid, pyramid.patch
        if picture.shape != (rows * patch, cols * patch, 3):
            raise ValueError(f"picture is {picture.shape}, expected {(rows * patch, cols * patch, 3)}")
        picture = np.ascontiguousarray(picture, np.uint8)
        _check(self._c.fill(_at(pyramid), picture.ctypes.data))

    def residual(self, current: PatchPyramid, reference: PatchPyramid) -> Residual:
        patch = np.empty(len(current.means), np.float32)
        _check(self._c.residual(_at(current), _at(reference), patch.ctypes.data, self._exposure_at))
        return Residual(patch, *self._exposure)

    def residual_at(
        self, current: PatchPyramid, slots: NDArray[np.int64], reference: PatchPyramid, sources: NDArray[np.int64]
    ) -> Floats:
        slots, sources = np.ascontiguousarray(slots, np.int64), np.ascontiguousarray(sources, np.int64)
        if slots.shape != sources.shape:
            raise ValueError(f"{slots.shape} slots and {sources.shape} sources: as many were expected")
        out = np.empty(len(slots), np.float32)
        places = slots.ctypes.data, _at(reference), sources.ctypes.data
        _check(self._c.residual_at(_at(current), *places, len(slots), out.ctypes.data))
        return out

    def moved(self, current: PatchPyramid, previous: PatchPyramid) -> Floats:
        out = np.empty(len(current.means), np.float32)
        _check(self._c.moved(_at(current), _at(previous), out.ctypes.data))
        return out

    def histogram(self, pyramid: PatchPyramid) -> Floats:
        out = np.empty((8, 8, 8), np.float32)
        _check(self._c.histogram(_at(pyramid), out.ctypes.data))
        return out

    def blend(self, accumulated: Floats, new: Floats, alpha: Floats) -> None:
        if not accumulated.flags.c_contiguous or accumulated.dtype != np.float32 or accumulated.shape != new.shape:
            raise ValueError("features to blend into are not packed float32 of one shape with the new ones")
        new, alpha = np.ascontiguousarray(new, np.float32), np.ascontiguousarray(alpha, np.float32)
        tokens, dim = accumulated.shape
        if alpha.shape != (tokens,):
            raise ValueError(f"alpha is {alpha.shape}, expected {(tokens,)}")
        _check(self._c.blend(accumulated.ctypes.data, new.ctypes.data, alpha.ctypes.data, tokens, dim))


def _at(pyramid: PatchPyramid) -> int:
    if not isinstance(pyramid, NativePyramid):
        raise TypeError("the pyramid is of other operations: use pyramids that these have made")
    return pyramid.address


def _check(status: int) -> None:
    if status == _NO_MEMORY:
        raise MemoryError("no memory for an image operation")
    if status == _OUT_OF_RANGE:
        raise IndexError("a slot is outside the grid")
