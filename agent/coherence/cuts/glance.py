"""What cut detection keeps of a frame, and how different two frames are.

All of it comes from what the pipeline has anyway: the HSV histogram and the mean grey level of every patch. A new shot
differs from the old one in three ways at once, and little else does: other colours (an object that comes in changes
few pixels), another arrangement of light and dark (a flash, a lamp or the camera's exposure changes none), and over
most of the picture (a caption covers a part). So the score is their geometric mean, which one of them alone can't
raise. Hue and saturation, which exposure hardly touches, count once more by themselves: they tell two shots of one
arrangement apart.
Weights and constants were fitted on composed clips (docs/measurements.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vpi_ops.interface import PatchPyramid, VisionOps

Floats = NDArray[np.float32]
Distance = Callable[[Floats, Floats], float]

_SIDE = 20
"""Cells a side of the luma image at most; finer grids are averaged, so that limits mean the same for every model."""
_CONTRAST_FLOOR = 36.0
"""Variance, grey levels², below which an arrangement of light and dark is taken for noise."""
_SHIFT = 0.15
"""How far the camera may have moved between two frames, as a share of the picture."""
_WORTH_A_SEARCH = 0.12
"""Score from which the shift is sought; below it nothing depends on the score."""
_DARK = 16.0
"""Grey level up to which rows and columns at the border are taken for bars."""
_LEAST_PICTURE = 0.4
"""Share of rows and columns that must be left when bars are taken away."""
_CHANGED_LEVELS = 8.0
_WHOLE_PICTURE = 0.6
"""Share of changed cells from which the whole picture counts as changed."""
_BLANK_CONTRAST = 5.0
_BLACK, _WHITE = 32.0, 223.0


@dataclass(frozen=True, slots=True)
class Glance:
    """A frame in brief. histogram: HSV, float32 (8, 8, 8), sum 1. tint: hue and saturation alone, (8, 8), sum 1.
    luma: grey levels, float32 (rows, cols), at most 20×20; mean, contrast: their mean and standard deviation. filled:
    there are no black bars around the picture."""

    histogram: Floats
    tint: Floats
    luma: Floats
    mean: float
    contrast: float
    filled: bool

    @classmethod
    def of(cls, histogram: Floats, means: Floats, grid: tuple[int, int]) -> Glance:
        """From an HSV histogram (8, 8, 8) and the mean grey level (T,) of every patch of a grid (rows, cols)."""
        luma = np.array(means, np.float32).reshape(grid)
        if max(grid) > _SIDE:
            size = (min(grid[1], _SIDE), min(grid[0], _SIDE))
            luma = np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.float32)
        mean, contrast = (float(value[0, 0]) for value in cv2.meanStdDev(luma))
        filled = all(float(edge.max()) > _DARK for edge in (luma[0], luma[-1], luma[:, 0], luma[:, -1]))
        return cls(histogram, histogram.sum(axis=2), luma, mean, contrast, filled)

    @classmethod
    def take(cls, ops: VisionOps, pyramid: PatchPyramid) -> Glance:
        """From the pyramid of a frame's model picture."""
        return cls.of(ops.histogram(pyramid), pyramid.means, pyramid.grid)

    @property
    def blank(self) -> bool:
        """Whether it shows nothing but black or white."""
        return self.contrast < _BLANK_CONTRAST and not _BLACK < self.mean < _WHITE


@dataclass(frozen=True, slots=True)
class Difference:
    """How two frames differ, each part 0 (same) to 1: colours and tint are Bhattacharyya distances; structure is the
    `structural_distance`, at most 2, and 0 where nothing has changed; changed is the share of cells that differ when
    exposure is taken away, over the share that makes a whole picture."""

    colours: float
    tint: float
    structure: float
    changed: float

    @property
    def score(self) -> float:
        """0 (same picture) to 1; two shots seldom stay below 0.35, neighbours in a shot seldom come above 0.2."""
        agreement: float = min(1.0, self.colours * self.structure * self.changed) ** (1 / 3)
        return 0.3 * self.tint + 0.7 * agreement


SAME = Difference(0.0, 0.0, 0.0, 0.0)


def difference(a: Glance, b: Glance, distance: Distance) -> Difference:
    """How `b` differs from `a`. distance: Bhattacharyya, of the backend that made the histograms."""
    change = (b.luma - a.luma).ravel()
    change -= np.partition(change, change.size // 2)[change.size // 2]
    changed = min(1.0, np.count_nonzero(np.abs(change) > _CHANGED_LEVELS) / change.size / _WHOLE_PICTURE)
    found = Difference(
        colours=max(0.0, distance(a.histogram, b.histogram)),
        tint=max(0.0, distance(a.tint, b.tint)),
        structure=_unmoved(a, b) if changed else 0.0,
        changed=changed,
    )
    if found.score < _WORTH_A_SEARCH or not found.structure:
        return found
    return replace(found, structure=min(found.structure, structural_distance(a, b, shift=_SHIFT)))


def structural_distance(a: Glance, b: Glance, *, shift: float) -> float:
    """1 − (covariance + c) / (product of deviations + c) of two luma images, at the shift of at most that share of the
    picture that suits best: 0 (same but for exposure and movement) to 2. c keeps the noise of a flat picture from
    counting. The structure term of SSIM: Wang, Bovik, Sheikh, Simoncelli 2004."""
    before, after = _without_bars(a, b)
    rows, cols = after.shape
    y, x = int(shift * rows), int(shift * cols)
    centre = after[y : rows - y, x : cols - x]
    windows = sliding_window_view(before, centre.shape).reshape(-1, centre.size)
    zero_mean = (centre - centre.mean()).ravel()
    # einsum, not @: a product this small is over before the threads of a BLAS have woken up
    covariance = np.einsum("ij,j->i", windows, zero_mean) / centre.size
    mean = windows.mean(axis=1)
    variance = np.einsum("ij,ij->i", windows, windows) / centre.size - mean * mean
    deviations = np.sqrt(np.maximum(variance, 0) * float(np.einsum("i,i->", zero_mean, zero_mean)) / centre.size)
    return max(0.0, 1 - float(np.max((covariance + _CONTRAST_FLOOR) / (deviations + _CONTRAST_FLOOR))))


def _unmoved(a: Glance, b: Glance) -> float:
    """The structural distance without a shift, for most pairs from what is known of each frame."""
    if not (a.filled or b.filled):
        return structural_distance(a, b, shift=0)
    covariance = float(np.einsum("ij,ij->", a.luma, b.luma)) / a.luma.size - a.mean * b.mean
    return max(0.0, 1 - (covariance + _CONTRAST_FLOOR) / (a.contrast * b.contrast + _CONTRAST_FLOOR))


def _without_bars(a: Glance, b: Glance) -> tuple[Floats, Floats]:
    """Both luma images without the black bars that a film brings along: they are alike in any two shots."""
    if a.filled or b.filled:
        return a.luma, b.luma
    lit = np.maximum(a.luma, b.luma) > _DARK
    rows, cols = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if len(rows) < _LEAST_PICTURE * len(lit) or len(cols) < _LEAST_PICTURE * lit.shape[1]:
        return a.luma, b.luma
    part = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return a.luma[part], b.luma[part]
