"""Scene cuts: is this frame a neighbour of the one before it?

Each detector is `process(…) → CutScore`, `reset()`, and needs no later frame (lookahead 0). The first frame after a
reset is never a cut: there is nothing to differ from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpi_ops.choice import host_library

Histogram = NDArray[np.float32]
Features = NDArray[np.float32]
Distance = Callable[[Histogram, Histogram], float]

LOOKAHEAD_FRAMES = 0


@dataclass(frozen=True, slots=True)
class CutScore:
    """cut: the verdict. histogram: Bhattacharyya distance, 0 (same) to 1. features: mean cosine per token, 1 (same) to
    −1. A part that was not looked at is None."""

    cut: bool
    histogram: float | None = None
    features: float | None = None


class HistogramCut:
    """The colours of the whole picture jumped: Bhattacharyya distance of HSV 8×8×8 histograms above `threshold`."""

    def __init__(self, distance: Distance, *, threshold: float = 0.5) -> None:
        self._distance = distance
        self._threshold = threshold
        self.reset()

    def reset(self) -> None:
        self._previous: Histogram | None = None

    def process(self, histogram: Histogram) -> CutScore:
        previous, self._previous = self._previous, histogram
        if previous is None:
            return CutScore(False)
        distance = self._distance(previous, histogram)
        return CutScore(distance > self._threshold, histogram=distance)


class FeatureCut:
    """The meaning of every place jumped: mean cosine of tokens (T, D) at equal positions below `threshold`."""

    def __init__(self, *, threshold: float = 0.7) -> None:
        self._threshold = threshold
        self.reset()

    def reset(self) -> None:
        self._previous: Features | None = None

    def process(self, features: Features) -> CutScore:
        previous, self._previous = self._previous, features.copy()
        return self.compare(previous, features)

    def compare(self, previous: Features | None, features: Features) -> CutScore:
        """The verdict about two token maps, whatever was processed before."""
        if previous is None:
            return CutScore(False)
        cosine = float(token_cosines(previous, features).mean())
        return CutScore(cosine < self._threshold, features=cosine)


class CombinedCut:
    """The histogram suspects, features confirm.

    The features of a frame don't exist before it is encoded, and a suspected frame must be encoded in full: `encode`
    does that, is called only on suspicion, and its result is the caller's to use, cut or no cut."""

    def __init__(self, distance: Distance, *, histogram: float = 0.5, features: float = 0.7) -> None:
        self._colours = HistogramCut(distance, threshold=histogram)
        self._meaning = FeatureCut(threshold=features)

    def reset(self) -> None:
        self._colours.reset()

    def process(self, histogram: Histogram, previous: Features | None, encode: Callable[[], Features]) -> CutScore:
        """histogram: of this frame. previous: token map of the frame before, None when there is none."""
        suspicion = self._colours.process(histogram)
        if not suspicion.cut or previous is None:
            return CutScore(False, suspicion.histogram)
        verdict = self._meaning.compare(previous, encode())
        return CutScore(verdict.cut, suspicion.histogram, verdict.features)


def token_cosines(a: Features, b: Features) -> Features:
    """Cosine of two token maps (T, D), token by token, float32 (T,); 0 where either is zero."""
    native = host_library()
    if native is not None and a.shape == b.shape:
        a, b = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b, np.float32)
        found = np.empty(len(a), np.float32)
        native.cosines(a.ctypes.data, b.ctypes.data, *a.shape, found.ctypes.data)
        return found
    across = np.einsum("ij,ij->i", a, b)
    norms = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
    cosines: Features = np.divide(across, norms, out=np.zeros_like(across), where=norms > 0)
    return cosines
