"""Anchored warping: a token whose object moved by whole patches is fetched from where it came from.

Every slot remembers how far its content has travelled since the token in it was encoded (its anchor): flow is composed,
shift(t) = flow(t) + shift(t + flow(t)), and tokens are moved whole, never resampled: a warp of a warp blurs. Tokens
know nothing finer than a patch, so a fetch is taken only when what is left after whole patches is small, the flow is
consistent, and the pixels that the fetched token was made from match what is there now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpi_ops.interface import VisionOps

Floats = NDArray[np.float32]
Slots = NDArray[np.int64]
Mask = NDArray[np.bool_]

PATCH_SHARE = 1 / 8
"""Largest part of a patch that may be left over after whole patches."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """source: int64 (T,), the slot whose token each slot takes over (its own for most). fetched: int64 (n,), the slots
    whose source is another. inconsistent: how many candidates were refused for their flow."""

    source: Slots
    fetched: Slots
    inconsistent: int


class AnchorWarp:
    """Composed flow of one camera. patch: (x, y) source pixels per patch. left_px: largest motion in source pixels left
    over after whole patches. error_px: consistency error above which flow is not believed."""

    def __init__(
        self,
        ops: VisionOps,
        grid: tuple[int, int],
        patch: tuple[float, float],
        *,
        left_px: float,
        error_px: float,
    ) -> None:
        self._ops = ops
        self._grid = grid
        self._patch = np.array(patch, np.float32)
        self.limit(left_px=left_px, error_px=error_px)
        rows, cols = grid
        row, col = np.divmod(np.arange(rows * cols), cols)
        self._home = np.stack([row, col], axis=1).astype(np.float32)
        self.reset()

    def limit(self, *, left_px: float, error_px: float) -> None:
        """Other limits from now on."""
        self._left = np.minimum(self._patch * PATCH_SHARE, np.float32(left_px))
        self._error_px = error_px

    def reset(self) -> None:
        self._shift = np.zeros((self._grid[0] * self._grid[1], 2), np.float32)

    def process(
        self,
        backward: Floats,
        stale: Mask,
        seen: Mask,
        *,
        error: Callable[[], Floats | None],
        residual_at: Callable[[Slots, Slots], Floats],
        threshold: Floats,
        least: int,
    ) -> Fetch | None:
        """What can be fetched; None when that is nothing. backward: (T, 2), (x, y) source pixels a frame. stale: (T,),
        tokens that don't fit where they are. seen: (T,), tokens that see picture. error(): consistency error (T,),
        asked only for `least` candidates or more, None when there is none in time. residual_at(slots, sources):
        residual of current pixels in `slots` against the reference in `sources`, to be at most `threshold` (T,), grey
        levels."""
        rows, cols = self._grid
        slots = np.flatnonzero(stale)
        came_from = self._home[slots] + (backward[slots] / self._patch)[:, ::-1]
        composed = backward[slots] + self._ops.warp(self._shift, came_from, self._grid)
        self._shift[...] = 0
        self._shift[slots] = composed

        steps = np.rint(self._shift / self._patch).astype(np.int64)
        left = np.abs(self._shift - steps * self._patch)
        slots = np.flatnonzero(stale & steps.any(axis=1) & (left <= self._left).all(axis=1))
        row, col = slots // cols + steps[slots, 1], slots % cols + steps[slots, 0]
        inside = (row >= 0) & (row < rows) & (col >= 0) & (col < cols)
        slots, sources = slots[inside], (row * cols + col)[inside]
        slots, sources = slots[seen[sources]], sources[seen[sources]]
        if len(slots) < max(1, least):
            return None
        errors = error()
        if errors is None:
            return None
        consistent = errors[slots] <= self._error_px
        inconsistent = int(len(slots) - consistent.sum())
        slots, sources = slots[consistent], sources[consistent]
        fits = residual_at(slots, sources) <= threshold[slots]
        slots, sources = slots[fits], sources[fits]
        if not len(slots):
            return None
        source = np.arange(rows * cols)
        source[slots] = sources
        self._shift[slots] -= steps[slots] * self._patch
        return Fetch(source, slots, inconsistent)

    def slid(self, source: Slots) -> None:
        """The grid has stepped: slot `i` shows what slot `source[i]` showed."""
        self._shift = self._shift[source]

    def encoded(self, slots: Slots | None) -> None:
        """These tokens were encoded now (None = all): their anchor is this frame."""
        self._shift[slots if slots is not None else slice(None)] = 0
