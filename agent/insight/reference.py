"""A state of the scene to compare later ones with: rows at length 1, and how unlike its own places are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.insight.shift import own_distance

LEAST_LIMIT = 0.02
"""Cosine distance below which cached tokens are no truer than this, whatever the contrast of the picture."""


class Reference:
    """unit: float32 (T, D) as `unit_rows` gives it; kept, not copied."""

    def __init__(self, unit: NDArray[np.float32]) -> None:
        away = unit - unit.mean(axis=0)
        self.unit = unit
        self.contrast = float(np.einsum("td,td->", away, away)) / len(unit)
        """Mean distance between two places, 0–2."""

    def limit(self, share: float) -> float:
        """Distance that is this share of the mean distance between two places."""
        return max(share * self.contrast, LEAST_LIMIT)

    def distance(self, unit: NDArray[np.float32], counted: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Cosine distance 0–2 (T,) of each row from what it was, without the shift that all rows `counted` (T,)
        share."""
        return row_distance(unit, self.unit, counted)

    def drifted(
        self, unit: NDArray[np.float32], share: float, counted: NDArray[np.bool_] | None = None
    ) -> NDArray[np.bool_]:
        """Which rows `counted` have passed `limit(share)`, bool (T,)."""
        past = self.distance(unit, counted) >= self.limit(share)
        return np.asarray(past if counted is None else past & counted, bool)


def unit_rows(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of the rows at length 1; a row of zeros stays zero."""
    norm = np.sqrt(np.einsum("td,td->t", features, features))[:, None]
    return np.asarray(features / np.maximum(norm, 1e-12), dtype=np.float32)


def row_distance(
    a: NDArray[np.float32], b: NDArray[np.float32], counted: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Cosine distance 0–2 of the rows of two unit matrices without the shift that all rows `counted` (T,) share."""
    return np.asarray(own_distance(a - b, counted) / 2, dtype=np.float32)
