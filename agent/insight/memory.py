"""What tokens have looked like, and roughly where: a coreset of normal ones, and how far a new one is from the nearest.

The Gaussian of a place (`agent.insight.baseline.Appearance`) knows the place as it mostly is; whoever walks by is far
from it, and so is whoever drives by. A memory tells them apart (PatchCore, Roth et al. 2022). Place counts as further
dimensions of the distance: a token one place off counts as a little farther, so that the nearest is sought around the
token and all that was seen in the picture helps where little has passed so far.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_PLACE = 0.01
"""Squared distance that one step on the grid adds; tokens are unit vectors."""
_RADIUS = 0.02
"""Squared distance from which a token is worth remembering, until the memory is full."""
_THINNING = 1.3


class TokenMemory:
    """At most `size` points (K,) with their places (row, col) on the grid, none nearer to another than `radius`.

    points: float32 (n, K + 2), the last two being the place. radius: squared distance.
    """

    def __init__(self, width: int, size: int = 2048) -> None:
        self.size = size
        self.points = np.zeros((0, width + 2), np.float32)
        self.radius = _RADIUS
        self._squares = np.zeros(0, np.float32)

    def distance(self, points: Floats, places: Floats) -> Floats:
        """Squared distance of each token (n, K) at its place (n, 2) to the nearest remembered one; 2, as of unrelated
        unit vectors, while nothing is remembered."""
        if not len(self.points):
            return np.full(len(points), 2, np.float32)
        return np.minimum(2, _to_nearest(_placed(points, places), self.points, self._squares))

    def learn(self, points: Floats, places: Floats) -> None:
        """Remember those of n tokens that are unlike all remembered ones. A full memory is thinned by a larger
        radius."""
        new = _placed(points, places)
        if len(self.points):
            new = new[_to_nearest(new, self.points, self._squares) > self.radius]
        self._replace(np.concatenate([self.points, _net(new, self.radius)]))
        while len(self.points) > self.size:
            self.radius *= _THINNING
            self._replace(_net(self.points, self.radius))

    def _replace(self, points: Floats) -> None:
        self.points = points
        self._squares = np.einsum("nk,nk->n", points, points)


def _placed(points: Floats, places: Floats) -> Floats:
    return np.concatenate([points, np.float32(np.sqrt(_PLACE)) * places], axis=1, dtype=np.float32)


def _to_nearest(points: Floats, memory: Floats, squares: Floats) -> Floats:
    """|a − b|² by one product, as exact as distances of unit vectors need."""
    own = np.einsum("nk,nk->n", points, points)
    return np.maximum(0, own + (squares - 2 * points @ memory.T).min(axis=1))


def _net(points: Floats, radius: float) -> Floats:
    """Points in their order, without those within `radius` of one that is kept."""
    kept = np.zeros(len(points), bool)
    free = np.ones(len(points), bool)
    for i in range(len(points)):
        if free[i]:
            kept[i] = True
            away = points[i:] - points[i]
            free[i:] &= np.einsum("nk,nk->n", away, away) > radius
    return points[kept]
