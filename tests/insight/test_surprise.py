"""Walkers on a strip of cells, their tokens and their flow; then somebody faster, or of another kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.insight.anomaly import AnomalyModel
from agent.insight.hours import MovingHours
from agent.insight.memory import TokenMemory
from agent.insight.movement import SHAPE, STILL, UsualMovement, cells_of_flow
from agent.insight.surprise import Look, Stream, Surprise
from vpi_ops.interface import FlowField

GRID, WIDTH, FPS = (5, 8), 24, 10
CELL = 4
_RNG = np.random.default_rng(3)
EMPTY = _RNG.standard_normal((GRID[0] * GRID[1], WIDTH)).astype(np.float32)
EMPTY /= np.linalg.norm(EMPTY, axis=1, keepdims=True)
WALKER, CART = (v / np.linalg.norm(v) for v in _RNG.standard_normal((2, WIDTH)).astype(np.float32))
AT = np.dstack(
    np.meshgrid((np.arange(SHAPE[1]) + 0.5) * 8 / SHAPE[1] - 0.5, (np.arange(SHAPE[0]) + 0.5) * 5 / SHAPE[0] - 0.5)
).astype(np.float32)
WIDE, HIGH = SHAPE[1] * CELL, SHAPE[0] * CELL


def flow_of(x: float, y: float, px: float) -> FlowField:
    """Backward flow of something whose middle is at (x, y), moving right by `px` a frame; large when it is near."""
    size = (24, 36) if y < 100 else (60, 60)
    flow = np.zeros((HIGH, WIDE, 2), np.float32)
    left, top = round(x - size[0] / 2), round(y - size[1] / 2)
    flow[max(0, top) : top + size[1], max(0, left) : left + size[0], 0] = -px
    return FlowField(flow, (1.0, 1.0))


def look(x: float, y: float, px: float, token: np.ndarray = WALKER, hour: float = 12.0) -> Look:
    tokens, moved = EMPTY.copy(), np.zeros(len(EMPTY), bool)
    slot = min(4, max(0, int(y * 5 / HIGH))) * GRID[1] + min(7, max(0, int(x * 8 / WIDE)))
    tokens[slot] = token
    moved[slot] = True
    cells = cells_of_flow(flow_of(x, y, px)) if px else STILL
    return Look(tokens, np.ones(len(EMPTY), bool), moved, np.zeros(len(EMPTY), np.float32), cells, 1 / FPS, AT, hour)


def walk(y: float, speeds: list[float], token: np.ndarray = WALKER) -> list[Look]:
    looks, x = [], 30.0
    for px in speeds:
        looks.append(look(x, y, px, token))
        x = 30 + (x + px - 30) % (WIDE - 60)
    return looks


@pytest.fixture(scope="module")
def model() -> AnomalyModel:
    rng = np.random.default_rng(0)
    far = walk(60, list(rng.uniform(0.8, 1.2, 300)))
    near = walk(170, list(rng.uniform(2.4, 3.6, 300)))
    model = AnomalyModel(GRID, WIDTH)
    for pair in zip(far, near, strict=True):
        for each in pair:
            model.learn(each)
    return model


def last(model: AnomalyModel, looks: list[Look]) -> Surprise:
    model.judge.reset()
    return [model.examine(each) for each in looks][-1]


def test_speed_is_judged_by_what_is_usual_at_that_height_of_the_picture(model: AnomalyModel) -> None:
    usual = max(last(model, walk(60, [1.0] * 8)).score, last(model, walk(170, [3.0] * 8)).score)
    fast = last(model, walk(60, [3.0] * 8))
    assert fast.score > 2 * usual
    assert abs((fast.place[0] + 0.5) * CELL - 60) <= 24 and abs((fast.place[1] + 0.5) * CELL - 51) <= 24


def test_a_stranger_at_a_walkers_speed_is_told_by_his_looks(model: AnomalyModel) -> None:
    stranger, walker = last(model, walk(170, [3.0] * 8, CART)), last(model, walk(170, [3.0] * 8))
    assert stranger.parts[Stream.APPEARANCE].max() > 2 * walker.parts[Stream.APPEARANCE].max()
    assert stranger.parts[Stream.MOTION].max() == pytest.approx(walker.parts[Stream.MOTION].max(), rel=1e-5)


def test_evidence_follows_what_moves_and_forgets_what_flickers(model: AnomalyModel) -> None:
    followed = last(model, walk(60, [3.0] * 8)).score
    flicker = [look(60 + 200 * (i % 2), 60, 3.0) for i in range(8)]
    assert last(model, flicker).total.max() < 0.8 * followed


def test_what_vanishes_inside_the_picture_is_still_there_and_what_leaves_is_gone(model: AnomalyModel) -> None:
    behind = [*walk(60, [4.0] * 8), *(look(280, 170, 0.0) for _ in range(15))]
    left = [*(look(WIDE - 12 + i, 60, 4.0) for i in range(8)), *(look(280, 170, 0.0) for _ in range(15))]
    assert last(model, behind).score > 2 * last(model, left).score


def test_what_still_stays_when_normal_time_ends_is_no_longer_than_things_stay_there() -> None:
    model, ground = AnomalyModel(GRID, WIDTH), EMPTY[3 * GRID[1]]
    for i in range(450):
        model.learn(standing(ground if i < 300 else WALKER))
    model.begin_clip()
    stays = [float(model.examine(standing(WALKER)).parts[Stream.DWELL].max()) for _ in range(600)]
    assert max(stays[:140]) < 1 < stays[-1]


def standing(token: np.ndarray) -> Look:
    seen = look(20, 170, 0.0, token)
    return replace(seen, moved=np.zeros_like(seen.moved))


def test_only_tokens_that_changed_are_judged_and_a_few_in_turn(model: AnomalyModel) -> None:
    model.judge.reset()
    model.examine(look(40, 170, 0.0))
    assert model.judge.scored == len(EMPTY)
    fresh = np.zeros(len(EMPTY), bool)
    fresh[[3, 9]] = True
    seen = look(40, 170, 0.0, CART)
    for _ in range(5):
        model.examine(Look(seen.features, fresh, seen.moved, seen.residual, STILL, 0.1, AT))
        assert model.judge.scored <= 2 + 4


def test_rain_is_no_movement_where_nothing_stands_out() -> None:
    rng = np.random.default_rng(1)
    model = AnomalyModel(GRID, WIDTH)
    still, noise = np.zeros(len(EMPTY), bool), np.full(len(EMPTY), 11, np.float32)
    for _ in range(100):
        cells = cells_of_flow(FlowField(rng.normal(0, 1, (HIGH, WIDE, 2)).astype(np.float32), (1.0, 1.0)))
        rain = Look(EMPTY, still, still, noise, cells, 0.1, AT)
        model.learn(rain)
    assert model.examine(rain).raw[Stream.MOTION] < 1e-6


def test_a_still_picture_moves_nowhere() -> None:
    usual = UsualMovement()
    assert not usual.surprise(usual.see(STILL.copy(), 0.1), 12.0).any()


def test_speed_is_that_of_the_thing_and_not_of_the_ground_around_it() -> None:
    seen = UsualMovement().see(cells_of_flow(flow_of(160, 108, 2.0)), 0.1)
    assert seen.speed[27, 40] == pytest.approx(5, rel=1e-3)  # 2 px a frame are half a cell, ten times a second
    assert seen.velocity[27, 40] == pytest.approx((5, 0), abs=1e-3)


def test_an_hour_that_was_hardly_seen_borrows_from_its_neighbours_and_a_known_one_does_not() -> None:
    hours, busy = MovingHours(SHAPE), np.ones(SHAPE, bool)
    for hour, moves, seconds in ((12, busy, 7200.0), (3, ~busy, 7200.0), (13, ~busy, 60.0)):
        hours.learn(moves, seconds, 1e9, hour)
    assert hours.share(12).min() > 0.9 and hours.share(3).max() < 0.01
    assert hours.share(13).min() > 0.5, "a minute at one o'clock says less than noon"
    assert hours.rarity(3).min() > 1 and hours.rarity(12).max() == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 80), per_row=st.integers(1, 12))
def test_a_memory_is_bounded_and_knows_what_it_keeps(seed: int, count: int, per_row: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((count, 6)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    slots = rng.integers(0, 40, count)
    memory = TokenMemory(GRID, per_row)
    assert (memory.distance(points, slots, 9.0) == 9).all()
    memory.learn(points, slots)
    assert all(len(row) <= per_row for row in memory.rows)
    least = TokenMemory(GRID).radii[0]
    for row in np.unique(slots // GRID[1]):
        here = slots // GRID[1] == row
        beside = 8**2  # squared, along the row
        near = memory.distance(points[here], slots[here], 99.0)
        assert memory.radii[row] > least or (near <= least + beside + 1e-4).all()
