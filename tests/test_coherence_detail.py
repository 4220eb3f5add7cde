"""Tokens by priority: the bounds always hold, nothing is encoded twice, nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.coherence.detail import Hierarchy, allocate_tokens
from config.errors import ConfigError
from engines.plan import cells_of


@given(
    arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1e6)),
    st.integers(0, 600),
    st.integers(0, 6),
    st.integers(0, 20),
)
@settings(max_examples=200, deadline=None)
def test_an_allocation_is_exact(priorities: np.ndarray, budget: int, least: int, more: int) -> None:
    regions, most = len(priorities), least + more
    if budget < least * regions:
        with pytest.raises(ConfigError, match="budget_tokens"):
            allocate_tokens(priorities, budget, least, most)
        return
    given_ = allocate_tokens(priorities, budget, least, most)
    assert given_.sum() == min(budget, most * regions)
    assert least <= given_.min() <= given_.max() <= most
    np.testing.assert_array_equal(given_, allocate_tokens(priorities, budget, least, most))
    order = np.argsort(priorities, kind="stable")
    assert (np.diff(given_[order]) >= -1).all(), "more priority never gets less, but for one whole token"


def test_priority_decides_in_proportion() -> None:
    np.testing.assert_array_equal(allocate_tokens(np.array([3.0, 1.0, 0.0]), 24), [13, 7, 4])
    np.testing.assert_array_equal(allocate_tokens(np.array([9.0, 1.0, 1.0]), 28), [16, 6, 6])
    np.testing.assert_array_equal(allocate_tokens(np.zeros(4), 18), [5, 5, 4, 4])


@given(st.tuples(st.integers(2, 12), st.integers(2, 12)), st.integers(0, 2**32 - 1), st.integers(1, 150))
@settings(max_examples=150, deadline=None)
def test_detail_keeps_the_budget_and_loses_nothing(grid: tuple[int, int], seed: int, budget: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = grid[0] * grid[1]
    changed = np.flatnonzero(rng.random(tokens) < rng.random())
    priority = rng.random(tokens).astype(np.float32)
    detail = Hierarchy(grid).choose(changed, priority, budget)
    assert len(detail.fine) + len(detail.coarse) <= budget
    cells = {int(cell[0]): set(cell.tolist()) for cell in cells_of(grid)}
    in_coarse = set().union(*(cells[int(first)] for first in detail.coarse)) if len(detail.coarse) else set()
    fine, left = set(detail.fine.tolist()), set(detail.left.tolist())
    assert not fine & in_coarse and not left & in_coarse and not fine & left
    assert set(changed.tolist()) <= fine | in_coarse | left
    assert fine | left <= set(changed.tolist())
    if len(changed) <= budget:
        assert fine == set(changed.tolist())


def test_the_most_important_cells_stay_fine() -> None:
    priority = np.zeros(64, np.float32)
    priority[[0, 1, 8, 9]] = 5
    priority[[2, 3, 10, 11]] = 1
    detail = Hierarchy((8, 8)).choose(np.array([0, 1, 2, 3, 8, 9, 10, 11]), priority, 5)
    np.testing.assert_array_equal(detail.fine, [0, 1, 8, 9])
    np.testing.assert_array_equal(detail.coarse, [2])


def test_a_coarse_cell_is_taken_whole() -> None:
    coarse = np.zeros(16, bool)
    coarse[[2, 3, 6, 7]] = True
    np.testing.assert_array_equal(Hierarchy((4, 4)).whole(np.array([0, 6]), coarse), [0, 2, 3, 6, 7])
