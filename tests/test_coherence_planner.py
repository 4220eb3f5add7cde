"""Plans: their budget, their order, their end."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from coherence_standin import costs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.coherence.costs import EncodeCosts
from agent.coherence.fidelity import FidelityControl
from agent.coherence.noise import PatchNoise
from agent.coherence.planner import Planner
from agent.coherence.settings import PROFILES, CoherenceSettings
from config.errors import ConfigError
from engines.plan import EncodePlan, Mode, cells_of

TOKENS = 64
NONE = np.zeros(TOKENS, np.float32)


def planner(
    chosen: CoherenceSettings | None = None, price: EncodeCosts | None = None, control: FidelityControl | None = None
) -> Planner:
    chosen = chosen or CoherenceSettings(residual=18)
    control = control or FidelityControl(chosen.fidelity_floor, audit_frames=chosen.audit_frames)
    return Planner((8, 8), chosen, price or costs(TOKENS), np.ones(TOKENS, bool), control)


def step(plans: Planner, residual: NDArray[np.float32], movement: float = 0.1) -> EncodePlan:
    """One frame without noise: assess, plan, and say that it was carried out; changed tokens moved by `movement`."""
    look = plans.assess(residual, NONE, 0.0)
    plan = plans.plan(residual, look)
    moved = np.where(look.stale, movement, 0).astype(np.float32)
    coarse = np.zeros(TOKENS, bool)
    if plan.coarse is not None:
        coarse[(plan.coarse[:, None] + [0, 1, 8, 9]).ravel()] = True
    encoded = plan.dirty if plan.dirty is None else np.sort(np.concatenate([plan.dirty, np.flatnonzero(coarse)]))
    plans.encoded(encoded, moved if encoded is None else moved[encoded], look.stale, coarse=coarse)
    return plan


@given(
    st.integers(1, TOKENS),
    st.floats(0.05, 2),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=12),
    st.floats(0, 1),
)
@example(52, 1.0, [0, 332442, 0], 1.0)
@settings(max_examples=60, deadline=None)
def test_no_plan_exceeds_its_budget(budget: int, budget_ms: float, seeds: list[int], busy: float) -> None:
    price = costs(TOKENS)
    chosen = CoherenceSettings(budget_tokens=budget, budget_ms=budget_ms, refresh_tokens=min(8, budget))
    plans = planner(chosen, price)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        residual = (rng.uniform(0, 60, TOKENS) * (rng.uniform(size=TOKENS) < busy)).astype(np.float32)
        plan = step(plans, residual)
        if plan.dirty is None:
            assert budget == TOKENS
            assert price.full_ms <= budget_ms
        else:
            assert plan.encoded is not None
            assert plan.encoded <= budget
            assert plan.encoded <= max(1, price.within(budget_ms))
            assert (np.diff(plan.dirty) > 0).all()
            assert sum(plan.reasons.values()) == plan.encoded
            if plan.coarse is not None:
                assert not np.isin(plan.dirty, plan.coarse[:, None] + [0, 1, 8, 9]).any()


def test_the_most_stale_go_first_and_nothing_starves() -> None:
    plans = planner(CoherenceSettings(residual=18, budget_tokens=4, refresh_tokens=0))
    apart = cells_of((8, 8))[:12, 0]  # one in each cell, so that none can share a token
    residual = NONE.copy()
    residual[apart] = np.linspace(100, 20, 12)
    first = step(plans, residual)
    assert first.dirty is not None
    np.testing.assert_array_equal(first.dirty, np.sort(apart[:4]))
    served = set(first.dirty)
    for _ in range(30):
        dirty = step(plans, residual).dirty
        assert dirty is not None
        served |= set(dirty)
    assert served == set(apart)


def test_past_the_crossover_the_full_encode_is_taken() -> None:
    residual = NONE.copy()
    residual[:60] = 50
    assert step(planner(), residual).mode is Mode.FULL
    assert step(planner(CoherenceSettings(budget_tokens=TOKENS - 1)), residual).mode is Mode.HIERARCHICAL_DIFF


def test_a_scene_that_stops_is_settled_once_and_then_costs_nothing() -> None:
    plans = planner()
    residual = NONE.copy()
    residual[20:30] = 50
    for _ in range(5):
        step(plans, residual)
    after = [step(plans, NONE) for _ in range(10)]
    assert sum(plan.mode is Mode.FULL for plan in after) <= 1
    assert max(plan.reasons.get("refresh", 0) for plan in after) > 3 * CoherenceSettings().refresh_tokens
    assert all(plan.mode is Mode.REUSE for plan in after[5:])


def test_clean_tokens_are_refreshed_in_rotation_while_the_scene_moves() -> None:
    plans = planner(CoherenceSettings(refresh_tokens=6))
    residual = NONE.copy()
    residual[:4] = 50
    refreshed: set[int] = set()
    for _ in range(25):
        dirty = step(plans, residual).dirty
        assert dirty is not None
        refreshed |= set(dirty)
    assert refreshed == set(range(TOKENS))


def test_one_flickering_patch_does_not_keep_the_scene_awake() -> None:
    plans = planner()
    residual = NONE.copy()
    residual[7] = 18
    step(plans, residual, movement=0.002)
    encoded = [len(d) for d in (step(plans, NONE).dirty for _ in range(8)) if d is not None]
    assert sum(encoded) <= 3 * CoherenceSettings().refresh_tokens


def test_a_noisy_patch_is_clean_and_a_slow_fade_is_no_noise() -> None:
    rng = np.random.default_rng(0)
    noise = PatchNoise(2)
    for _ in range(300):
        noise.process(np.array([rng.normal(9, 1), 0.5], np.float32))
    noisy, fading = noise.threshold(6, 4, 18)
    assert 11 < noisy < 18
    assert fading == 6


def test_a_reset_planner_is_a_new_one() -> None:
    used = planner()
    rng = np.random.default_rng(5)
    for _ in range(20):
        step(used, rng.uniform(0, 40, TOKENS).astype(np.float32))
    used.reset()
    new = planner(control=deepcopy(used._control))  # what was learned of the camera outlives a scene
    for _ in range(8):
        residual = (rng.uniform(0, 40, TOKENS) * (rng.uniform(size=TOKENS) < 0.2)).astype(np.float32)
        ours, theirs = step(used, residual), step(new, residual)
        assert ours.mode is theirs.mode
        np.testing.assert_array_equal(ours.dirty, theirs.dirty)


def test_costs_are_read_between_the_measured_points() -> None:
    price = EncodeCosts.of({64: 9.0, 1: 1.0, 8: 0.9, 32: 5.0})
    assert price.full_ms == 9
    assert price.ms(0) == 0
    assert price.ms(8) == 1
    assert price.ms(20) == pytest.approx(3)
    assert price.within(5) == 32
    assert price.within(9) == 64
    assert price.within(0.5) == 0


def test_costs_follow_what_is_measured() -> None:
    price = EncodeCosts(costs(TOKENS).counts, costs(TOKENS).counts_ms)
    before, full = price.ms(20), price.full_ms
    for _ in range(200):
        price.observed(20, 3 * before)
    assert price.ms(20) == pytest.approx(3 * before, rel=0.02)
    assert price.ms(10) / costs(TOKENS).ms(10) == pytest.approx(3, rel=0.02), "the load is the same for all"
    assert price.full_ms == pytest.approx(3 * full, rel=0.02)
    price.observed(20, 1e6)
    assert price.ms(20) < 4 * before, "one interrupted call says little"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("residual", 0),
        ("budget_tokens", 0),
        ("leave", 1.5),
        ("ema_fast", 0.95),
        ("cut_reset", 1),
        ("refresh_tokens", -1),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"coherence\.{name}: found {value!r}, expected"):
        CoherenceSettings(**{name: value})


def test_a_budget_below_the_refresh_is_refused() -> None:
    with pytest.raises(ConfigError, match="refresh_tokens"):
        CoherenceSettings(budget_tokens=4, refresh_tokens=8)


def test_profiles_hold() -> None:
    assert set(PROFILES) == {"general", "webcam", "conversation", "sports", "movie", "security"}


def test_where_most_of_what_is_kept_is_wrong_the_full_encode_is_taken_whatever_it_costs() -> None:
    cheap = EncodeCosts.of({1: 0.01, TOKENS - 1: 1.0, TOKENS: 9.0})
    residual = NONE.copy()
    residual[: int(0.75 * TOKENS)] = 50
    assert step(planner(price=cheap), residual).mode is Mode.HIERARCHICAL_DIFF
    residual[: int(0.85 * TOKENS)] = 50
    plan = step(planner(price=cheap), residual)
    assert plan.mode is Mode.FULL
    assert plan.reasons["warp_error"] == int(0.85 * TOKENS)
