"""Which row of the cache belongs to which slot of the grid, and which 2×2 cells are one coarse token.

A slot is a place of the grid, row-major; a row is a place in the cache. Attention doesn't care about the order of its
keys, so tokens that change places (a warp, a slide of the grid) have their rows renamed and nothing is moved; only a
row that two slots want is copied. The four rows of a coarse cell hold the same key and value.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.plan import EncodePlan, cells_of

Ints = NDArray[np.int64]
_NONE: Ints = np.empty(0, np.int64)


class Moves(NamedTuple):
    """What is left to do before the graph runs: in the cache, rows `copied_from` → `copied_to`; in the features, slots
    `moved_from` → `moved_to`."""

    copied_to: Ints = _NONE
    copied_from: Ints = _NONE
    moved_to: Ints = _NONE
    moved_from: Ints = _NONE


_NOTHING = Moves()


class Slots:
    """State of one cache. rows: int64 (T,), the row of each slot. coarse: bool (T,), the slots of coarse cells."""

    def __init__(self, grid: tuple[int, int]) -> None:
        tokens = grid[0] * grid[1]
        self.rows = np.arange(tokens)
        self.coarse = np.zeros(tokens, bool)
        self._columns = grid[1]
        self._offsets = np.array([0, 1, grid[1], grid[1] + 1])
        self._cells = cells_of(grid)
        self._first = np.full(tokens, -1)
        self._first[self._cells] = self._cells[:, :1]

    def reset(self) -> None:
        """Every slot has its own row, and none is coarse."""
        self.rows[:] = np.arange(len(self.rows))
        self.coarse[:] = False

    def four(self, cells: Ints) -> Ints:
        """int64 (m, 4): the slots of the cells whose first slots are given."""
        return np.asarray(cells[:, None] + self._offsets, np.int64)

    def apply(self, plan: EncodePlan) -> Moves:
        """Take a selective plan over. Raises ValueError as `check` does, and has changed nothing then."""
        states = self.check(plan)
        if states is None:
            return _NOTHING
        encoded, coarse = states
        self.coarse[:] = coarse
        return _NOTHING if plan.fetch is None else self._rename(plan.fetch, encoded)

    def check(self, plan: EncodePlan) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """Which slots a selective plan encodes, and which are coarse after it, bool (T,) each; None where nothing is
        coarse and nothing moves. Raises ValueError when the plan names slots that are not there, a first slot that
        begins no cell, or leaves a cell partly coarse."""
        dirty = _NONE if plan.dirty is None else plan.dirty
        cells = _NONE if plan.coarse is None else plan.coarse
        self._check_range(dirty, cells)
        if plan.fetch is None and not len(cells) and not self.coarse.any():
            return None
        four = self.four(cells)
        encoded = np.zeros(len(self.rows), bool)
        encoded[dirty] = True
        if encoded[four].any():
            raise ValueError(f"{self._name(cells[encoded[four].any(axis=1)][0])} is both in `dirty` and in `coarse`")
        encoded[four] = True
        coarse = self.coarse.copy() if plan.fetch is None else self.coarse[plan.fetch]
        coarse[dirty] = False
        coarse[four] = True
        self._check_whole(coarse)
        if plan.fetch is not None:
            self._check_fetch(plan.fetch, coarse & ~encoded)
        return encoded, coarse

    def _rename(self, fetch: Ints, encoded: NDArray[np.bool_]) -> Moves:
        """Give each slot that is not encoded anew the row of the slot it fetches from. The second slot to want a row
        gets a free one and a copy; what is free then is for the encoded."""
        kept = np.flatnonzero(~encoded)
        wanted = self.rows[fetch[kept]]
        taken, first = np.unique(wanted, return_index=True)
        second = np.delete(np.arange(len(kept)), first)
        free = np.delete(np.arange(len(self.rows)), taken)
        copied_to, copied_from = free[: len(second)], wanted[second]
        self.rows[kept] = wanted
        self.rows[kept[second]] = copied_to
        self.rows[encoded] = free[len(second) :]
        moved = kept[fetch[kept] != kept]
        return Moves(copied_to, copied_from, moved, fetch[moved])

    def _check_range(self, dirty: Ints, cells: Ints) -> None:
        for slots in (dirty, cells):
            if len(slots) and not 0 <= slots.min() <= slots.max() < len(self.rows):
                raise ValueError(f"slots {slots.min()} to {slots.max()}, expected 0 to {len(self.rows) - 1}")
        astray = cells[self._first[cells] != cells]
        if len(astray):
            raise ValueError(
                f"`coarse` names {self._name(astray[0])}, expected the top left slot of a cell: even row, even column"
            )

    def _check_whole(self, coarse: NDArray[np.bool_]) -> None:
        """Each cell is coarse as a whole or not at all; slots at an odd edge belong to no cell."""
        of_cell = coarse[self._cells]
        partly = self._cells[of_cell.any(axis=1) & ~of_cell.all(axis=1), 0]
        edge = np.flatnonzero(coarse & (self._first < 0))
        for slot in (*partly, *edge):
            raise ValueError(
                f"{self._name(slot)} would be partly coarse: encode all four of its slots, or the cell as one"
            )

    def _check_fetch(self, fetch: Ints, coarse: NDArray[np.bool_]) -> None:
        """A cell may take over a coarse cell slot by slot, and no other way."""
        cells = self._cells[coarse[self._cells[:, 0]]]
        sources = fetch[cells]
        wrong = (sources != self._first[sources[:, :1]] + (cells - cells[:, :1])).any(axis=1)
        if wrong.any():
            raise ValueError(
                f"{self._name(cells[wrong][0, 0])} fetches from parts of coarse cells: fetch a coarse cell as a whole, "
                "or encode the slots that reach into it"
            )

    def _name(self, slot: int) -> str:
        row, column = divmod(int(slot), self._columns)
        return f"the cell at slot {int(slot)} (row {row}, column {column})"
