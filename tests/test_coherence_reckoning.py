"""What is worked out for every token: C gives the numbers that NumPy gives."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.coherence import reckoning
from agent.coherence.cuts import detectors, token_cosines
from agent.coherence.noise import PatchNoise
from agent.coherence.quality import correlation, flicker
from agent.coherence.reckoning import NativeReckoning, Reckoning, TokenState
from agent.coherence.settings import CoherenceSettings
from agent.coherence.staleness import Staleness
from vpi_ops.choice import host_library

GRID = 16, 25
TOKENS = GRID[0] * GRID[1]
SETTINGS = CoherenceSettings()


def state(rng: np.random.Generator) -> TokenState:
    made = TokenState.of(PatchNoise(TOKENS), Staleness(), rng.uniform(size=TOKENS) < 0.9)
    made.pressure[...] = rng.exponential(0.02, TOKENS) * (rng.uniform(size=TOKENS) < 0.5)
    made.travelled[...] = rng.uniform(0, 2, (TOKENS, 2))
    return made


@pytest.fixture
def both() -> tuple[Reckoning, Reckoning]:
    library = host_library()
    if library is None:
        pytest.skip("needs a C compiler")
    rng = np.random.default_rng(7)
    numpy_state = state(rng)
    return Reckoning(numpy_state, GRID), NativeReckoning(deepcopy(numpy_state), GRID, library)


def levels(rng: np.random.Generator, busy: float) -> NDArray[np.float32]:
    calm = rng.exponential(1.5, TOKENS)
    return np.where(rng.uniform(size=TOKENS) < busy, rng.uniform(0, 60, TOKENS), calm).astype(np.float32)


@pytest.mark.parametrize(("each", "together"), [(0.015, 1.0), (0.015, 0.1), (0.0, 0.0)])
def test_c_gives_what_numpy_gives(both: tuple[Reckoning, Reckoning], each: float, together: float) -> None:
    rng = np.random.default_rng(1)
    found_any = False
    for _ in range(12):
        residual, difference = levels(rng, 0.1), levels(rng, 0.05)
        stale, coarse = rng.uniform(size=TOKENS) < 0.1, rng.uniform(size=TOKENS) < 0.05
        looks = [r.assess(residual, difference, SETTINGS, each, together) for r in both]
        for name in ("stale", "moving", "threshold", "ratio", "of_noise"):
            np.testing.assert_array_equal(getattr(looks[0], name), getattr(looks[1], name), err_msg=name)
        expected = [r.expect(look, stale, coarse) for r, look in zip(both, looks, strict=True)]
        np.testing.assert_allclose(expected[0].error, expected[1].error, rtol=1e-6)
        assert expected[0].total == pytest.approx(expected[1].total)
        assert expected[0][2:] == expected[1][2:]
        found_any |= bool(looks[0].stale.any()) and not looks[0].stale.all()
    assert found_any


def test_c_learns_what_numpy_learns(both: tuple[Reckoning, Reckoning]) -> None:
    rng = np.random.default_rng(3)
    states = [each._state for each in both]
    for n in (1, 7, 60, 399, 3, 20):
        slots = np.sort(rng.permutation(TOKENS)[:n])
        error, ratio = rng.exponential(0.02, n).astype(np.float32), rng.exponential(0.7, TOKENS).astype(np.float32)
        stale = rng.uniform(size=TOKENS) < 0.3
        for each in both:
            each.learn(slots, error, stale, ratio)
        for mine, theirs in zip(
            *(
                (s.pressure, s.age, s.waiting, s.travelled, s.staleness.curve, s.staleness.context, s.staleness.counts)
                for s in states
            ),
            strict=True,
        ):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-7)
        for s in states:
            s.travelled[...] += 0.1
            s.waiting[...] += 1
    assert states[0].pressure.any()
    assert (states[0].staleness.curve != Staleness().curve).any()


def test_a_copy_works_on_arrays_of_its_own(both: tuple[Reckoning, Reckoning]) -> None:
    rng = np.random.default_rng(2)
    _, native = both
    frames = [(levels(rng, 0.1), levels(rng, 0.05)) for _ in range(4)]
    native.assess(*frames[0], SETTINGS, 0.015, 1.0)
    copy = deepcopy(native)
    after = [native.assess(*frame, SETTINGS, 0.015, 1.0) for frame in frames[1:]]
    again = [copy.assess(*frame, SETTINGS, 0.015, 1.0) for frame in frames[1:]]
    for a, b in zip(after, again, strict=True):
        np.testing.assert_array_equal(a.threshold, b.threshold)
        np.testing.assert_array_equal(a.stale, b.stale)


def test_planners_go_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reckoning, "host_library", lambda: None)
    assert type(reckoning.reckoning(state(np.random.default_rng(0)), GRID)) is Reckoning


@pytest.mark.parametrize("seed", range(3))
def test_correlation_is_what_its_formula_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (TOKENS, 16, 3), dtype=np.uint8)
    b = np.clip(a + rng.normal(0, 20 * seed, a.shape), 0, 255).astype(np.uint8)
    x, y = (each.astype(np.float64).ravel() for each in (a, b))
    covariance = float(((x - x.mean()) * (y - y.mean())).mean())
    assert correlation(a, b) == pytest.approx((covariance + 4) / np.sqrt((x.var() + 4) * (y.var() + 4)), abs=1e-9)


@pytest.mark.parametrize("dim", [5, 16, 192, 203])
def test_products_of_rows_are_what_numpy_makes_of_them(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if host_library() is None:
        pytest.skip("needs a C compiler")
    rng = np.random.default_rng(dim)
    a, b = rng.normal(size=(2, TOKENS, dim)).astype(np.float32)
    a[3] = 0
    signs = rng.choice(np.array([-1, 1], np.float32), (2, dim))
    found = token_cosines(a, b), np.empty((2, TOKENS), np.float32)
    flicker._project(a, signs, found[1])
    for module in (detectors, flicker):
        monkeypatch.setattr(module, "host_library", lambda: None)
    expected = token_cosines(a, b), np.empty((2, TOKENS), np.float32)
    flicker._project(a, signs, expected[1])
    np.testing.assert_allclose(found[0], expected[0], atol=2e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=2e-5 * dim)
    assert found[0][3] == 0
