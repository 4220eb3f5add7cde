"""Tokens by priority against brute force: of all allocations that keep the bounds, the one nearest to proportion."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.coherence.detail import allocate_tokens

REGION = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9))
"""Fewest tokens of a region, how many more it may get, and its priority."""


@given(st.lists(REGION, min_size=1, max_size=4), st.integers(0, 24))
@settings(max_examples=200, deadline=None)
def test_of_all_allocations_none_is_nearer_to_proportion(regions: list[tuple[int, int, int]], spare: int) -> None:
    least, more, priorities = np.array(regions).T
    budget = int(least.sum()) + spare
    found = allocate_tokens(priorities.astype(float), budget, least, least + more) - least
    total = min(spare, int(more.sum()))
    ideal = by_level(priorities.astype(float), more, total)
    allowed = [extra for extra in product(*(range(each + 1) for each in more)) if sum(extra) == total]
    assert tuple(found) in allowed
    nearest = min(float(np.square(extra - ideal).sum()) for extra in allowed)
    assert np.square(found - ideal).sum() <= nearest + 1e-6


def by_level(priorities: np.ndarray, room: np.ndarray, total: int) -> np.ndarray:
    """What each would get if tokens could be cut: the level that fills all vessels to `total`, found by halving."""
    wanted = priorities if room[priorities > 0].sum() >= total else np.where(priorities > 0, 1e6, 1)
    low, high = 0.0, 100.0
    for _ in range(100):
        level = (low + high) / 2
        low, high = (low, level) if np.minimum(room, level * wanted).sum() > total else (level, high)
    return np.asarray(np.minimum(room, low * wanted))


def test_no_region_gets_a_token_more_than_its_share_rounded_up() -> None:
    np.testing.assert_array_equal(allocate_tokens(np.array([5.0, 3.0, 1.0]), 7, 0, 16), [4, 2, 1])
