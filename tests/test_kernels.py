"""CUDA kernels on the host shim: each over the whole grid, against the host operation that it stands for. Inputs and
outputs end at a page that can't be touched, so an access past the end fails too."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import coherence_standin
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_shim import FOLDER, HostModule, LaunchError, compiled, host_module
from kernel_shim.memory import address, guarded
from numpy.typing import NDArray

from engines.manifest import find_model, read_manifest
from engines.preprocess import Placement, Preprocessor, shrink
from vpi_ops import codec, cuda, host, kernels
from vpi_ops.cuda import SIGNATURES, Kernels, PatchFormat, Sampled, sides
from vpi_ops.host import HostOps, fit_exposure
from vpi_ops.interface import PatchPyramid
from vpi_ops.kernels.resampling import Axis, Resampling

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the host shim needs g++")

Array = NDArray[Any]
OPS = HostOps()
GRIDS = st.tuples(st.integers(2, 5), st.integers(2, 6))
SEEDS = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def run() -> Kernels:
    return Kernels(host_module(), "host shim")


def texture(seed: int, size: tuple[int, int]) -> Array:
    """Smooth colours, also for pictures of a few pixels."""
    return coherence_standin.texture(seed, size, grain=min(6, *size))


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """An output full of what no kernel writes."""
    return guarded(np.full(shape, 77, dtype))


def sampled(frame: Array, resampling: Resampling, **more: Any) -> tuple[Sampled, Array]:
    """And the tables, which must outlive it."""
    tables = guarded(resampling.tables)
    return Sampled(address(frame), frame.strides[0], address(tables), resampling, **more), tables


def test_signatures_are_those_of_the_sources() -> None:
    command = ["g++", "-E", "-P", "-x", "c++", f"-I{FOLDER / 'include'}", str(kernels.ENTRY)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = re.findall(r'extern "C" __global__ void\s+__launch_bounds__\([^)]*\)\s+(\w+)\(', text)
    assert sorted(names) == sorted(SIGNATURES)
    assert {name: host_module().get_function(name).signature for name in names} == SIGNATURES


def test_constants_are_those_of_the_host() -> None:
    for name in ("TOP_SHARE", "LEVEL_WEIGHTS", "EXPOSURE_SHARE", "EXPOSURE_GATE", "NOISE_PEAK", "EXPOSURE_FLOOR"):
        assert getattr(cuda, name) == getattr(host, name), name


# Resampling.


@given(st.integers(1, 900), st.integers(1, 300))
@settings(max_examples=100)
def test_one_pass_is_the_chain_of_steps(source: int, target: int) -> None:
    axis = Axis.shrunk(source, target)
    assert (axis.first >= 0).all() and (axis.first + axis.taps <= source).all()
    line = np.random.default_rng(source).uniform(0, 255, source).astype(np.float32)
    taken = sum(axis.weight[k] * line[axis.first + k] for k in range(axis.taps))
    expected = line[None]
    while expected.shape[1] >= 2 * target:
        expected = cv2.resize(expected, ((expected.shape[1] + 1) // 2, 1), interpolation=cv2.INTER_LINEAR)
    expected = cv2.resize(expected, (target, 1), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(taken, expected[0], atol=2e-2)


@given(st.sampled_from(["stretch", "letterbox", "crop"]), st.integers(40, 500), st.integers(40, 400), SEEDS)
@settings(max_examples=25)
def test_pictures_are_the_preprocessors(run: Kernels, resize: str, width: int, height: int, seed: int) -> None:
    place = Placement.of(resize, (width, height), 84)
    frame = guarded(texture(seed, (width, height)))
    expected = np.full((84, 84, 3), (9, 8, 7), np.uint8)
    x0, y0, x1, y1 = place.crop
    left, top, right, bottom = place.seen
    shrink(frame[y0:y1, x0:x1], expected[top:bottom, left:right])
    resampling = Resampling.shrinking((x1 - x0, y1 - y0), (84, 84), place.seen)
    view, _tables = sampled(frame, resampling, origin=(x0, y0), padding=(9, 8, 7))
    out = empty((84, 84, 3), np.uint8)
    run.picture(view, address(out), None)
    off = np.abs(out.astype(int) - expected)
    assert off.max() <= 2
    assert off.mean() < 0.5


def test_a_slid_crop_needs_no_other_tables(run: Kernels) -> None:
    frame = guarded(texture(3, (300, 200)))
    resampling = Resampling.shrinking((280, 180), (84, 84))
    for origin in ((0, 0), (7, 3), (20, 20)):
        expected = np.empty((84, 84, 3), np.uint8)
        shrink(frame[origin[1] : origin[1] + 180, origin[0] : origin[0] + 280], expected)
        view, _tables = sampled(frame, resampling, origin=origin)
        out = empty((84, 84, 3), np.uint8)
        run.picture(view, address(out), None)
        assert np.abs(out.astype(int) - expected).max() <= 2


MANIFEST = read_manifest(find_model("reference"))


@pytest.mark.parametrize("half", [False, True])
def test_patches_come_straight_from_the_frame(run: Kernels, half: bool) -> None:
    pre = Preprocessor(MANIFEST)
    frame = guarded(texture(5, (640, 360)))
    resampling = Resampling.shrinking((640, 360), (280, 280))
    view, _tables = sampled(frame, resampling)
    picture = np.empty((280, 280, 3), np.uint8)
    run.picture(view, address(picture), None)
    fine, cells = np.array([0, 21, 399, 210]), np.array([0, 44, 378])
    expected = np.concatenate([pre.patches(picture, fine), pre.coarse_patches(picture, cells), np.zeros((1, 588))])
    slots = guarded(np.array([*fine, *cells, -1], np.int32))
    mean, std = np.array(MANIFEST.mean), np.array(MANIFEST.std)
    form = PatchFormat(14, 20, tuple(1 / (255 * std)), tuple(-mean / std), half)
    out = empty(expected.shape, np.float16 if half else np.float32)
    run.patches(view, address(slots), len(fine), len(cells) + 1, form, address(out), None)
    np.testing.assert_allclose(out, expected, atol=1e-3 if half else 1e-6)


def test_patches_of_a_picture_are_copied_as_they_are(run: Kernels) -> None:
    pre = Preprocessor(MANIFEST)
    picture = guarded(texture(6, (280, 280)))
    view, _tables = sampled(picture, Resampling.interpolating((280, 280), (280, 280)))
    slots, out = guarded(np.arange(400, dtype=np.int32)), empty((400, 588), np.float32)
    run.patches(
        view, address(slots), 400, 0, PatchFormat(14, 20, (2 / 255,) * 3, (-1.0,) * 3, False), address(out), None
    )
    np.testing.assert_allclose(out, pre.patches(picture), atol=1e-6)


@given(st.integers(30, 700), st.integers(30, 300), SEEDS)
@settings(max_examples=15)
def test_the_grey_image_is_the_hosts(run: Kernels, width: int, height: int, seed: int) -> None:
    frame = guarded(texture(seed, (width, height)))
    expected = OPS.analysis(frame)
    h, w = expected.shape
    view, _tables = sampled(frame, Resampling.interpolating((width, height), (w, h)))
    out = empty((h, w + 13), np.uint8)
    run.grey(view, address(out), w + 13, None)
    assert np.abs(out[:, :w].astype(int) - expected).max() <= 1
    assert (out[:, w:] == 77).all()


@given(st.integers(1, 90), st.integers(1, 70), SEEDS)
@settings(max_examples=25)
def test_the_grey_pyramid_is_opencvs(run: Kernels, width: int, height: int, seed: int) -> None:
    image = guarded(np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8))
    expected = np.asarray(cv2.pyrDown(image)).reshape((height + 1) // 2, (width + 1) // 2)
    out = empty(expected.shape, np.uint8)
    run.pyramid_down(address(image), (width, height), width, address(out), out.shape[1], None)
    if min(width, height) > 2:  # OpenCV doesn't mirror a smaller picture without the edge
        np.testing.assert_array_equal(out, expected)


# Residual.


def made(run: Kernels, grid: tuple[int, int], patch: int, picture: Array) -> PatchPyramid:
    """A pyramid filled by the kernel."""
    tokens = grid[0] * grid[1]
    levels = tuple(empty((tokens, side * side, 3), np.uint8) for side in sides(patch))
    means = empty((tokens,), np.float32)
    run.fill(address(picture), grid, patch, *(address(level) for level in levels), address(means), None)
    return PatchPyramid(grid, patch, levels, means)


def pair(grid: tuple[int, int], patch: int, seed: int) -> tuple[Array, Array]:
    """Two pictures: noise, an exposure change, and something else in some patches."""
    rng = np.random.default_rng(seed)
    size = (grid[1] * patch, grid[0] * patch)
    before = np.clip(texture(seed, size), 20, 200)
    after = before * rng.uniform(0.8, 1.25) + rng.uniform(-15, 15) + rng.normal(0, 2, before.shape)
    after[: patch + 3, : patch + 5] = texture(seed + 1, size)[: patch + 3, : patch + 5]
    return guarded(before), guarded(np.clip(after, 0, 255).astype(np.uint8))


@given(GRIDS, st.integers(1, 32), SEEDS)
@settings(max_examples=40)
def test_a_pyramid_is_filled_as_on_the_host(run: Kernels, grid: tuple[int, int], patch: int, seed: int) -> None:
    picture = guarded(texture(seed, (grid[1] * patch, grid[0] * patch)))
    expected = OPS.pyramid(grid, patch)
    OPS.fill(expected, picture)
    found = made(run, grid, patch, picture)
    # Equal where OpenCV rounds as on x86; other builds of it may round other halves.
    for mine, its in zip(found.levels, expected.levels, strict=True):
        np.testing.assert_allclose(mine.astype(int), its, atol=1)
    np.testing.assert_allclose(found.means, expected.means, atol=1)


@given(st.integers(1, 700), SEEDS, st.floats(0.5, 1.6), st.floats(-40, 40))
@settings(max_examples=40)
def test_exposure_is_fitted_as_on_the_host(run: Kernels, tokens: int, seed: int, gain: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    before = guarded(rng.uniform(10, 220, tokens).round().astype(np.float32))
    after = gain * before + offset + rng.normal(0, 2, tokens)
    moved = rng.random(tokens) < 0.2
    after[moved] = rng.uniform(0, 255, moved.sum())
    after = guarded(np.clip(after, 0, 255).round().astype(np.float32))
    out = empty((2,), np.float32)
    run.exposure(address(before), address(after), tokens, address(out), None)
    np.testing.assert_allclose(out, fit_exposure(before, after), rtol=1e-4, atol=1e-2)


@given(GRIDS, st.sampled_from([5, 7, 14, 16, 28, 32]), SEEDS)
@settings(max_examples=30)
def test_residuals_are_the_hosts(run: Kernels, grid: tuple[int, int], patch: int, seed: int) -> None:
    reference, current = (made(run, grid, patch, picture) for picture in pair(grid, patch, seed))
    tokens = grid[0] * grid[1]
    expected = OPS.residual(current, reference)
    exposure, out = empty((2,), np.float32), empty((tokens,), np.float32)
    run.exposure(address(reference.means), address(current.means), tokens, address(exposure), None)
    levels = [tuple(address(level) for level in pyramid.levels) for pyramid in (current, reference)]
    run.residual(levels[0], levels[1], tokens, patch, address(out), None, exposure=address(exposure))
    np.testing.assert_allclose(exposure, (expected.gain, expected.offset), rtol=1e-4, atol=1e-2)
    # A pixel of the reference can round to its other neighbour where the fit differs in the last digits.
    np.testing.assert_allclose(out, expected.patch, atol=1.5)
    assert np.median(np.abs(out - expected.patch)) < 1e-3

    rng = np.random.default_rng(seed)
    slots, sources = (guarded(rng.integers(0, tokens, 9).astype(np.int32)) for _ in range(2))
    out = empty((9,), np.float32)
    places = {"slots": address(slots), "sources": address(sources)}
    run.residual(levels[0], levels[1], 9, patch, address(out), None, **places)
    np.testing.assert_allclose(out, OPS.residual_at(current, slots, reference, sources), rtol=1e-5)

    out = empty((tokens,), np.float32)
    run.moved(address(current.levels[1]), address(reference.levels[1]), tokens, patch, address(out), None)
    np.testing.assert_allclose(out, OPS.moved(current, reference), rtol=1e-5)


def test_a_larger_patch_than_the_kernels_have_room_for_is_refused(run: Kernels) -> None:
    with pytest.raises(ValueError, match="33 pixels, expected 1 to 32"):
        run.moved(0, 0, 1, 33, 0, None)


@given(SEEDS, st.integers(1, 3000))
@settings(max_examples=15)
def test_histograms_are_the_hosts(run: Kernels, seed: int, pixels: int) -> None:
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (1, pixels, 3), np.uint8)
    colours[:, pixels // 2 :] //= 4  # dark ones too, and grey ones
    colours[:, : pixels // 4, 1:] = colours[:, : pixels // 4, :1]
    expected = OPS.histogram(PatchPyramid((1, 1), 1, (colours,), np.zeros(1, np.float32)))
    rgb, out = guarded(colours), empty((8, 8, 8), np.float32)
    run.histogram(address(rgb), pixels, address(out), None)
    np.testing.assert_allclose(out, expected, atol=1e-7)


# Flow.


def smooth(seed: int, size: tuple[int, int], reach: float) -> Array:
    """A field (h, w, 2) that changes slowly, up to `reach` long in x and y."""
    coarse = np.random.default_rng(seed).uniform(-reach, reach, (4, 5, 2)).astype(np.float32)
    return guarded(np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), np.float32))


@given(st.integers(4, 70), st.integers(4, 50), SEEDS)
@settings(max_examples=20)
def test_consistency_is_the_hosts(run: Kernels, width: int, height: int, seed: int) -> None:
    backward, forward = smooth(seed, (width, height), 6), smooth(seed + 1, (width, height), 6)
    at = OPS._positions((height, width)) + backward
    both = backward + np.asarray(cv2.remap(forward, at[..., 0], at[..., 1], cv2.INTER_LINEAR))
    out = empty((height, width), np.float32)
    run.consistency(address(backward), address(forward), (width, height), address(out), None)
    # OpenCV takes positions to 1/32 px; beside the border, forward flow falls to 0 within a pixel.
    steepest = max(np.abs(np.diff(forward, axis=axis)).max() for axis in (0, 1))
    edge = np.abs(forward).max()
    inside = (at > 0).all(axis=2) & (at < (width - 1, height - 1)).all(axis=2)
    off = np.abs(out - np.hypot(both[..., 0], both[..., 1]))
    assert off[inside].max(initial=0) <= steepest / 16 + 1e-3
    assert off.max() <= edge / 16 + steepest / 16 + 1e-3


def test_flow_of_cells_is_as_consistent_as_flow_of_pixels(run: Kernels) -> None:
    size = (24, 18)
    backward = guarded(np.full((18, 24, 2), (8.0, -4.0), np.float32))
    forward = guarded(np.full((18, 24, 2), (-8.0, 4.0), np.float32))
    out = empty((18, 24), np.float32)
    run.consistency(address(backward), address(forward), size, address(out), None, cell=(4.0, 4.0))
    assert (out[1:, :-2] == 0).all()
    np.testing.assert_allclose(out[:, -1], np.hypot(8, 4))  # leads out of the picture


def test_nothing_is_consistent_with_nothing_known(run: Kernels) -> None:
    backward, forward = (guarded(np.full((8, 40, 2), np.nan, np.float32)) for _ in range(2))
    out = empty((8, 40), np.float32)
    run.consistency(address(backward), address(forward), (40, 8), address(out), None)
    assert np.isnan(out).all()


@given(st.integers(4, 60), st.integers(4, 40), SEEDS)
@settings(max_examples=20)
def test_flow_is_followed_as_the_codecs_is(run: Kernels, width: int, height: int, seed: int) -> None:
    flow, before = smooth(seed, (width, height), 5), smooth(seed + 1, (width, height), 5)
    flow[0, 0] = before[height // 2, width // 2] = np.nan
    out = empty(flow.shape, np.float32)
    run.compose(address(flow), address(before), (width, height), address(out), None)
    expected = codec._followed(flow, before)
    unknown, expected_unknown = (np.isnan(field).any(axis=2) for field in (out, expected))
    to_centre = OPS._positions((height, width)) + flow - (width // 2, height // 2)
    beside = (np.abs(to_centre) <= 1 + 1 / 32).all(axis=2)  # of what is unknown: OpenCV takes positions to 1/32
    assert ((unknown == expected_unknown) | beside).all()
    both = ~unknown & ~expected_unknown
    steepest = max(np.nanmax(np.abs(np.diff(before, axis=axis))) for axis in (0, 1))
    assert np.abs(out - expected)[both].max(initial=0) <= steepest / 16 + 1e-3
    assert np.isnan(out[0, 0]).all()


def test_shifts_of_tokens_are_composed_as_in_anchored_warping(run: Kernels) -> None:
    rows, cols, patch = 6, 9, (16.0, 12.0)
    rng = np.random.default_rng(2)
    backward, shift = (guarded(rng.uniform(-30, 30, (rows, cols, 2)).astype(np.float32)) for _ in range(2))
    home = np.stack(np.divmod(np.arange(rows * cols), cols), axis=1).astype(np.float32)
    came_from = home + (backward.reshape(-1, 2) / np.array(patch, np.float32))[:, ::-1]
    expected = backward.reshape(-1, 2) + OPS.warp(shift.reshape(-1, 2), came_from, (rows, cols))
    out = empty((rows * cols, 2), np.float32)
    places = address(backward), address(shift), (cols, rows), address(out)
    run.compose(*places, None, cell=patch, clamp=True)
    np.testing.assert_allclose(out, expected, atol=1e-4)


# Token maps.


@given(GRIDS, st.sampled_from([4, 24, 192, 1152]), SEEDS)
@settings(max_examples=20)
def test_tokens_are_warped_as_on_the_host(run: Kernels, grid: tuple[int, int], dim: int, seed: int) -> None:
    rows, cols = grid
    rng = np.random.default_rng(seed)
    values = guarded(rng.normal(size=(rows * cols, dim)).astype(np.float32))
    source = rng.uniform((-1, -1), (rows, cols), (17, 2)).astype(np.float32)
    source[:3] = (0, 0), (rows - 1, cols - 1), (rows - 1, 0.5)
    source = guarded(source)
    inside = ((source >= 0) & (source <= (rows - 1, cols - 1))).all(axis=1)
    out, valid = empty((17, dim), np.float32), empty((17,), np.uint8)
    run.warp(address(values), grid, dim, address(source), 17, address(out), address(valid), None)
    np.testing.assert_allclose(out, OPS.warp(values, source, grid), atol=1e-5)
    np.testing.assert_array_equal(valid, inside)

    nearest = np.rint(np.clip(source, 0, (rows - 1, cols - 1))).astype(int) @ (cols, 1)
    for half in (False, True):
        tokens = guarded(values.astype(np.float16 if half else np.float32))
        out, valid = empty((17, dim), tokens.dtype), empty((17,), np.uint8)
        places = address(source), 17, address(out), address(valid)
        run.warp(address(tokens), grid, dim, *places, None, half=half, nearest=True)
        np.testing.assert_array_equal(out, tokens[nearest])
        np.testing.assert_array_equal(valid, inside)


@pytest.mark.parametrize("nearest", [False, True])
def test_a_position_that_is_no_number_is_the_first_and_not_valid(run: Kernels, nearest: bool) -> None:
    values = guarded(np.repeat(np.arange(4, dtype=np.float32), 8).reshape(4, 8))
    source = guarded(np.array([[np.nan, 0], [0, np.nan]], np.float32))
    out, valid = empty((2, 8), np.float32), empty((2,), np.uint8)
    places = address(source), 2, address(out), address(valid)
    run.warp(address(values), (2, 2), 8, *places, None, nearest=nearest)
    assert (valid == 0).all()
    assert (out == 0).all()


def test_validity_is_written_only_where_it_is_wanted(run: Kernels) -> None:
    values, source = guarded(np.ones((4, 8), np.float32)), guarded(np.array([[0, 1]], np.float32))
    for nearest in (False, True):
        out = empty((1, 8), np.float32)
        run.warp(address(values), (2, 2), 8, address(source), 1, address(out), 0, None, nearest=nearest)
        assert (out == 1).all()


def test_tokens_of_half_precision_are_not_mixed(run: Kernels) -> None:
    with pytest.raises(ValueError, match="half precision"):
        run.warp(0, (2, 2), 8, 0, 1, 0, 0, None, half=True)


@pytest.mark.parametrize("dim", [4, 192, 1152])
def test_blending_is_the_hosts(run: Kernels, dim: int) -> None:
    rng = np.random.default_rng(dim)
    old, new = (guarded(rng.normal(size=(30, dim)).astype(np.float32)) for _ in range(2))
    alpha = guarded(np.concatenate([[0, 1], rng.uniform(0, 1, 28)]).astype(np.float32))
    expected = old.copy()
    OPS.blend(expected, new, alpha)
    run.blend(address(old), address(new), address(alpha), 30, dim, None)
    np.testing.assert_allclose(old, expected, atol=1e-6)
    np.testing.assert_array_equal(old[0], new[0])


@given(st.sampled_from([(64, np.float16), (72, np.float16), (6, np.float16), (49 * 3, np.uint8)]), st.booleans(), SEEDS)
@settings(max_examples=20)
def test_new_rows_go_into_the_cache_and_nothing_else_changes(
    run: Kernels, row: tuple[int, Any], named: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    width, kind = row
    planes, bucket, tokens, n = 6, 32, 50, 21
    new = guarded(rng.integers(0, 200, (planes, bucket, width)).astype(kind))
    cache = guarded(rng.integers(0, 200, (planes, tokens, width)).astype(kind))
    index = guarded(rng.permutation(tokens)[:n].astype(np.int32))
    source = guarded(rng.integers(0, bucket, n).astype(np.int32))
    expected = cache.copy()
    expected[:, index] = new[:, source] if named else new[:, :n]
    sizes = {"planes": planes, "row_bytes": width * new.itemsize, "new_rows": bucket, "cache_rows": tokens}
    places = address(new), address(cache), address(index), address(source) if named else 0
    run.scatter_rows(*places, n, None, **sizes)
    np.testing.assert_array_equal(cache, expected)


def test_no_rows_are_no_launch(run: Kernels) -> None:
    run.scatter_rows(0, 0, 0, 0, 0, None, planes=4, row_bytes=128, new_rows=8, cache_rows=50)
    run.warp(0, (4, 4), 8, 0, 0, 0, 0, None)


@given(SEEDS)
@settings(max_examples=5)
def test_nothing_hangs_on_the_order_of_threads_and_blocks(run: Kernels, seed: int) -> None:
    grid, patch = (5, 6), 14
    pictures = pair(grid, patch, seed)

    def everything() -> list[Array]:
        current, reference = (made(run, grid, patch, picture) for picture in pictures)
        exposure, residual, counts = empty((2,), np.float32), empty((30,), np.float32), empty((512,), np.float32)
        run.exposure(address(reference.means), address(current.means), 30, address(exposure), None)
        levels = [tuple(address(level) for level in pyramid.levels) for pyramid in (current, reference)]
        run.residual(levels[0], levels[1], 30, patch, address(residual), None, exposure=address(exposure))
        run.histogram(levels[0][1], 30 * 16, address(counts), None)
        return [*current.levels, current.means, exposure, residual, counts]

    forward = everything()
    with host_module().backward():
        for one, other in zip(forward, everything(), strict=True):
            np.testing.assert_array_equal(one, other)


# The shim itself.

BAD = """
extern "C" __global__ void parted(int *out) { if (threadIdx.x < 3) { __syncthreads(); out[0] = 1; } }
extern "C" __global__ void left_out(int *out) { if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(~0u, 1, 1); }
extern "C" __global__ void crossed(int *out) {
    if (threadIdx.x < 16) __syncwarp(); else out[0] = __ballot_sync(~0u, true);
}
extern "C" __global__ void unclean(int *out) { __shared__ int kept; out[blockIdx.x] = kept; kept = 0; }
extern "C" __global__ void reversed(int *out) {
    __shared__ int all[64];
    all[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = all[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void raced(int *out) {
    __shared__ int all[64];
    all[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = all[threadIdx.x / 2];
}
"""


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> HostModule:
    entry = tmp_path_factory.mktemp("bad") / "bad.cu"
    entry.write_text(BAD, encoding="utf-8")
    return HostModule(compiled(entry, ["parted", "left_out", "crossed", "unclean", "reversed", "raced"]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("parted", "__syncthreads was reached by 3 of 64 threads"),
        ("left_out", "not all lanes of its mask reach"),
        ("crossed", "different collectives"),
    ],
)
def test_the_shim_refuses_what_hardware_leaves_undefined(bad: HostModule, name: str, said: str) -> None:
    out = guarded(np.zeros(64, np.int32))
    with pytest.raises(LaunchError, match=said):
        bad.get_function(name).prepare("P").prepared_async_call((1, 1), (64, 1, 1), None, address(out))
    good = bad.get_function("reversed").prepare("P")  # and goes on after
    good.prepared_async_call((1, 1), (64, 1, 1), None, address(out))
    np.testing.assert_array_equal(out, np.arange(64)[::-1])


def test_the_shims_shared_memory_is_never_clean(bad: HostModule) -> None:
    out = guarded(np.zeros(3, np.uint32))
    bad.get_function("unclean").prepare("P").prepared_async_call((3, 1), (1, 1, 1), None, address(out))
    assert (out == 0xA5A5A5A5).all()


def test_a_missing_barrier_shows_in_the_other_order(bad: HostModule) -> None:
    out = guarded(np.zeros(64, np.int32))
    raced = bad.get_function("raced").prepare("P")
    raced.prepared_async_call((1, 1), (64, 1, 1), None, address(out))
    np.testing.assert_array_equal(out, np.arange(64) // 2)
    with bad.backward():
        raced.prepared_async_call((1, 1), (64, 1, 1), None, address(out))
    assert (out != np.arange(64) // 2).any()


def test_the_shim_refuses_arguments_of_another_size(bad: HostModule) -> None:
    with pytest.raises(LaunchError, match="another size"):
        bad.get_function("unclean").prepare("Pi").prepared_async_call((1, 1), (1, 1, 1), None, 0, 0)
