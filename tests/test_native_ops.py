"""The image operations in C: every test that the host operations pass, and the same bytes and numbers as they give."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import test_vpi_ops as contract
from coherence_standin import texture
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_vpi_ops import *  # noqa: F403

from engines.preprocess import shrink
from vpi_ops import native
from vpi_ops.host import HostOps
from vpi_ops.native.ops import Library, NativeOps

GREY_LEVELS = 0 if os.uname().machine == "x86_64" else 1
"""By how much a picture may differ: OpenCV itself rounds in other places on other processors."""
FLOATS = 1e-4 if GREY_LEVELS == 0 else 1.5
HOST = HostOps()
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def library() -> Library:
    loaded = native.opened()
    if isinstance(loaded, str):
        pytest.skip(loaded)
    return Library(loaded)


@pytest.fixture(scope="module", autouse=True)
def ops(library: Library) -> Iterator[NativeOps]:
    def make(**options: int) -> NativeOps:
        return NativeOps(library, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "OPS", make())
        patch.setattr(contract, "HostOps", make)
        yield make()


def picture(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    """Noise, or something with edges and slopes."""
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if rng.random() < 0.3:
        return noise
    smooth = cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(0.5, 6)))
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def changed(rng: np.random.Generator, before: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Noise of a camera, something that moved in, and now and then another exposure."""
    after = before.astype(np.float64) + rng.normal(0, rng.uniform(0, 6), before.shape)
    y, x = (int(rng.integers(0, size)) for size in before.shape[:2])
    after[y : y + before.shape[0] // 3, x : x + before.shape[1] // 3] += rng.uniform(-120, 120)
    if rng.random() < 0.5:
        after = rng.uniform(0.6, 1.5) * after + rng.uniform(-30, 30)
    return after.clip(0, 255).astype(np.uint8)


def same(ops: NativeOps, grid: tuple[int, int], patch: int, *frames: NDArray[np.uint8]) -> None:
    """Both give the same for each of the frames, compared with the one before."""
    mine, before = (ops.pyramid(grid, patch) for _ in range(2))
    its, its_before = (HOST.pyramid(grid, patch) for _ in range(2))
    for frame in frames:
        ops.fill(mine, frame)
        HOST.fill(its, frame)
        for ours, theirs in zip((*mine.levels, mine.means), (*its.levels, its.means), strict=True):
            assert np.abs(ours.astype(np.int64) - theirs).max() <= GREY_LEVELS
        found, expected = ops.residual(mine, before), HOST.residual(its, its_before)
        assert (found.gain, found.offset) == pytest.approx((expected.gain, expected.offset), abs=FLOATS)
        np.testing.assert_allclose(found.patch, expected.patch, atol=FLOATS)
        np.testing.assert_allclose(ops.moved(mine, before), HOST.moved(its, its_before), atol=FLOATS)
        np.testing.assert_allclose(ops.histogram(mine), HOST.histogram(its), atol=1e-6 if GREY_LEVELS == 0 else 1e-3)
        there = np.arange(len(its.means))[::-1]
        np.testing.assert_allclose(
            ops.residual_at(mine, there, before, there[::-1]),
            HOST.residual_at(its, there, its_before, there[::-1]),
            atol=FLOATS,
        )
        ops.adopt(before, mine, there[::3])
        HOST.adopt(its_before, its, there[::3])


@given(SEEDS, st.sampled_from([*range(1, 22), 28, 32, 40]), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_pictures_of_any_size_give_what_opencv_gives(
    ops: NativeOps, seed: int, patch: int, rows: int, cols: int
) -> None:
    rng = np.random.default_rng(seed)
    first = picture(rng, cols * patch, rows * patch)
    same(ops, (rows, cols), patch, first, changed(rng, first))


def test_real_frames_give_what_opencv_gives(ops: NativeOps, data_dir: Path) -> None:
    clips = [clip for clip in sorted((data_dir / "static").iterdir()) if clip.suffix in (".mp4", ".avi")][:2]
    if not clips:
        pytest.skip(f"no clips in {data_dir / 'static'}")
    for clip in clips:
        video = cv2.VideoCapture(str(clip))
        frames = [cv2.resize(frame, (280, 280)) for frame in (video.read()[1] for _ in range(8)) if frame is not None]
        same(ops, (20, 20), 14, *frames)


@given(SEEDS, st.integers(2, 500), st.integers(2, 500), st.integers(1, 300), st.integers(1, 300), st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_frame_shrinks_to_what_opencv_makes_of_it(
    library: Library, seed: int, width: int, height: int, to_width: int, to_height: int, halves: bool
) -> None:
    frame = picture(np.random.default_rng(seed), width * (4 if halves else 1), height * (2 if halves else 1))
    expected, found = (np.zeros((to_height, to_width, 3), np.uint8) for _ in range(2))
    shrink(frame, expected)
    if library.shrunk(frame, found):
        assert np.abs(found.astype(int) - expected).max() <= GREY_LEVELS
    else:
        assert width % 2 or height % 2 or max(width / to_width, height / to_height) > 2


def test_part_of_a_frame_shrinks_into_part_of_a_picture(library: Library) -> None:
    frame, expected, found = texture(1, (640, 360)), *(np.full((280, 280, 3), 7, np.uint8) for _ in range(2))
    part, inside = np.s_[40:320, 90:411], np.s_[60:220]
    shrink(frame[part], expected[inside])
    assert library.shrunk(frame[part], found[inside])
    assert np.abs(found.astype(int) - expected).max() <= GREY_LEVELS
    assert not library.shrunk(frame[:, ::2], found)


def test_blending_rounds_as_numpy_does(ops: NativeOps) -> None:
    rng = np.random.default_rng(2)
    kept, new = rng.normal(size=(2, 37, 191)).astype(np.float32)
    expected, alpha = kept.copy(), rng.random(37).astype(np.float32)
    HOST.blend(expected, new, alpha)
    ops.blend(kept, new, alpha)
    np.testing.assert_array_equal(kept, expected)
    with pytest.raises(ValueError, match="packed"):
        ops.blend(kept[:, ::2], new[:, ::2], alpha)


def test_what_lies_outside_is_refused(ops: NativeOps) -> None:
    mine, other = ops.pyramid((3, 4), 14), HOST.pyramid((3, 4), 14)
    for slots in (np.array([12]), np.array([-1])):
        with pytest.raises(IndexError, match="outside the grid"):
            ops.residual_at(mine, slots, mine, np.array([0]))
    with pytest.raises(TypeError, match="other operations"):
        ops.moved(mine, other)


def test_two_cameras_do_not_disturb_each_other(library: Library) -> None:
    def camera(seed: int) -> None:
        rng, ops = np.random.default_rng(seed), NativeOps(library)
        for _ in range(15):
            first = picture(rng, 280, 280)
            same(ops, (20, 20), 14, first, changed(rng, first))
            expected, found = np.empty((2, 140, 140, 3), np.uint8)
            shrink(first, expected)
            assert library.shrunk(first, found)
            assert np.abs(found.astype(int) - expected).max() <= GREY_LEVELS

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(camera, (1, 2)))
