"""Drift transfer: what refreshed tokens tell about those that were not.

A clean token's cached value ages as its context changes. Where one is refreshed, the difference between its new value
and what we gave out for it is known; every other clean token takes on a share of the differences, most from the
refreshed tokens that are like itself (cosine of features about their mean). On real clips this leaves a quarter less
error than none, three times the gain of a plain mean. The encoder's cache is left alone. A token's correction ends
when it is encoded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Slots = NDArray[np.int64]

_SHARPNESS = 5.0
"""Weight of a refreshed token falls to 1/e of that of an equal one at a cosine of 0.8."""
_WORTH = 0.04
"""Squared movement, in shares of squared features, from which on it is worth passing on. Towers that were trained on
partial encodes stay below."""
_MOST = 96
"""Refreshed tokens, those that moved most, that are asked; the cost is in proportion to them."""
_DOUBT = 0.2
"""Weight of "nothing has moved", in refreshed tokens equal to the token itself."""


class DriftTransfer:
    """Corrections (T, D) on top of cached features. share: part of the expected movement that is taken on."""

    def __init__(self, tokens: int, dim: int, *, share: float = 0.8) -> None:
        self._share = share
        self._correction = np.zeros((tokens, dim), np.float32)
        self._active = False

    def process(self, given: Floats, refreshed: Slots, movement: Floats, encoded: Slots) -> None:
        """given: (T, D), features given out for the frame before. refreshed: (n,), clean tokens encoded in this
        frame, and movement: (n, D), how far their new values are from `given`. encoded: slots of all tokens encoded
        in this frame."""
        if (
            self._share > 0
            and len(refreshed)
            and float(np.square(movement).sum()) > _WORTH * self._size(given, refreshed)
        ):
            if len(refreshed) > _MOST:
                most = np.argsort(-np.einsum("ij,ij->i", movement, movement), kind="stable")[:_MOST]
                refreshed, movement = refreshed[most], movement[most]
            weights = np.exp(_SHARPNESS * (_likeness(given, refreshed) - 1))
            weights *= self._share / (_DOUBT + weights.sum(axis=1, keepdims=True))
            self._correction += _product(weights, movement)
            self._active = True
        if self._active:
            self._correction[encoded] = 0

    @staticmethod
    def _size(given: Floats, slots: Slots) -> float:
        return float(np.square(given[slots]).sum())

    def fetch(self, source: Slots) -> None:
        """Corrections go where their tokens go."""
        if self._active:
            self._correction = self._correction[source]

    def apply(self, features: Floats, out: Floats, encoded: Slots) -> None:
        """Corrected features, into `out`, which has those of before; `encoded`: slots of the tokens that are new."""
        if self._active:
            np.add(features, self._correction, out=out)
        else:
            out[encoded] = features[encoded]

    def reset(self) -> None:
        if self._active:
            self._correction[...] = 0
            self._active = False


def _likeness(features: Floats, chosen: Slots) -> Floats:
    """Cosine of each token (T, D) with each chosen one about the mean of all, float32 (T, n)."""
    centred = features - features.mean(axis=0)
    lengths = np.sqrt(np.einsum("ij,ij->i", centred, centred)) + np.float32(1e-6)
    cosines: Floats = _product(centred, centred[chosen].T) / (lengths[:, None] * lengths[chosen])
    return cosines


def _product(a: Floats, b: Floats) -> Floats:
    """Matrix product on this thread. A BLAS, NumPy's or OpenCV's, starts threads that fight with the inference
    runtime's, and on a loaded machine a product of a tenth of a millisecond then takes ten."""
    product: Floats = np.einsum("ij,jk->ik", a, b)
    return product
