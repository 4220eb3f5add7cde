"""Features blended over time: less flicker for whoever reads them, at no lag where the content changed.

`α · accumulated + (1 − α) · new` per token, α from `static` (0.9) standing still to `fast` (0.3) at full motion. The
accumulated features are moved with the flow before they are blended, else they ghost. A token that was re-encoded
because its content changed enters with α = 0: blending two different things is lag, not noise reduction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vpi_ops.interface import VisionOps

Floats = NDArray[np.float32]

_LEAST_SHIFT = 0.02
"""Patches a frame: below this nothing is moved, since every bilinear gather also blurs."""
_TOGETHER = 1e-3
"""Share of a difference that is left when blended and current features are made the same."""


class Accumulator:
    """The blended token map (T, D) of one camera. at_rest: the last frame left it as it was."""

    def __init__(self, ops: VisionOps, grid: tuple[int, int], *, static: float = 0.9, fast: float = 0.3) -> None:
        self._ops = ops
        self._grid = grid
        self._static, self._fast = static, fast
        rows, cols = grid
        self._home = np.stack(np.divmod(np.arange(rows * cols), cols), axis=1).astype(np.float32)
        self.reset()

    def keep(self, *, static: float, fast: float) -> None:
        """Other shares to keep from now on."""
        self._static, self._fast = static, fast

    def reset(self) -> None:
        self._features: Floats | None = None
        self._apart = 1.0
        self.at_rest = False

    def fetch(self, source: NDArray[np.int64]) -> None:
        """Every slot takes over what was blended in slot `source[slot]`."""
        if self._features is not None:
            self._features[...] = self._features[source]

    def process(
        self,
        features: Floats,
        motion: Floats,
        replaced: NDArray[np.bool_],
        shift: Floats | None = None,
        *,
        steady: bool = False,
    ) -> Floats:
        """Blend one frame in; returns a view of the accumulated features (T, D), valid until the next call.

        motion: (T,), 0 to 1. replaced: (T,), tokens whose content changed. shift: (T, 2), (row, col) in patches to
        where the content of each token was a frame ago; None = nothing moved. steady: features are those of the frame
        before; what is blended comes to them, and is then left alone.
        """
        if self._features is None:
            self._features = self._ops.tokens(*features.shape)
            self._features[...] = features
            return self._features
        self.at_rest = steady and self._apart < _TOGETHER
        if self.at_rest:
            return self._features
        if not steady:
            self._apart = 1.0
        if shift is not None:
            slots = np.flatnonzero(~replaced & (np.abs(shift) > _LEAST_SHIFT).any(axis=1))
            self._features[slots] = self._ops.warp(self._features, self._home[slots] + shift[slots], self._grid)
        alpha = self._static - (self._static - self._fast) * motion
        if steady and not replaced.any():
            self._apart *= float(alpha.max())
        if self._apart < _TOGETHER:
            self._features[...] = features
        else:
            self._ops.blend(self._features, features, np.where(replaced, np.float32(0), alpha.astype(np.float32)))
        return self._features
