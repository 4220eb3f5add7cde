"""Figures of the rendered camera: the same parts in every pose, and poses that can be told apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.capture.scene.draw import figure
from agent.capture.scene.figure import new_look, shapes
from agent.capture.scene.outline import Pose
from agent.capture.scene.truth import KINDS

unit = st.floats(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 999),
    phase=st.floats(-50, 50),
    stride=unit,
    low=unit,
    sit=unit,
    height=st.floats(0, 3),
    moving=st.booleans(),
)
def test_an_individual_has_the_same_parts_in_every_pose(
    kind: str, seed: int, phase: float, stride: float, low: float, sit: float, height: float, moving: bool
) -> None:
    look = new_look(kind, "red", np.random.default_rng(seed))
    rest = shapes(look, Pose(300, 200, 100, 1))
    other = shapes(
        look,
        Pose(300, 200, 100, 1, phase=phase, stride=stride, low=low, sit=sit, height=height, moving=moving),
    )
    assert [s.points.shape for s in rest] == [s.points.shape for s in other]
    assert all(np.isfinite(s.points).all() for s in other)


@pytest.mark.parametrize("kind", ["dog", "cat"])
def test_an_animal_is_flat_when_it_lies_and_narrow_when_it_sits(kind: str) -> None:
    look = new_look(kind, "yellow", np.random.default_rng(1))
    (_, _, _, stands), (_, _, wide, sits), (_, _, long, lies) = (
        figure(1, look, Pose(300, 200, 100, 1, low=low, sit=sit), "").box for low, sit in ((0, 0), (0, 1), (1, 0))
    )
    assert lies < 0.45 * stands and lies < 0.5 * sits
    assert long > 1.2 * wide


@pytest.mark.parametrize("kind", ["bicycle", "motorbike"])
def test_a_rider_sits_on_it_only_under_way(kind: str) -> None:
    look = new_look(kind, "blue", np.random.default_rng(2))
    parked, ridden = (figure(1, look, Pose(300, 200, 100, 1, moving=m), "").box for m in (False, True))
    assert ridden[3] > 1.3 * parked[3]


def test_a_flying_bird_is_above_the_ground_it_stands_on() -> None:
    look = new_look("bird", "white", np.random.default_rng(3))
    on, above = (figure(1, look, Pose(300, 200, 80, 1, height=h), "").box for h in (0.0, 1.5))
    assert on[1] + on[3] == pytest.approx(200, abs=4)
    assert above[1] + above[3] < 200 - 0.8 * 80
