"""Temporal consistency of features: what is given out should not move where nothing happens.

The similarity of neighbouring frames says nothing by itself: it rises with the frame rate, and a picture that never
updates has the best. So it is taken over a time and not over a frame, and apart for tokens that nothing happened to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.coherence.cuts import token_cosines

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Consistency:
    """Mean cosines between moments `lag_s` apart: of all tokens, and of those that stood still in between; None where
    there were none. pairs: moments compared."""

    every: float | None
    still: float | None
    pairs: int
    lag_s: float


class FeatureConsistency:
    """The measure of one camera or clip. lag_s: seconds between the moments that are compared."""

    def __init__(self, *, lag_s: float = 0.2) -> None:
        self._lag_s = lag_s
        self._sums = np.zeros(4)  # cosines and tokens: all, still
        self._pairs = 0
        self.reset()

    def reset(self) -> None:
        """What comes next is no neighbour of what was: a cut, say."""
        self._then: tuple[float, Floats] | None = None
        self._disturbed: Mask = np.zeros(0, bool)

    def process(self, features: Floats, disturbed: Mask, now_s: float) -> None:
        """One frame. features: (T, D). disturbed: bool (T,), tokens whose pixels differ from the frame before."""
        if self._then is not None:
            self._disturbed |= disturbed
            then_s, before = self._then
            if now_s - then_s < self._lag_s * 0.99:  # times are rounded: the sixth frame at 30 a second is due
                return
            cosines = token_cosines(before, features)
            still = cosines[~self._disturbed]
            self._sums += cosines.sum(), len(cosines), still.sum(), len(still)
            self._pairs += 1
        self._then = (now_s, features.copy())
        self._disturbed = np.zeros(len(features), bool)

    @property
    def report(self) -> Consistency:
        every, tokens, still, calm = (float(each) for each in self._sums)
        return Consistency(every / tokens if tokens else None, still / calm if calm else None, self._pairs, self._lag_s)
