from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.insight.rarity import BLOCK_S, ScoreHistory

BLOCKS_A_DAY = 43_200
TAILS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "exponential": lambda rng, n: rng.exponential(0.3, n),
    "normal": lambda rng, n: rng.normal(1.0, 0.3, n),
    "people pass one time in ten": lambda rng, n: np.where(
        rng.random(n) < 0.1, rng.normal(2.5, 0.4, n), rng.normal(0.7, 0.05, n)
    ),
    "gumbel": lambda rng, n: rng.gumbel(1.0, 0.2, n),
}


@pytest.mark.parametrize("watched_blocks", [90, 1800])
@pytest.mark.parametrize("tail", TAILS)
def test_normal_time_passes_the_limit_about_as_often_as_was_asked(tail: str, watched_blocks: int) -> None:
    """20 cameras, 20 days each: the true rate beyond the limit, against 10 a day, on average over cameras."""
    rng = np.random.default_rng(11)
    rates = []
    for _ in range(20):
        history = ScoreHistory(TAILS[tail](rng, watched_blocks))
        limit = history.limit(10)
        rates.append(np.mean(TAILS[tail](rng, 20 * BLOCKS_A_DAY) > limit) * BLOCKS_A_DAY)
    assert np.median(rates) <= 10
    assert np.mean(rates) <= 20


def test_with_a_day_of_exponential_scores_the_limit_is_tight_not_only_safe() -> None:
    rng = np.random.default_rng(5)
    history = ScoreHistory(rng.exponential(0.3, BLOCKS_A_DAY))
    true_rate = BLOCKS_A_DAY * np.exp(-history.limit(1) / 0.3)
    assert 0.2 < true_rate < 2


@given(scores=st.lists(st.floats(0, 5), min_size=5, max_size=60), at=st.floats(0, 12), step=st.floats(0, 3))
def test_rarity_falls_with_the_score_and_agrees_with_the_limit(scores: list[float], at: float, step: float) -> None:
    history = ScoreHistory(scores)
    assert history.per_day(at + step) <= history.per_day(at) + 1e-9
    assert history.limit(0.5) >= history.limit(5) >= history.usual
    assert history.per_day(history.limit(0.5)) <= 0.5001


def test_too_short_a_history_makes_no_limit() -> None:
    history = ScoreHistory([1.0, 2.0, 1.5, 0.5])
    assert history.limit(1) == np.inf
    history.add(1.0, BLOCK_S)
    assert history.limit(1) < np.inf


def test_a_block_is_the_highest_score_of_two_seconds() -> None:
    history = ScoreHistory()
    for score in [1.0, 3.0, 2.0, 0.5, 0.1, 0.2, 0.4, 0.3]:
        history.add(score, 0.5)
    assert list(history.blocks) == [3.0, 0.4]


def test_alarms_are_counted_for_a_day_and_never_raise_the_limit() -> None:
    history = ScoreHistory(np.random.default_rng(0).normal(1.0, 0.05, 200))
    before = history.limit(1)
    for i in range(20):
        history.add_alarm(4.0, now_s=1000.0 + i)
    assert history.limit(1) == before
    assert history.alarms_within_a_day(1100.0) == 20
    assert history.alarms_within_a_day(1009.5 + 86_400) == 10
