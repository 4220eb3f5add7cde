"""Temporal coherence itself: C(t), how alike a frame and the one before it are, and how much warping leaves wrong."""

from __future__ import annotations

from enum import Enum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vpi_ops.choice import host_library

Mask = NDArray[np.bool_]

WARP_ERROR_LIMIT = 0.8
"""Share of wrong tokens above which what was warped is not worth keeping: the frame is encoded in full."""
_NOISE = 4.0
"""Variance, grey levels squared, that two pictures always share: the noise of two black ones is not incoherence."""


class Coherence(str, Enum):
    """The classes of C(t): static or slow · moderate motion · fast action, cuts."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @classmethod
    def of(cls, value: float) -> Coherence:
        return cls.HIGH if value > 0.8 else cls.MEDIUM if value >= 0.5 else cls.LOW


def correlation(current: NDArray[Any], previous: NDArray[Any], seen: Mask | None = None) -> float:
    """C(t): zero-mean normalised correlation of two pictures, -1 to 1; brightness and contrast don't count.

    current, previous: uint8 (T, n, 3), one level of a `PatchPyramid`. seen: bool (T,), patches that count, None = all.
    Without C from Var(a − b) = Var a + Var b − 2 Cov(a, b): OpenCV takes variances of bytes faster than NumPy products.
    """
    if seen is not None and not seen.all():
        current, previous = current[seen], previous[seen]
    a, b = np.ascontiguousarray(current).reshape(1, -1), np.ascontiguousarray(previous).reshape(1, -1)
    if not a.size:
        return 1.0
    native = host_library()
    if native is None:
        var_a, var_b = _variance(a), _variance(b)
        covariance = (var_a + var_b - _variance(cv2.subtract(a, b, dtype=cv2.CV_16S))) / 2
    else:
        sums = np.empty(5, np.int64)
        native.sums(a.ctypes.data, b.ctypes.data, a.size, sums.ctypes.data)
        of_a, of_b, squares_a, squares_b, products = (float(each) / a.size for each in sums.tolist())
        var_a, var_b, covariance = squares_a - of_a * of_a, squares_b - of_b * of_b, products - of_a * of_b
    return float((covariance + _NOISE) / np.sqrt((var_a + _NOISE) * (var_b + _NOISE)))


def warp_error(wrong: Mask, seen: Mask) -> float:
    """Share, 0–1, of tokens that see picture whose residual exceeds their threshold after warping. wrong: bool (T,).
    Above `WARP_ERROR_LIMIT` the frame wants a full encode."""
    return float(wrong[seen].mean()) if seen.any() else 0.0


def _variance(values: Any) -> float:
    deviation = float(cv2.meanStdDev(values)[1][0, 0])
    return deviation * deviation
