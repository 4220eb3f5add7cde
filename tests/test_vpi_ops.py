"""Image operations: what each must do on pictures whose truth is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from coherence_standin import texture
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vpi_ops.host import HostOps, fit_exposure
from vpi_ops.interface import PatchPyramid

GRID, PATCH = (6, 7), 14
SIZE = (GRID[1] * PATCH, GRID[0] * PATCH)
OPS = HostOps()


def pyramid(picture: NDArray[np.uint8]) -> PatchPyramid:
    made = OPS.pyramid(GRID, PATCH)
    OPS.fill(made, picture)
    return made


@given(st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_a_flat_difference_is_measured_as_it_is_in_both_directions(a: int, b: int) -> None:
    one, other = (pyramid(np.full((SIZE[1], SIZE[0], 3), level, np.uint8)) for level in (a, b))
    slots = np.arange(GRID[0] * GRID[1])
    there, back = OPS.residual_at(one, slots, other, slots), OPS.residual_at(other, slots, one, slots)
    np.testing.assert_array_equal(there, back)
    assert abs(a - b) <= there.min() <= there.max() <= 1.5 * abs(a - b)


def test_what_changes_in_one_patch_is_found_there() -> None:
    before = texture(1, SIZE)
    after = before.copy()
    row, col = 3, 4
    after[row * PATCH + 4 : row * PATCH + 10, col * PATCH + 4 : col * PATCH + 10] ^= 0x80
    residual = OPS.residual(pyramid(after), pyramid(before)).patch.reshape(GRID)
    assert residual[row, col] > 60
    residual[row, col] = 0
    assert residual.max() < 1


def test_a_small_exposure_step_is_fitted_away_and_an_object_in_it_is_not() -> None:
    before = np.clip(texture(2, SIZE), 30, 180)
    after = cv2.convertScaleAbs(before, alpha=1.1, beta=4)
    changed = np.asarray(after).copy()
    changed[:PATCH, :PATCH] = 255 - changed[:PATCH, :PATCH]
    slots = np.arange(GRID[0] * GRID[1])
    found = OPS.residual(pyramid(changed), pyramid(before))
    raw = OPS.residual_at(pyramid(after), slots, pyramid(before), slots)
    assert found.gain == pytest.approx(1.1, abs=0.02)
    assert found.offset == pytest.approx(4, abs=2)
    assert 0.2 < np.median(found.patch) / np.median(raw) < 0.5
    assert found.patch[0] > 3 * found.patch[1:].max()


def test_a_still_exposure_is_left_alone() -> None:
    means = np.random.default_rng(0).uniform(20, 200, 42).astype(np.float32)
    moved = means.copy()
    moved[:15] += 60
    assert fit_exposure(means, moved) == (1.0, 0.0)


def test_a_reference_is_a_mosaic_of_what_it_adopted_and_fetched() -> None:
    first, second = pyramid(texture(3, SIZE)), pyramid(texture(4, SIZE))
    reference = pyramid(texture(3, SIZE))
    OPS.adopt(reference, second, np.array([5, 9]))
    assert set(np.flatnonzero(OPS.residual(reference, first).patch)) == {5, 9}
    source = np.arange(42)
    source[20], source[21] = 5, 20
    OPS.fetch(reference, source)
    slots = np.array([20, 21])
    assert OPS.residual_at(reference, slots[:1], second, np.array([5])) == 0
    assert OPS.residual_at(reference, slots[1:], first, np.array([20])) == 0


@pytest.mark.parametrize("shift", [(3, 0), (-2, 4), (0, -5)])
def test_flow_is_backward_and_consistent(shift: tuple[int, int]) -> None:
    dx, dy = shift
    wide = cv2.cvtColor(texture(5, (400, 260)), cv2.COLOR_RGB2GRAY)
    previous = np.ascontiguousarray(wide[30:210, 30:350])
    current = np.ascontiguousarray(wide[30 - dy : 210 - dy, 30 - dx : 350 - dx])
    flow = OPS.check(OPS.flow(previous, current, (2.0, 2.0)), previous, current)
    inner = (slice(20, -20), slice(20, -20))
    assert flow.error is not None
    np.testing.assert_allclose(np.median(flow.backward[inner], axis=(0, 1)), (-dx, -dy), atol=0.2)
    assert np.median(flow.error[inner]) < 0.3


def test_flow_of_a_small_part_leaves_the_flow_of_the_whole_as_it_was() -> None:
    ops, wide = HostOps(), cv2.cvtColor(texture(9, (330, 180)), cv2.COLOR_RGB2GRAY)
    previous, current = wide[:, 10:], wide[:, :-10]
    expected = ops.flow(previous, current, (1.0, 1.0)).backward
    ops.flow(previous, current, (1.0, 1.0), (100, 60, 164, 124))
    np.testing.assert_array_equal(ops.flow(previous, current, (1.0, 1.0)).backward, expected)


def test_what_appears_from_nowhere_is_inconsistent() -> None:
    previous = cv2.cvtColor(texture(6, (320, 180)), cv2.COLOR_RGB2GRAY)
    current = previous.copy()
    current[60:120, 120:200] = cv2.cvtColor(texture(7, (320, 180)), cv2.COLOR_RGB2GRAY)[60:120, 120:200]
    flow = OPS.check(OPS.flow(previous, current, (1.0, 1.0)), previous, current)
    assert flow.error is not None
    assert np.median(flow.error[70:110, 130:190]) > 1 > np.median(flow.error[:40])


def test_the_analysis_image_is_grey_and_no_wider_than_asked() -> None:
    assert HostOps(width=160).analysis(texture(8, (640, 360))).shape == (90, 160)
    assert OPS.analysis(texture(8, (176, 144))).shape == (144, 176)


def test_warp_gathers_whole_and_mixes_half_steps_and_clamps() -> None:
    rows, cols = GRID
    values = np.random.default_rng(1).normal(size=(rows * cols, 5)).astype(np.float32)
    home = np.stack(np.divmod(np.arange(rows * cols), cols), axis=1).astype(np.float32)
    step = np.array([0, 1], np.float32)
    grid, got = values.reshape(rows, cols, 5), OPS.warp(values, home + step, GRID).reshape(rows, cols, 5)
    np.testing.assert_allclose(got[:, :-1], grid[:, 1:], rtol=1e-6)
    np.testing.assert_allclose(got[:, -1], grid[:, -1], rtol=1e-6)
    below = OPS.warp(values, home[:-cols] + np.array([0.5, 0], np.float32), GRID).reshape(rows - 1, cols, 5)
    np.testing.assert_allclose(below, (grid[:-1] + grid[1:]) / 2, rtol=1e-5, atol=1e-6)


def test_blend_weighs_each_token_by_its_own_alpha() -> None:
    kept, new = np.full((3, 4), 8, np.float32), np.full((3, 4), 4, np.float32)
    OPS.blend(kept, new, np.array([1, 0.5, 0], np.float32))
    np.testing.assert_allclose(kept[:, 0], (8, 6, 4))


def test_histograms_are_equal_for_the_same_and_disjoint_for_other_colours() -> None:
    red, blue = (
        np.tile(np.array(colour, np.uint8), (SIZE[1], SIZE[0], 1)) for colour in ((200, 20, 20), (20, 20, 200))
    )
    a, b = OPS.histogram(pyramid(red)), OPS.histogram(pyramid(blue))
    assert OPS.histogram_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert OPS.histogram_distance(a, b) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("part", [np.s_[:], np.s_[20:, 30:-5], np.s_[:, ::2]])
def test_two_images_are_the_same_down_to_the_last_bit(part: tuple[slice, ...]) -> None:
    image = texture(10, (330, 180))
    other = image.copy()
    assert OPS.same(image[part], other[part])
    assert not OPS.same(image[part], other[part][1:])
    other[part][-1, -1, -1] ^= 1
    assert not OPS.same(image[part], other[part])


def test_a_picture_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        OPS.fill(OPS.pyramid(GRID, PATCH), np.zeros((280, 280, 3), np.uint8))
