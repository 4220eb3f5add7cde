"""Image operations on the CPU with OpenCV and NumPy.

Residual: per pixel the largest channel difference, per patch the mean of the highest 20 % of them, at two scales; the
coarse one is weighted up because averaging has taken its noise away. On real clips the full picture, smoothed, tells no
more about which tokens change than the half one does (equal to half a percent of area under the curve), and costs three
times as much. OpenCV is told to use one thread: the pictures are small, and the inference runtime wants the cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vpi_ops.interface import FlowField, Held, PatchPyramid, Residual
from vpi_ops.translation import Key, Translation

Floats = NDArray[np.float32]

TOP_SHARE = 0.2
LEVEL_WEIGHTS = (1.15, 1.4)
EXPOSURE_SHARE = 0.35
"""What is left of a pure exposure change in the residual: small steps are ignored, a long fade is seen."""
EXPOSURE_GATE = 10.0
"""Residual, grey levels, from which on a patch is compared at the fitted exposure."""
NOISE_PEAK = 8
"""Grey levels: a patch none of whose pixels differs by more is still."""
EXPOSURE_FLOOR = 1.0
"""Median brightness change, grey levels, below which no exposure is fitted."""

_PROBED_ROWS = 64
"""Every so many-th row is compared first: noise shows there, and the rest need not be read."""


class HostOps:
    """`VisionOps` for any Linux CPU. width: of the analysis image. threads: for OpenCV, process-wide. finest_scale: of
    flow, 2 = a quarter of the analysis image; 1 follows what is small and fast far better and costs 2.7 times as
    much."""

    def __init__(self, *, width: int = 320, threads: int = 1, finest_scale: int = 2) -> None:
        cv2.setNumThreads(threads)
        self._width = width
        self._dis: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._finest_scale = finest_scale
        self._base: dict[tuple[int, int], Floats] = {}
        self._scratch: dict[tuple[int, ...], NDArray[Any]] = {}

    def analysis(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if width > self._width:
            # Linear, not area: ten times cheaper at odd ratios, and flow smooths over its own patches anyway.
            image = np.asarray(cv2.resize(image, (self._width, max(1, round(height * self._width / width)))), np.uint8)
        return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)

    def same(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
        return np.array_equal(a[::_PROBED_ROWS], b[::_PROBED_ROWS]) and np.array_equal(a, b)

    def pyramid(self, grid: tuple[int, int], patch: int) -> PatchPyramid:
        tokens = grid[0] * grid[1]
        levels = tuple(np.zeros((tokens, side * side, 3), np.uint8) for side in _sides(patch))
        return PatchPyramid(grid, patch, levels, np.zeros(tokens, np.float32))

    def fill(self, pyramid: PatchPyramid, picture: NDArray[np.uint8]) -> None:
        (rows, cols), patch = pyramid.grid, pyramid.patch
        if picture.shape != (rows * patch, cols * patch, 3):
            raise ValueError(f"picture is {picture.shape}, expected {(rows * patch, cols * patch, 3)}")
        half, quarter = _sides(patch)
        halved = cv2.resize(picture, (cols * half, rows * half))
        quartered = cv2.resize(halved, (cols * quarter, rows * quarter))
        for level, side, image in zip(pyramid.levels, (half, quarter), (halved, quartered), strict=True):
            tiles = np.asarray(image).reshape(rows, side, cols, side, 3)
            level.reshape(rows, cols, side, side, 3)[...] = tiles.swapaxes(1, 2)
        grey = cv2.cvtColor(quartered, cv2.COLOR_RGB2GRAY)
        pyramid.means[...] = np.asarray(cv2.resize(grey, (cols, rows), interpolation=cv2.INTER_AREA)).reshape(-1)

    def means(self, pyramid: PatchPyramid) -> Floats:
        return pyramid.means

    def adopt(self, reference: PatchPyramid, current: PatchPyramid, slots: NDArray[np.int64] | None) -> None:
        for mine, new in zip((*reference.levels, reference.means), (*current.levels, current.means), strict=True):
            if slots is None:
                mine[...] = new
            else:
                mine[slots] = new[slots]

    def fetch(self, reference: PatchPyramid, source: NDArray[np.int64]) -> None:
        moved = np.flatnonzero(source != np.arange(len(source)))
        for mine in (*reference.levels, reference.means):
            mine[moved] = mine[source[moved]]

    def residual(self, current: PatchPyramid, reference: PatchPyramid) -> Residual:
        gain, offset = fit_exposure(reference.means, current.means)
        patch = self._difference(current.levels, reference.levels)
        loud = np.flatnonzero(patch > EXPOSURE_GATE)  # what looks the same is the same, whatever happened elsewhere
        if (gain, offset) != (1.0, 0.0) and len(loud):
            adjusted = tuple(
                cv2.convertScaleAbs(level[loud].reshape(len(loud), -1), alpha=gain, beta=offset).reshape(
                    len(loud), *level.shape[1:]
                )
                for level in reference.levels
            )
            difference = self._difference(tuple(level[loud] for level in current.levels), adjusted)
            patch[loud] = np.maximum(difference, EXPOSURE_SHARE * patch[loud])
        return Residual(patch, gain, offset)

    def residual_at(
        self, current: PatchPyramid, slots: NDArray[np.int64], reference: PatchPyramid, sources: NDArray[np.int64]
    ) -> Floats:
        return self._difference(
            tuple(level[slots] for level in current.levels), tuple(level[sources] for level in reference.levels)
        )

    def moved(self, current: PatchPyramid, previous: PatchPyramid) -> Floats:
        return _top_mean(current.levels[-1], previous.levels[-1], LEVEL_WEIGHTS[-1])

    def histogram(self, pyramid: PatchPyramid) -> Floats:
        hsv = cv2.cvtColor(pyramid.levels[-1], cv2.COLOR_RGB2HSV)
        counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 8, 8], [0, 180, 0, 256, 0, 256])
        return np.asarray(counts / hsv[..., 0].size, np.float32)

    def histogram_distance(self, a: Floats, b: Floats) -> float:
        return float(cv2.compareHist(a, b, cv2.HISTCMP_BHATTACHARYYA))

    def flow(
        self,
        previous: NDArray[np.uint8],
        current: NDArray[np.uint8],
        scale: tuple[float, float],
        region: tuple[int, int, int, int] | None = None,
    ) -> FlowField:
        if region is None:
            return FlowField(self._follow(current, previous), scale)
        x0, y0, x1, y1 = region
        part = self._follow(current[y0:y1, x0:x1], previous[y0:y1, x0:x1])
        backward = np.zeros((*current.shape, 2), np.float32)
        backward[y0:y1, x0:x1] = part
        return FlowField(backward, scale)

    def check(self, flow: FlowField, previous: NDArray[np.uint8], current: NDArray[np.uint8]) -> FlowField:
        forward = self._follow(previous, current)
        at = self._positions(current.shape) + flow.backward
        both = flow.backward + np.asarray(cv2.remap(forward, at[..., 0], at[..., 1], cv2.INTER_LINEAR))
        return replace(flow, error=np.hypot(both[..., 0], both[..., 1], dtype=np.float32))

    def key(self, image: NDArray[np.uint8]) -> Key:
        return Key(image)

    def follow(self, key: Key, image: NDArray[np.uint8], guess: tuple[float, float]) -> Translation | None:
        return key.follow(image, guess)

    def tokens(self, count: int, dim: int) -> Floats:
        return np.zeros((count, dim), np.float32)

    def warp(self, values: Floats, source: Floats, grid: tuple[int, int]) -> Floats:
        rows, cols = grid
        row = np.clip(source[:, 0], 0, rows - 1)
        col = np.clip(source[:, 1], 0, cols - 1)
        top, left = row.astype(np.int64), col.astype(np.int64)
        down, right = np.minimum(top + 1, rows - 1), np.minimum(left + 1, cols - 1)
        fall, lean = (row - top)[:, None], (col - left)[:, None]
        above = (1 - lean) * values[top * cols + left] + lean * values[top * cols + right]
        below = (1 - lean) * values[down * cols + left] + lean * values[down * cols + right]
        return np.asarray((1 - fall) * above + fall * below, np.float32)

    def blend(self, accumulated: Floats, new: Floats, alpha: Floats) -> None:
        term = self._like(new)
        np.subtract(accumulated, new, out=term)
        term *= alpha[:, None]
        np.add(new, term, out=accumulated)

    def held(self) -> Mapping[str, Held]:
        return {}

    def close(self) -> None:
        """Nothing is held."""

    def _follow(self, image: NDArray[np.uint8], into: NDArray[np.uint8]) -> Floats:
        """Where each pixel of `image` lies in `into`; so from the current to the previous image it is backward flow."""
        # An image below some 90 px makes DIS go to a finer scale for good, where whole images take ten times as long.
        self._dis.setFinestScale(self._finest_scale)
        return np.asarray(self._dis.calc(np.ascontiguousarray(image), np.ascontiguousarray(into), None), np.float32)

    def _difference(self, current: tuple[Any, ...], reference: tuple[Any, ...]) -> Floats:
        half, quarter = (
            _top_mean(a, b, weight) for weight, a, b in zip(LEVEL_WEIGHTS, current, reference, strict=True)
        )
        return np.asarray(np.maximum(half, quarter))

    def _positions(self, shape: tuple[int, ...]) -> Floats:
        """Each pixel's own (x, y), float32 (h, w, 2)."""
        size = (shape[0], shape[1])
        if size not in self._base:
            x, y = np.meshgrid(np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32))
            self._base = {size: np.dstack([x, y])}
        return self._base[size]

    def _like(self, values: Floats) -> Floats:
        if values.shape not in self._scratch:
            self._scratch = {values.shape: np.empty_like(values)}
        return self._scratch[values.shape]


def fit_exposure(reference: NDArray[Any], current: NDArray[Any]) -> tuple[float, float]:
    """Gain and offset with current ≈ gain · reference + offset over patch means (T,), by least squares reweighted with
    Tukey's biweight, so that what moved has no vote. (1, 0) when the median patch changed by less than a grey level."""
    reference, current = np.asarray(reference, np.float64), np.asarray(current, np.float64)
    gain, offset = 1.0, _median(current - reference)
    if abs(offset) < EXPOSURE_FLOOR:
        return 1.0, 0.0
    for _ in range(3):
        error = current - gain * reference - offset
        reach = 4.685 * max(1.4826 * _median(np.abs(error)), 0.5)
        weight = np.clip(1 - (error / reach) ** 2, 0, None) ** 2
        total = float(weight.sum())
        if total < 0.1 * len(weight):
            return 1.0, 0.0
        mean_reference = float(weight @ reference) / total
        mean_current = float(weight @ current) / total
        spread = reference - mean_reference
        variance = float(weight @ spread**2) / total
        # A nearly uniform picture says nothing about gain; the prior variance of 25 leaves it near 1.
        covariance = float(weight @ (spread * (current - mean_current))) / total
        gain = float(np.clip((covariance + 25) / (variance + 25), 0.5, 2.0))
        offset = mean_current - gain * mean_reference
    return gain, offset


def _median(values: NDArray[Any]) -> float:
    """The upper one of an even number: np.median spends twenty times as long on finding out what it was given."""
    middle = len(values) // 2
    return float(np.partition(values, middle)[middle])


def _sides(patch: int) -> tuple[int, int]:
    """Pixels along a patch at half and quarter size."""
    return max(1, round(patch / 2)), max(1, round(patch / 4))


def _top_mean(a: NDArray[np.uint8], b: NDArray[np.uint8], weight: float) -> Floats:
    """Mean of the highest 20 % pixel differences (largest channel) per patch, weighted: uint8 (n, pixels, 3) twice →
    float32 (n,). Of a patch whose largest difference is within the noise, that stands in for the mean: nothing asks
    for it exactly, and a still picture costs a fifth."""
    if not len(a):
        return np.zeros(0, np.float32)
    pixels = a.shape[1]
    difference = np.asarray(cv2.absdiff(a, b), np.uint8)
    peak = difference.reshape(len(a), -1).max(axis=1)
    result = np.asarray(weight * peak, np.float32)
    loud = np.flatnonzero(peak > NOISE_PEAK)
    if len(loud):
        largest = _largest(difference if len(loud) == len(a) else difference[loud])
        kept = max(1, round(TOP_SHARE * pixels))
        top = np.partition(largest, pixels - kept, axis=1)[:, pixels - kept :]
        result[loud] = weight * top.mean(axis=1)
    return result


def _largest(difference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    red, green, blue = cv2.split(difference)
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8).reshape(difference.shape[:2])
