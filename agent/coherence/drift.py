"""Drift transfer: what refreshed tokens tell about those that were not.

A clean token's cached value ages as its context changes. Where one is refreshed, the difference between its new value
and what we gave out for it is known; a share of the mean difference is added to the output of all other clean tokens.
The encoder's cache is left alone. A token's correction ends when it is encoded itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class DriftTransfer:
    """Corrections (T, D) on top of cached features. share: of the mean movement that is taken on (1 overshoots)."""

    def __init__(self, tokens: int, dim: int, *, share: float = 0.6) -> None:
        self._share = share
        self._correction = np.zeros((tokens, dim), np.float32)
        self._active = False

    def reset(self) -> None:
        if self._active:
            self._correction[...] = 0
            self._active = False

    def process(self, movement: Floats, encoded: NDArray[np.int64]) -> None:
        """movement: (n, D), new value − value given out, of the clean tokens that were refreshed in this frame.
        encoded: slots of all tokens encoded in this frame."""
        if self._share > 0 and len(movement):
            self._correction += self._share * movement.mean(axis=0)
            self._active = True
        if self._active:
            self._correction[encoded] = 0

    def fetch(self, source: NDArray[np.int64]) -> None:
        """Corrections go where their tokens go."""
        if self._active:
            self._correction = self._correction[source]

    def apply(self, features: Floats, out: Floats) -> None:
        """Corrected features, into `out`."""
        if self._active:
            np.add(features, self._correction, out=out)
        else:
            out[...] = features
