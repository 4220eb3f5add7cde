"""Walkers on a strip of cells, their tokens and their flow; then somebody faster, or of another kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.insight.memory import FARTHEST, TokenMemory
from agent.insight.movement import CELL_PX, UsualMovement, cells_of_flow, movement
from agent.insight.surprise import Judge, Look, Sense, calibrate, learn
from vpi_ops.interface import FlowField

GRID, SHAPE, WIDTH, FPS = (5, 8), (20, 32), 12, 10
_RNG = np.random.default_rng(3)
EMPTY = _RNG.standard_normal((GRID[0] * GRID[1], WIDTH)).astype(np.float32)
EMPTY /= np.linalg.norm(EMPTY, axis=1, keepdims=True)
WALKER, CART = (v / np.linalg.norm(v) for v in _RNG.standard_normal((2, WIDTH)).astype(np.float32))
AT = np.dstack(np.meshgrid((np.arange(32) + 0.5) / 4 - 0.5, (np.arange(20) + 0.5) / 4 - 0.5)).astype(np.float32)


def flow_of(x: float, y: float, px: float, size: tuple[int, int] = (16, 20)) -> np.ndarray:
    """Backward flow of something of `size` px whose middle is at (x, y), moving right by `px` a frame."""
    flow = np.zeros((SHAPE[0] * CELL_PX, SHAPE[1] * CELL_PX, 2), np.float32)
    left, top = round(x - size[0] / 2), round(y - size[1] / 2)
    flow[max(0, top) : top + size[1], max(0, left) : left + size[0], 0] = -px
    return flow


def look(x: float, y: float, px: float, token: np.ndarray) -> Look:
    points, fresh = EMPTY.copy(), np.ones(len(EMPTY), bool)
    slot = min(4, max(0, int(y // 16))) * GRID[1] + min(7, max(0, int(x // 16)))
    points[slot] = token
    cells = cells_of_flow(FlowField(flow_of(x, y, px), (1.0, 1.0)))
    return Look(points, fresh, cells, 1 / FPS)


def walk(y: float, speeds: list[float], token: np.ndarray = WALKER) -> list[Look]:
    looks, x = [], 8.0
    for px in speeds:
        looks.append(look(x, y, px, token))
        x = 8 + (x + px - 8) % 110
    return looks


@pytest.fixture(scope="module")
def judge() -> Judge:
    rng = np.random.default_rng(0)
    far = walk(24, list(rng.uniform(0.8, 1.2, 150)))
    near = walk(60, list(rng.uniform(2.4, 3.6, 150)))
    normal = [each for pair in zip(far, near, strict=True) for each in pair]
    return Judge(learn(normal, AT, GRID), AT, GRID, calibrate(normal, AT, GRID))


def highest(judge: Judge, looks: list[Look]) -> tuple[float, tuple[int, int]]:
    judge.reset()
    found = [judge.process(each) for each in looks]
    return found[-1].score, found[-1].place


def test_speed_is_judged_by_what_is_usual_at_that_height_of_the_picture(judge: Judge) -> None:
    usual = max(highest(judge, walk(24, [1.0] * 8))[0], highest(judge, walk(60, [3.0] * 8))[0])
    fast, place = highest(judge, walk(24, [3.0] * 8))
    assert fast > 2 * usual
    assert abs((place[0] + 0.5) * CELL_PX - 24) <= 12 and abs((place[1] + 0.5) * CELL_PX - (8 + 21)) <= 12


def test_a_stranger_at_a_walkers_speed_is_told_by_his_looks(judge: Judge) -> None:
    judge.reset()
    for each in walk(60, [3.0] * 8, CART):
        stranger = judge.process(each)
    judge.reset()
    for each in walk(60, [3.0] * 8):
        walker = judge.process(each)
    assert stranger.parts[Sense.APPEARANCE].max() > 2 * walker.parts[Sense.APPEARANCE].max()
    assert stranger.parts[Sense.MOTION].max() == pytest.approx(walker.parts[Sense.MOTION].max(), rel=1e-5)


def test_evidence_follows_what_moves_and_forgets_what_flickers(judge: Judge) -> None:
    followed, _ = highest(judge, walk(24, [3.0] * 8))
    flicker = [look(8 + 100 * (i % 2), 24, 3.0, WALKER) for i in range(8)]
    assert highest(judge, flicker)[0] < 0.8 * followed


def test_tokens_that_are_not_fresh_are_not_judged_again(judge: Judge) -> None:
    judge.reset()
    judge.process(look(40, 60, 0.0, WALKER))
    before = judge.strange.copy()
    stale = look(40, 60, 0.0, CART)
    judge.process(Look(stale.points, np.zeros_like(stale.fresh), stale.cells, stale.seconds))
    np.testing.assert_array_equal(judge.strange, before)


def test_a_still_picture_moves_nowhere() -> None:
    seen = movement(np.zeros((*SHAPE, 3), np.float32), 0.1)
    assert not UsualMovement(SHAPE).surprise(seen).any()


def test_speed_is_that_of_the_thing_and_not_of_the_ground_around_it() -> None:
    seen = movement(cells_of_flow(FlowField(flow_of(64, 40, 2.0), (1.0, 1.0))), 0.1)
    moving = seen.share > 0
    assert seen.speed[moving] == pytest.approx(20, rel=1e-3)
    assert seen.velocity[10, 16] == pytest.approx((20, 0), abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 80), per_row=st.integers(1, 12))
def test_a_memory_is_bounded_and_knows_what_it_keeps(seed: int, count: int, per_row: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((count, 6)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    slots = rng.integers(0, 40, count)
    memory = TokenMemory(GRID, per_row)
    assert (memory.distance(points, slots) == FARTHEST).all()
    memory.learn(points, slots)
    assert all(len(row) <= per_row for row in memory.rows)
    for row in np.unique(slots // GRID[1]):
        here = slots // GRID[1] == row
        thinned = memory.radii[row] > TokenMemory(GRID).radii[row]
        assert thinned or (memory.distance(points[here], slots[here]) <= memory.radii[row] + 1e-4).all()
