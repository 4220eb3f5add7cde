"""What has been seen that was unlike its place, and roughly where: a coreset, and how far a token is from the nearest.

The Gaussian of a place knows the place as it mostly is; whoever walks by is far from it, and so is whoever drives by. A
memory tells them apart (PatchCore, Roth et al. 2022). The nearest is sought in the token's own row of the grid and
those above and below, where things are about as far from the camera; how far it is along the row counts a little as
well. So what was seen anywhere at this distance helps a place that has seen little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_STEP = 1.0
"""Squared distance, in units of normal spread, that one place along the row adds."""
_RADIUS = 0.08
"""Squared distance from which a token is worth remembering, until its row is full; tokens are differences of unit
vectors."""
_THINNING = 1.3


class TokenMemory:
    """For each row of `grid` at most `per_row` points, none nearer to another than the row's radius.

    rows: float32 (n, K + 1) each, the last column being the place along the row. radii: squared distances.
    """

    def __init__(self, grid: tuple[int, int], per_row: int = 128) -> None:
        self.per_row = per_row
        self.rows: list[Floats] = [np.zeros((0, 0), np.float32) for _ in range(grid[0])]
        self.radii = [_RADIUS] * grid[0]
        self._columns = grid[1]
        self._white: Floats | None = None
        self._whitened: list[Floats | None] = [None] * grid[0]
        self._bands: list[Floats | None] = [None] * grid[0]

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    def measure(self, white: Floats) -> None:
        """Measure by this (K, K) from now on."""
        self._white = white
        self._whitened, self._bands = [None] * len(self.rows), [None] * len(self.rows)

    def distance(self, points: Floats, slots: NDArray[np.int64], farthest: float) -> Floats:
        """Squared distance of the tokens (n, K), already multiplied by what is measured by, in `slots` (n,) to the
        nearest remembered one, at most `farthest`."""
        found = np.full(len(points), farthest, np.float32)
        rows, columns = np.divmod(slots, self._columns)
        placed = _placed(points, columns)
        squares = np.einsum("nk,nk->n", placed, placed)
        measured = np.concatenate([placed, np.ones((len(placed), 1), np.float32)], axis=1)
        for row in np.unique(rows):  # of the grid: at most as many as it has, not as many as tokens
            band = self._band(int(row))
            if band.size:
                here = rows == row
                found[here] = squares[here] + (measured[here] @ band.T).min(axis=1)
        return np.clip(found, 0, np.float32(farthest))

    def learn(self, points: Floats, slots: NDArray[np.int64]) -> None:
        """Remember those of the tokens (n, K) in `slots` (n,) that are unlike all remembered ones of their row. A full
        row is thinned by a larger radius."""
        rows, columns = np.divmod(slots, self._columns)
        for row in np.unique(rows):
            here, old = rows == row, self.rows[row]
            new = np.concatenate([points[here], columns[here, None]], axis=1, dtype=np.float32)
            if len(old):
                known = old[:, :-1]
                new = new[_to_nearest(new[:, :-1], known, np.einsum("nk,nk->n", known, known)) > self.radii[row]]
            if not len(new):
                continue
            kept = _net(new, self.radii[row])
            kept = np.concatenate([old, kept]) if len(old) else kept
            while len(kept) > self.per_row:
                self.radii[row] *= _THINNING
                kept = _net(kept, self.radii[row])
            self.rows[row], self._whitened[row] = kept, None
            for near in range(max(0, int(row) - 1), min(len(self.rows), int(row) + 2)):
                self._bands[near] = None

    def _band(self, row: int) -> Floats:
        """What is remembered of a row and its neighbours, (m, K + 2) as of `_measured`."""
        band = self._bands[row]
        if band is None:
            known = [r for r in range(max(0, row - 1), min(len(self.rows), row + 2)) if len(self.rows[r])]
            band = np.concatenate([self._measured(r) for r in known]) if known else np.zeros((0, 0), np.float32)
            self._bands[row] = band
        return band

    def _measured(self, row: int) -> Floats:
        """Its points m as (−2m, |m|²): times (p, 1) that is the squared distance from p but for |p|²."""
        whitened = self._whitened[row]
        if whitened is None:
            known = self.rows[row]
            tokens = known[:, :-1] if self._white is None else known[:, :-1] @ self._white
            points = _placed(tokens, known[:, -1])
            squares = np.einsum("nk,nk->n", points, points)
            whitened = self._whitened[row] = np.concatenate([-2 * points, squares[:, None]], axis=1)
        return whitened


def _placed(points: Floats, columns: NDArray[np.int64] | Floats) -> Floats:
    return np.concatenate([points, np.float32(_STEP**0.5) * columns[:, None]], axis=1, dtype=np.float32)


def _to_nearest(points: Floats, memory: Floats, squares: Floats) -> Floats:
    """|a − b|² by one product, as exact as such distances need."""
    own = np.einsum("nk,nk->n", points, points)
    return np.asarray(np.maximum(0, own + (squares - 2 * points @ memory.T).min(axis=1)), np.float32)


def _net(points: Floats, radius: float) -> Floats:
    """Points in their order, without those within `radius` of one that is kept; the place along the row is no part of
    the distance."""
    kept, free, tokens = np.zeros(len(points), bool), np.ones(len(points), bool), points[:, :-1]
    for i in range(len(points)):
        if free[i]:
            kept[i] = True
            away = tokens[i:] - tokens[i]
            free[i:] &= np.einsum("nk,nk->n", away, away) > radius
    return points[kept]
