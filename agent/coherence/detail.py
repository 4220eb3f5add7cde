"""Level of detail: when there is more to encode than a frame's budget allows, some 2×2 cells are encoded as one token.

A coarse token costs one where the changed tokens of its cell cost up to four. Regions of 4×4 patches get tokens by
priority, and within a region the cells with the highest priority are encoded fine.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError
from engines.plan import cells_of

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def allocate_tokens(
    priorities: NDArray[np.float64], budget: int, minimum: int | Ints = 4, maximum: int | Ints = 16
) -> Ints:
    """Tokens for each region, int64 (n,), in proportion to its priority (n,), ≥ 0, as far as its bounds allow.

    Exact: the sum is the budget, or that of the maxima where that is less; no region gets less than its minimum or more
    than its maximum; the same input gives the same output, equal priorities from the first region on. What whole tokens
    leave over goes to the largest remainders. Raises ConfigError when the budget is below the sum of the minima.
    """
    wanted = np.asarray(priorities, np.float64)
    least = np.broadcast_to(np.asarray(minimum, np.int64), wanted.shape)
    most = np.broadcast_to(np.asarray(maximum, np.int64), wanted.shape)
    if (wanted < 0).any() or not np.isfinite(wanted).all():
        raise ValueError("priorities: found one that is negative or not finite, expected 0 or more")
    if (least > most).any():
        raise ValueError("a region's minimum is above its maximum")
    if budget < least.sum():
        raise ConfigError(
            f"budget_tokens: found {budget}, expected {least.sum()} or more: the minima of {len(wanted)} regions"
        )
    room = most - least
    left = int(min(budget - least.sum(), room.sum()))
    ideal = _in_proportion(wanted, room, left)
    extra = np.floor(ideal + 1e-9).astype(np.int64)
    remainders = np.where(extra < room, ideal - extra, -np.inf)
    extra[np.argsort(-remainders, kind="stable")[: left - int(extra.sum())]] += 1
    return np.asarray(least + extra, np.int64)


def _in_proportion(wanted: NDArray[np.float64], room: Ints, total: int) -> NDArray[np.float64]:
    """Fractions of tokens (n,) with the sum `total`, in proportion to what is wanted and none above its room. What
    nobody wants any more is spread evenly."""
    shares = np.zeros(len(wanted))
    wanted = wanted / max(float(wanted.max(initial=0)), np.finfo(np.float64).tiny)
    left = float(total)
    open_ = room > 0
    while open_.any():
        weights = np.where(open_, wanted, 0)
        if not weights.any():
            weights = open_.astype(np.float64)
        shares[open_] = left * (weights / weights.sum())[open_]
        full = open_ & (shares >= room)
        if not full.any():
            break
        shares[full] = room[full]
        left -= float(room[full].sum())
        open_ &= ~full
    return shares


class Detail(NamedTuple):
    """fine: int64, slots to encode as they are. coarse: int64, first slots of the cells to encode as one token. left:
    int64, changed slots that have to wait."""

    fine: Ints
    coarse: Ints
    left: Ints


class Hierarchy:
    """The cells and regions of one grid."""

    def __init__(self, grid: tuple[int, int]) -> None:
        self._cells = cells_of(grid)
        tokens = grid[0] * grid[1]
        self._cell_of = np.full(tokens, -1)
        self._cell_of[self._cells] = np.arange(len(self._cells))[:, None]
        row, col = np.divmod(self._cells[:, 0], grid[1])
        self._region_of = row // 4 * ((grid[1] + 3) // 4) + col // 4
        self._regions = int(self._region_of.max()) + 1

    def whole(self, slots: Ints, coarse: Mask) -> Ints:
        """The slots, and with each that lies in a coarse cell the other three of it; ascending."""
        chosen = np.zeros(len(self._cell_of), bool)
        chosen[slots] = True
        touched = self._cells[(chosen & coarse)[self._cells].any(axis=1)]
        chosen[touched] = True
        return np.flatnonzero(chosen)

    def choose(self, changed: Ints, priority: Floats, budget: int) -> Detail:
        """What to do with changed slots (n,) within a budget of tokens. priority: (T,), of each slot."""
        paired = changed[self._cell_of[changed] >= 0]
        alone = changed[self._cell_of[changed] < 0]
        cells, of = np.unique(self._cell_of[paired], return_inverse=True)
        counts = np.bincount(of, minlength=len(cells))
        weights = np.bincount(of, priority[paired], minlength=len(cells))
        if len(cells) + len(alone) > budget:  # not even coarse: the least urgent cells wait
            order = np.argsort(-weights, kind="stable")
            kept = order[: max(0, budget - len(alone[:budget]))]
            waiting = np.ones(len(cells), bool)
            waiting[kept] = False
            many = kept[counts[kept] > 1]
            single = np.isin(of, kept[counts[kept] == 1])
            return Detail(
                np.sort(np.concatenate([alone[:budget], paired[single]])),
                np.sort(self._cells[cells[many], 0]),
                np.sort(np.concatenate([alone[budget:], paired[waiting[of]]])),
            )
        regions = self._region_of[cells]
        least = np.bincount(regions, minlength=self._regions)
        most = np.bincount(regions, counts, minlength=self._regions).astype(np.int64)
        given = allocate_tokens(
            np.bincount(regions, weights, self._regions).astype(np.float64), budget - len(alone), least, most
        )
        order = np.lexsort((-weights, regions))
        extra = (counts - 1)[order]
        spent = np.cumsum(extra)
        first = np.searchsorted(regions[order], np.arange(self._regions))
        before = np.concatenate([[0], spent])[first][regions[order]]
        fine = np.zeros(len(cells), bool)
        fine[order] = spent - before <= (given - least)[regions[order]]
        coarse = ~fine & (counts > 1)
        return Detail(
            np.sort(np.concatenate([alone, paired[~coarse[of]]])),
            np.sort(self._cells[cells[coarse], 0]),
            np.zeros(0, np.int64),
        )
