"""A camera that moves: the grid stays on the world, and whoever reads slots knows where in the frame they look.

Through the whole path with the reference model; the world is one large picture, so where the camera looks is known."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
from coherence_reference import GRID, TOKENS, Seen, slots_in, watch
from coherence_standin import texture
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.capture.scene import Scene
from agent.coherence.gridlock import GridLock, Slide
from vpi_ops.host import HostOps

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]

WIDTH, HEIGHT = 480, 270
START = np.array([150.0, 120.0])


@lru_cache(maxsize=1)
def world() -> Image:
    return Scene("street", 4, width=960, height=540, light="day", noise=0, max_objects=0).render(0)


def look(at: Floats, noise: NDArray[np.int16]) -> Image:
    """What a camera sees whose upper left corner is at `at`, (x, y) pixels of the world."""
    to_world = np.array([[1, 0, at[0]], [0, 1, at[1]]])
    image = cv2.warpAffine(world(), to_world, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def filmed(way: Floats, *, noise: float = 1.0) -> list[Image]:
    """way: (n, 2), where the camera is in each frame."""
    rng = np.random.default_rng(3)
    return [look(at, rng.normal(0, noise, (HEIGHT, WIDTH, 3)).astype(np.int16)) for at in way]


def panned(frames: int, right: float, down: float, *, stop: int = 10**6) -> Floats:
    return np.asarray(START + np.minimum(np.arange(frames), stop)[:, None] * [right, down])


def shaken(frames: int, reach: float) -> Floats:
    return np.asarray(START + np.random.default_rng(1).uniform(-reach, reach, (frames, 2)))


def corners(seen: Seen) -> Floats:
    """Upper left corner of each slot in the frame, source pixels (T, 2)."""
    assert seen.result.placement is not None
    rows, cols = np.divmod(np.arange(TOKENS), GRID[1])
    return np.array([seen.result.placement.to_source((14 * c, 14 * r, 14, 14))[:2] for r, c in zip(rows, cols)])  # noqa: B905


def locked(seen: Seen) -> bool:
    assert seen.result.placement is not None
    x0, _, x1, _ = seen.result.placement.crop
    return x1 - x0 < WIDTH


@pytest.mark.parametrize("step", [(3.0, 0.0), (-2.3, 1.6), (0.0, -4.0), (9.0, 5.0)])
def test_right_after_each_slide_every_slot_still_looks_at_its_piece_of_the_world(step: tuple[float, float]) -> None:
    way = panned(22, *step)
    seen = watch(filmed(way))
    slides = 0
    for index, (before, now) in enumerate(pairwise(seen), start=1):
        if not locked(before) or now.result.reframed:
            continue
        source = np.arange(TOKENS) if now.result.slid is None else now.result.slid
        new = np.zeros(TOKENS, bool) if now.result.revealed is None else now.result.revealed
        was, is_ = corners(before)[source] + way[index - 1], corners(now) + way[index]
        assert np.abs(is_ - was)[~new].max() <= 1.2, "rounded to whole pixels, and followed to a fraction of one"
        assert set(np.flatnonzero(new)) <= set(now.slots.tolist()), "what came into view is encoded"
        assert np.sum(now.changed & ~new) <= (0 if step[0] == int(step[0]) else 20), "and hardly anything else changed"
        slides += now.result.slid is not None
    assert slides >= 1
    assert np.abs(corners(seen[-1]) + way[-1] - (corners(seen[4]) + way[4])).max() > 20, "it did go somewhere"
    assert not any(each.result.cut for each in seen)


def test_a_region_lies_where_its_thing_is_while_the_camera_pans() -> None:
    way = panned(18, 4, 0)
    images = filmed(way)
    boxes = []
    for index, (image, at) in enumerate(zip(images, way, strict=True)):
        x, y = (np.array([380 + 2 * index, 250]) - at).astype(int)  # it walks too
        image[y : y + 44, x : x + 30] = texture(5, (30, 44))
        boxes.append((x, y, 30, 44))
    seen = watch(images, judged=[17])
    for each, (x, y, w, h) in list(zip(seen, boxes, strict=True))[6:]:
        walker = set(slots_in(each, (x + 8, y + 6, w - 16, h - 12)).tolist())
        around = set(slots_in(each, (x - 34, y - 20, w + 68, h + 40)).tolist())
        revealed = set() if each.result.revealed is None else set(np.flatnonzero(each.result.revealed))
        changed = set(np.flatnonzero(each.changed)) - revealed
        assert changed & walker, "seen"
        assert changed <= around, "and nowhere else"
    assert seen[17].fidelity > 0.97


def test_a_shaking_camera_costs_little_and_stays_true() -> None:
    seen = watch(filmed(shaken(22, 3)), judged=[12, 21])
    assert all(locked(each) for each in seen[6:])
    assert sum(each.result.slid is not None for each in seen) <= 2
    assert np.mean([each.changed.mean() for each in seen[6:]]) < 0.02
    assert min(seen[12].fidelity, seen[21].fidelity) > 0.98


@pytest.mark.parametrize("stop", [12, 14])
def test_a_pan_that_stops_comes_to_rest(stop: int) -> None:
    """In the middle of a patch, and right where the grid steps."""
    seen = watch(filmed(panned(26, 3, 0, stop=stop)), judged=[25])
    assert sum(each.encoded for each in seen[stop + 8 :]) <= 4
    assert not any(each.result.slid is not None for each in seen[stop + 2 :])
    assert seen[25].fidelity > 0.98


def rotated(degrees: float, zoom: float) -> Image:
    turn = cv2.getRotationMatrix2D((480, 270), degrees, zoom)
    image = cv2.warpAffine(world(), turn, (960, 540))
    return np.ascontiguousarray(image[135:405, 240:720], np.uint8)


@pytest.mark.parametrize(("degrees", "zoom"), [(0.0, 0.03), (0.0, 0.006), (0.7, 0.0)])
def test_what_no_translation_explains_is_encoded_and_stays_true(degrees: float, zoom: float) -> None:
    seen = watch([rotated(degrees * i, 1 + zoom * i) for i in range(24)], judged=[11, 17, 23])
    assert min(seen[index].fidelity for index in (11, 17, 23)) > 0.975
    assert max(float(np.abs(each.result.camera_px).max()) for each in seen) < 3, "the camera looks at one point"
    assert not any(each.result.cut for each in seen)


def test_a_lens_bends_the_borders_and_only_they_are_encoded_more() -> None:
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    u, v = (x - WIDTH / 2) / (WIDTH / 2), (y - HEIGHT / 2) / (WIDTH / 2)
    bent = 1 + 0.2 * (u * u + v * v)
    at = np.dstack([u * bent, v * bent]) * (WIDTH / 2) + [WIDTH / 2, HEIGHT / 2]
    images = []
    for corner in panned(22, 3, 0):
        here = (at + corner).astype(np.float32)
        images.append(np.asarray(cv2.remap(world(), here[..., 0], here[..., 1], cv2.INTER_LINEAR), np.uint8))
    seen = watch(images, judged=[10, 16, 21])
    assert all(locked(each) for each in seen[8:])
    times = np.zeros(TOKENS)
    for each in seen[8:]:
        times += each.changed & (each.result.dirty is not None)
    centre = np.zeros(GRID, bool)
    centre[5:15, 5:15] = True
    assert times[~centre.ravel()].mean() > 3 * times[centre.ravel()].mean()
    assert np.mean([each.encoded for each in seen[8:]]) < 120
    assert np.mean([seen[index].fidelity for index in (10, 16, 21)]) > 0.97


# The lock alone -------------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    st.tuples(st.integers(-7, 7), st.integers(-5, 5)).filter(any),
    st.tuples(st.integers(2, 12), st.integers(2, 12)),
    st.integers(0, 5),
)
def test_the_crop_and_the_slots_follow_the_world_and_never_leave_the_frame(
    step: tuple[int, int], grid: tuple[int, int], seed: int
) -> None:
    """Whatever the grid: crop and steps together undo what the camera did."""
    wide = texture(seed, (720, 560), grain=12)
    lock = GridLock(HostOps(), grid, (0, 0, 300, 220))
    began: Floats | None = None
    stepped = np.zeros(2)
    rows, cols = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    for index in range(24):
        x, y = 210 + index * step[0], 170 + index * step[1]
        slide = lock.process(np.ascontiguousarray(wide[y : y + 220, x : x + 300]), 0.2)
        if slide is None:
            continue
        x0, y0, x1, y1 = slide.crop
        assert 0 <= x0 < x1 <= 300 and 0 <= y0 < y1 <= 220
        patch = np.array([(x1 - x0) / grid[1], (y1 - y0) / grid[0]])
        if slide.entered:
            began = np.array([x0 + x, y0 + y], float)
        elif slide.source is not None:
            assert slide.revealed is not None
            stepped += _step(slide, rows, cols, grid)
        assert began is not None
        here = np.array([x0 + x, y0 + y]) + stepped * patch
        assert np.abs(here - began).max() <= 3
    assert lock.locked


def _step(slide: Slide, rows: NDArray[np.int64], cols: NDArray[np.int64], grid: tuple[int, int]) -> Floats:
    """By how many patches (x, y) content has moved on the grid, the same in every slot that kept it."""
    assert slide.source is not None and slide.revealed is not None
    from_rows, from_cols = np.divmod(slide.source, grid[1])
    moves = np.stack([cols - from_cols, rows - from_rows], axis=1)[~slide.revealed]
    assert (moves == moves[0]).all() and moves[0].any()
    assert slide.revealed.sum() == len(rows) - (grid[1] - abs(moves[0, 0])) * (grid[0] - abs(moves[0, 1]))
    return np.asarray(moves[0], np.float64)


def test_a_camera_that_trembles_where_it_has_stopped_steps_no_more_than_once() -> None:
    """Wherever that is on the grid, whose patches are 14 px wide here."""
    wide, rng = texture(4, (400, 300), grain=12), np.random.default_rng(0)
    steps = []
    for stop in range(12, 26):
        lock, stepped = GridLock(HostOps(), (8, 10), (0, 0, 160, 112)), 0
        for index in range(36):
            x = min(2.0 * index, stop) + (float(rng.uniform(-0.8, 0.8)) if 2 * index > stop else 0)
            image = cv2.getRectSubPix(wide[80:192], (160, 112), (200 + x, 55.5))
            slide = lock.process(np.asarray(image, np.uint8), 0.2)
            stepped += 2 * index > stop + 2 and slide is not None and slide.source is not None
        steps.append(stepped)
    assert max(steps) <= 1


def test_after_a_long_rest_the_whole_frame_is_shown_again_and_a_lost_lock_is_not_tried_at_once() -> None:
    wide = texture(3, (500, 400), grain=12)

    def at(x: int) -> Image:
        return np.ascontiguousarray(wide[100:280, x : x + 240])

    lock = GridLock(HostOps(), (8, 8), (0, 0, 240, 180))
    assert [lock.process(at(100 + 3 * i), 0.2) is None for i in range(3)] == [True, False, False]
    rested = [lock.process(at(106), 0.0) is None for _ in range(320)]
    assert rested.index(True) in range(298, 304)
    for _ in range(2):
        assert [lock.process(at(100 + 3 * i), 0.2) is None for i in range(2)] == [True, False]
        useless = [lock.process(at(106), 0.9) is None for _ in range(4)]
        assert useless == [False] * 3 + [True]
        paused = [lock.process(at(100 + 3 * (i % 2)), 0.9) is None for i in range(29)]
        assert all(paused)
        lock = GridLock(HostOps(), (8, 8), (0, 0, 240, 180))
