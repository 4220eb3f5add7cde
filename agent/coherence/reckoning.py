"""What is worked out for every token of every frame: whether its pixels have changed, and how wrong it may be.

With NumPy, or in one call of C where a compiler was found: of so few numbers it is the calls that cost.
"""

from __future__ import annotations

import ctypes
from copy import deepcopy
from ctypes import c_double, c_float, c_int32, c_void_p
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.coherence.noise import MAD_TO_SIGMA, PatchNoise
from agent.coherence.settings import CoherenceSettings
from agent.coherence.staleness import BIN_SAMPLES, COARSE, EDGES, FORGET, Staleness
from vpi_ops.choice import host_library
from vpi_ops.native.ops import Library

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

HOLD_FRAMES = 2
"""Frames for which a patch that changed keeps the lower threshold."""
CHANGING = 0.7
"""Residual ÷ threshold from which on a token counts as changing."""
_NEAR = cv2.getGaussianKernel(13, 1.5, cv2.CV_32F)
"""How what a token has moved presses on those around it."""


@dataclass(frozen=True, slots=True)
class TokenState:
    """What a planner keeps of each token; arrays that are written to and never replaced. hold: int64 (T,), frames.
    pressure: float32 (T,). travelled: float32 (T, 2), patches. age, waiting: float32 (T,), frames. seen: bool (T,)."""

    noise: PatchNoise
    staleness: Staleness
    hold: NDArray[np.int64]
    pressure: Floats
    travelled: Floats
    age: Floats
    waiting: Floats
    seen: Mask

    @classmethod
    def of(cls, noise: PatchNoise, staleness: Staleness, seen: Mask) -> TokenState:
        """Of tokens that were encoded just now."""
        hold, (pressure, age, waiting) = np.zeros(len(seen), np.int64), np.zeros((3, len(seen)), np.float32)
        return cls(noise, staleness, hold, pressure, np.zeros((len(seen), 2), np.float32), age, waiting, seen)


@dataclass(frozen=True, slots=True)
class Assessment:
    """stale: bool (T,), tokens whose pixels no longer fit. moving: bool (T,), patches that differ from the frame
    before. threshold: float32 (T,), grey levels, what `stale` was measured against. ratio: float32 (T,), residual ÷ the
    threshold without hysteresis; of_noise: what of it noise alone explains."""

    stale: Mask
    moving: Mask
    threshold: Floats
    ratio: Floats
    of_noise: Floats


class Expected(NamedTuple):
    """error: float32 (T,), expected 1 − cosine. total: of the tokens that see picture. changing: clean tokens with a
    ratio above CHANGING. pressed: whether anything has moved around any token."""

    error: Floats
    total: float
    changing: int
    pressed: bool


class Reckoning:
    """The arithmetic of one planner. grid: (rows, cols)."""

    def __init__(self, state: TokenState, grid: tuple[int, int]) -> None:
        self._state, self._grid = state, grid

    def assess(
        self, residual: Floats, difference: Floats, s: CoherenceSettings, each: float, together: float
    ) -> Assessment:
        """residual: (T,) against the reference, difference: (T,) against the frame before, grey levels. each, together:
        error that may be left undone in one token, and in all."""
        state, noise = self._state, self._state.noise
        noise.process(difference)
        threshold = noise.threshold(s.residual, s.noise_factor, s.residual * s.noise_ceiling)
        ratio = residual / threshold
        of_noise = np.minimum(noise.threshold(0, s.noise_factor, np.inf), 3 * difference) / threshold
        others = np.float32(state.staleness.tolerated(ratio, each, together))
        limit = threshold * np.where(state.hold > 0, np.float32(s.leave) * others, others)
        stale = residual > limit
        state.hold[...] = np.where(stale, HOLD_FRAMES, np.maximum(state.hold - 1, 0))
        return Assessment(stale, difference > threshold, limit, ratio, np.asarray(of_noise, np.float32))

    def expect(self, look: Assessment, stale: Mask, coarse: Mask) -> Expected:
        """stale: bool (T,), tokens that will be encoded; coarse: those that share one with their neighbours."""
        state, staleness = self._state, self._state.staleness
        calm = np.where(look.ratio > look.of_noise, look.ratio, np.float32(0))  # noise is there again after any encode
        way = np.sqrt(state.travelled[:, 0] ** 2 + state.travelled[:, 1] ** 2)
        error = staleness.expect(calm, state.pressure, way)
        error[coarse] = np.maximum(error[coarse], np.float32(COARSE))
        error[stale] = staleness.fresh
        changing = np.count_nonzero((calm > np.float32(CHANGING)) & state.seen & ~stale)
        total = float(error[state.seen].sum(dtype=np.float64))
        return Expected(error, total, int(changing), bool(state.pressure.any()))

    def learn(self, slots: NDArray[np.int64], error: Floats, stale: Mask, ratio: Floats) -> None:
        """Tokens were encoded: slots (n,), 1 − cosine of old and new value (n,). stale: bool (T,), those whose content
        had changed; they press on the tokens around them. ratio: of the assessment, (T,)."""
        state = self._state
        travelled = np.hypot(*state.travelled[slots].T)
        state.staleness.observe(error, ratio[slots], state.pressure[slots], travelled)
        cause = np.zeros(len(ratio), np.float32)
        cause[slots] = np.where(stale[slots], error, np.float32(0))
        near = cv2.sepFilter2D(cause.reshape(self._grid), -1, _NEAR, _NEAR, borderType=cv2.BORDER_REPLICATE)
        state.pressure[...] += near.reshape(-1) + cause.mean()
        state.age[...] += 1
        for each in (state.age, state.waiting, state.pressure, state.travelled):
            each[slots] = 0


class _Tokens(ctypes.Structure):
    """`Tokens` of ops.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("median", "spread", "pressure", "travelled", "hold", "seen")),
        *((name, c_void_p) for name in ("curve", "edges", "context")),
        *((name, c_int32) for name in ("n", "bounds")),
    ]


class _Learning(ctypes.Structure):
    """`Learning` of ops.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("counts", "age", "waiting", "moments", "products", "kernel")),
        ("most", c_float),
        ("forget", c_double),
        *((name, c_int32) for name in ("taps", "rows", "cols")),
    ]


class _Limits(ctypes.Structure):
    """`Limits` of ops.c."""

    _fields_ = [
        *((name, c_float) for name in ("rate", "factor", "floor", "ceiling", "each", "total", "leave")),
        ("frames", c_int32),
    ]


class _Expected(ctypes.Structure):
    """`Expected` of ops.c."""

    _fields_ = [("total", c_double), ("changing", c_int32), ("pressed", c_int32)]


class NativeReckoning(Reckoning):
    """The same in C, with the same numbers."""

    def __init__(self, state: TokenState, grid: tuple[int, int], library: Library) -> None:
        super().__init__(state, grid)
        self._c = library
        curve, context = state.staleness.curve, state.staleness.context
        kept = (*state.noise.estimates, state.pressure, state.travelled, state.hold, state.seen, curve, EDGES, context)
        self._tokens = _Tokens(*(each.ctypes.data for each in kept), len(state.seen), len(EDGES))
        self._limits, self._found = _Limits(frames=HOLD_FRAMES), _Expected()
        model = state.staleness
        learned = (model.counts, state.age, state.waiting, model.moments, model.products, _NEAR)
        self._learning = _Learning(*(each.ctypes.data for each in learned), BIN_SAMPLES, FORGET, len(_NEAR), *grid)
        self._at = tuple(map(ctypes.addressof, (self._tokens, self._limits, self._found, self._learning)))

    def __deepcopy__(self, memo: dict[int, Any]) -> NativeReckoning:
        return type(self)(deepcopy(self._state, memo), self._grid, self._c)  # addresses are of the copied arrays

    def assess(
        self, residual: Floats, difference: Floats, s: CoherenceSettings, each: float, together: float
    ) -> Assessment:
        residual, difference = np.ascontiguousarray(residual, np.float32), np.ascontiguousarray(difference, np.float32)
        limits, tokens = self._limits, len(residual)
        limits.rate, limits.factor = self._state.noise.rate(), s.noise_factor * MAD_TO_SIGMA
        limits.floor, limits.ceiling, limits.leave = s.residual, s.residual * s.noise_ceiling, s.leave
        limits.each, limits.total = each, together
        out, flags = np.empty((3, tokens), np.float32), np.empty((2, tokens), bool)
        places = (residual.ctypes.data, difference.ctypes.data, out.ctypes.data, flags.ctypes.data)
        if self._c.assess(*self._at[:2], *places):
            raise MemoryError("no memory to assess a frame")
        return Assessment(flags[0], flags[1], out[2], out[0], out[1])

    def expect(self, look: Assessment, stale: Mask, coarse: Mask) -> Expected:
        error = np.empty_like(look.ratio)
        places = (each.ctypes.data for each in (look.ratio, look.of_noise, stale, coarse))
        fresh = self._state.staleness.fresh
        self._c.expect(self._at[0], *places, fresh, COARSE, CHANGING, error.ctypes.data, self._at[2])
        return Expected(error, self._found.total, self._found.changing, bool(self._found.pressed))

    def learn(self, slots: NDArray[np.int64], error: Floats, stale: Mask, ratio: Floats) -> None:
        slots, error = np.ascontiguousarray(slots, np.int64), np.ascontiguousarray(error, np.float32)
        places = (slots.ctypes.data, len(slots), *(each.ctypes.data for each in (error, stale, ratio)))
        if self._c.learn(self._at[0], self._at[3], *places):
            raise MemoryError("no memory to learn from a frame")


def reckoning(state: TokenState, grid: tuple[int, int]) -> Reckoning:
    """In C where that is there."""
    native = host_library()
    return Reckoning(state, grid) if native is None else NativeReckoning(state, grid, native)
