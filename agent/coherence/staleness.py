"""Staleness: what 1 − cosine between a token's value and a full encode is expected to be, without encoding it.

Two things make a token stale. Its own pixels have changed: expected error against residual ÷ threshold, a rising curve
in bins. Its context has changed: error in proportion to the token's *pressure* (how much the tokens around it have
moved since it was encoded) and to how far it has travelled on the grid since (its keys still say the old position).
Each token that is encoded anew is a sample of both, for nothing: old value against new. Those samples fit the curve and
the proportions to this camera; audits (a full encode besides the planned one) tell by how much the whole is off.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

EDGES = np.array([0.15, 0.3, 0.5, 0.7, 0.85, 1.0, 1.25, 1.6, 2.2, 3.0], np.float32)
"""Bounds of the bins of residual ÷ threshold."""
_START = np.array([0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.08, 0.2], np.float32)
_CONTEXT = np.array([0.35, 0.01], np.float32)
"""Error per unit of pressure, and per patch travelled, before anything is measured."""
COARSE = 0.08
"""Error of one token that stands for four."""
BIN_SAMPLES, _BIN_PRIOR = 50.0, 8.0
"""Samples that a bin's mean remembers, and how many its starting value counts for."""
FORGET = 0.995
_PRIOR = 4.0
"""Weight of the starting proportions, in samples of unit pressure 0.05."""
_SCALE_RATE = 0.3


class Staleness:
    """The fitted model of one camera. `scale`: measured error over expected error of whole frames, from audits. curve,
    context: what has been fitted, float32; counts, moments, products: what it was fitted to. Arrays are written to and
    never replaced."""

    def __init__(self) -> None:
        self.curve = _START.copy()
        self.counts = np.full(len(_START), _BIN_PRIOR, np.float32)
        self.moments = np.diag(np.full(2, _PRIOR * 0.05**2, np.float64))
        self.products = self.moments @ _CONTEXT.astype(np.float64)
        self.context = _CONTEXT.copy()
        self.scale = 1.0

    def expect(self, ratio: Floats, pressure: Floats, travelled: Floats) -> Floats:
        """Expected error, float32 (T,). ratio: residual ÷ threshold. pressure: sum of 1 − cosine around, since the
        token was encoded. travelled: patches from where it was encoded."""
        error = self.curve[np.searchsorted(EDGES, ratio)]
        error = error + self.context[0] * pressure + self.context[1] * travelled
        return np.asarray(np.minimum(error, 1), np.float32)

    @property
    def fresh(self) -> float:
        """Error of a token that was just encoded: the tokens it attends to are not all fresh."""
        return float(self.curve.min())

    def tolerated(self, ratio: Floats, each: float, total: float) -> float:
        """How many times the threshold a residual may reach, 1 or more: what the tokens below have changed is expected
        to cost less than `each` a token, and `total` together. ratio: residual ÷ threshold of all tokens."""
        first = int(np.searchsorted(EDGES, 1.0))
        costly = np.flatnonzero(self.curve[first + 1 :] >= each)
        most = float(EDGES[first + (costly[0] if len(costly) else len(EDGES) - first - 1)])
        changed = np.sort(ratio[(ratio > 1) & (ratio <= most)])
        if not len(changed):
            return most
        over = int(np.searchsorted(np.cumsum(self.curve[np.searchsorted(EDGES, changed)]), total, side="right"))
        return most if over == len(changed) else max(1.0, float(changed[over]) * (1 - 1e-6))

    def observe(self, error: Floats, ratio: Floats, pressure: Floats, travelled: Floats) -> None:
        """Samples (n,): tokens encoded now, and 1 − cosine between what was given out for them and their new value."""
        if not len(error):
            return
        bins = np.searchsorted(EDGES, ratio)
        context = self.context[0] * pressure + self.context[1] * travelled
        own = np.maximum(error - context, 0)
        counts = np.bincount(bins, minlength=len(self.curve))
        sums = np.bincount(bins, own, minlength=len(self.curve))
        seen = counts > 0
        rate = counts[seen] / (self.counts[seen] + counts[seen])
        self.curve[seen] += (rate * (sums[seen] / counts[seen] - self.curve[seen])).astype(np.float32)
        self.counts[seen] = np.minimum(self.counts[seen] + counts[seen], BIN_SAMPLES)
        calm = ratio <= EDGES[1]
        if calm.any():
            x = np.stack([pressure[calm], travelled[calm]], axis=1).astype(np.float64)
            left = np.maximum(error[calm] - self.curve[0], 0).astype(np.float64)
            self.moments[...] = FORGET * self.moments + np.einsum("ni,nj->ij", x, x)
            self.products[...] = FORGET * self.products + np.einsum("ni,n->i", x, left)
            self.context[...] = _nonnegative(self.moments, self.products)

    def audit(self, expected: float, measured: float) -> None:
        """Mean error of a frame as it was expected and as a full encode showed it."""
        ratio = np.clip(measured / max(expected, 1e-4), 0.25, 4.0)
        self.scale *= float((ratio / self.scale) ** _SCALE_RATE)


def _nonnegative(moments: NDArray[np.float64], products: NDArray[np.float64]) -> Floats:
    """Least squares of two unknowns, neither below zero."""
    determinant = moments[0, 0] * moments[1, 1] - moments[0, 1] ** 2
    if determinant > 1e-9 * moments[0, 0] * moments[1, 1]:
        both = np.array(
            [
                moments[1, 1] * products[0] - moments[0, 1] * products[1],
                moments[0, 0] * products[1] - moments[0, 1] * products[0],
            ]
        )
        if (both >= 0).all():
            return np.asarray(both / determinant, np.float32)
    alone = products / np.maximum(np.diag(moments), 1e-12)
    kept = int(np.argmax(products**2 / np.maximum(np.diag(moments), 1e-12)))
    result = np.zeros(2)
    result[kept] = max(alone[kept], 0.0)
    return result.astype(np.float32)
