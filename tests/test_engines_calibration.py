"""Log-odds become probabilities that keep their word."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.calibration import expected_calibration_error, fit_yes_no, sigmoid


@pytest.mark.parametrize("slope, offset", [(1.0, 0.0), (0.25, 1.5), (4.0, -3.0)])
def test_the_fit_finds_what_made_the_data(slope: float, offset: float) -> None:
    random = np.random.default_rng(0)
    log_odds = random.normal(0, 4, 20_000)
    true_p = sigmoid(slope * log_odds + offset)
    truth = random.random(20_000) < true_p
    found = fit_yes_no(log_odds, truth)
    assert found == pytest.approx((slope, offset), rel=0.06, abs=0.06)
    fitted = sigmoid(found[0] * log_odds + found[1])
    assert expected_calibration_error(fitted, truth) < 0.01
    assert expected_calibration_error(true_p, truth) < 0.01
    assert expected_calibration_error(sigmoid(9 * log_odds + 5), truth) > 0.03


@given(
    log_odds=st.lists(st.integers(-10_000, 10_000), min_size=2, max_size=40),
    flips=st.integers(0, 2**40 - 1),
    scale=st.sampled_from([1e-6, 1.0, 1e3]),
)
def test_the_fit_is_the_best_for_any_data(log_odds: list[int], flips: int, scale: float) -> None:
    """Also where yes and no never overlap, where all log-odds are the same, and where they are huge."""
    x = np.array(log_odds) * scale
    truth = np.array([flips >> i & 1 for i in range(len(x))], bool)
    truth[:2] = True, False
    slope, offset = fit_yes_no(x, truth)
    target = np.where(truth, (truth.sum() + 1) / (truth.sum() + 2), 1 / ((~truth).sum() + 2))

    def loss(slope: float, offset: float) -> float:
        z = slope * x + offset
        return float((np.logaddexp(0, z) - target * z).sum())

    best = loss(slope, offset)
    spread = float(np.abs(x).max()) or 1.0
    for step in (1e-2, 1.0):
        for s, o in ((step, 0), (-step, 0), (0, step), (0, -step)):
            assert best <= loss(slope + s / spread, offset + o) + 1e-6


@pytest.mark.parametrize("log_odds, truth", [([1.0, 2.0], [True, True]), ([], []), ([np.inf, 0.0], [True, False])])
def test_nothing_can_be_learned_from_one_answer(log_odds: list[float], truth: list[bool]) -> None:
    with pytest.raises(ValueError, match="expected both"):
        fit_yes_no(np.array(log_odds), np.array(truth, bool))


def test_calibration_error_is_the_gap_in_each_bin() -> None:
    p = np.array([0.1, 0.1, 0.9, 0.9, 1.0])
    truth = np.array([True, False, True, True, True])
    assert expected_calibration_error(p, truth, bins=2) == pytest.approx((abs(0.2 - 1) + abs(2.8 - 3)) / 5)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        expected_calibration_error(np.array([1.2]), np.array([True]))
