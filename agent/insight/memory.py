"""What tokens have looked like, and roughly where: a coreset of normal ones, and how far a new one is from the nearest.

The Gaussian of a place (`agent.insight.baseline.Appearance`) knows the place as it mostly is; whoever walks by is far
from it, and so is whoever drives by. A memory tells them apart (PatchCore, Roth et al. 2022). The nearest is sought in
the token's own row of the grid and those above and below, where things are about as far from the camera; how far it is
along the row counts a little as well. So what was seen anywhere at this distance helps a place that has seen little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_STEP = 0.004
"""Squared distance that one place along the row adds; tokens are unit vectors."""
_RADIUS = 0.02
"""Squared distance from which a token is worth remembering, until its row is full."""
_THINNING = 1.3
FARTHEST = 2.0
"""Squared distance of unrelated unit vectors."""


class TokenMemory:
    """For each row of `grid` at most `per_row` points, none nearer to another than the row's radius.

    rows: float32 (n, K + 1) each, the last column being the place along the row. radii: squared distances.
    """

    def __init__(self, grid: tuple[int, int], per_row: int = 512) -> None:
        self.per_row = per_row
        self.rows: list[Floats] = [np.zeros((0, 0), np.float32) for _ in range(grid[0])]
        self.radii = [_RADIUS] * grid[0]
        self._columns = grid[1]
        self._bands: list[tuple[Floats, Floats] | None] = [None] * grid[0]

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    def distance(self, points: Floats, slots: NDArray[np.int64]) -> Floats:
        """Squared distance of the tokens (n, K) in `slots` (n,) to the nearest remembered one, at most FARTHEST."""
        found = np.full(len(points), FARTHEST, np.float32)
        rows, columns = np.divmod(slots, self._columns)
        for row in np.unique(rows):
            band, squares = self._band(row)
            if len(band):
                here = rows == row
                found[here] = np.minimum(FARTHEST, _to_nearest(_placed(points[here], columns[here]), band, squares))
        return found

    def learn(self, points: Floats, slots: NDArray[np.int64]) -> None:
        """Remember those of the tokens (n, K) in `slots` (n,) that are unlike all remembered ones of their row. A full
        row is thinned by a larger radius."""
        rows, columns = np.divmod(slots, self._columns)
        for row in np.unique(rows):
            here = rows == row
            new, old = _placed(points[here], columns[here]), self.rows[row]
            if len(old):
                new = new[_to_nearest(new, old, np.einsum("nk,nk->n", old, old)) > self.radii[row]]
            if not len(new):
                continue
            kept = _net(new, self.radii[row])
            kept = np.concatenate([old, kept]) if len(old) else kept
            while len(kept) > self.per_row:
                self.radii[row] *= _THINNING
                kept = _net(kept, self.radii[row])
            self.rows[row] = kept
            for near in range(max(0, row - 1), min(len(self.rows), row + 2)):
                self._bands[near] = None

    def _band(self, row: int) -> tuple[Floats, Floats]:
        """What is remembered of a row and its neighbours, and the squares of their lengths."""
        band = self._bands[row]
        if band is None:
            near = [rows for rows in self.rows[max(0, row - 1) : row + 2] if len(rows)]
            points = np.concatenate(near) if near else self.rows[row]
            band = self._bands[row] = points, np.einsum("nk,nk->n", points, points)
        return band


def _placed(points: Floats, columns: NDArray[np.int64]) -> Floats:
    return np.concatenate([points, np.float32(_STEP**0.5) * columns[:, None]], axis=1, dtype=np.float32)


def _to_nearest(points: Floats, memory: Floats, squares: Floats) -> Floats:
    """|a − b|² by one product, as exact as distances of unit vectors need."""
    own = np.einsum("nk,nk->n", points, points)
    return np.asarray(np.maximum(0, own + (squares - 2 * points @ memory.T).min(axis=1)), np.float32)


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
