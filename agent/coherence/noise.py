"""How much a still patch flickers: running median and median absolute deviation, one each per patch.

Fed with the difference between *neighbouring* frames. Against the reference a slow fade would grow until it passed for
noise; between neighbours it stays as small as it is slow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_FASTEST, _SLOWEST = 0.2, 0.01
MAD_TO_SIGMA = 1.4826


class PatchNoise:
    """Running median by sign steps: each sample moves the estimate by a share of the spread, towards the sample. Steps
    shrink from 0.2 to 0.01 of it while the first hundred samples come in."""

    def __init__(self, tokens: int) -> None:
        self.estimates = self._median, self._spread = np.zeros(tokens, np.float32), np.zeros(tokens, np.float32)
        self.reset()

    def reset(self) -> None:
        self._samples = 0
        self._median[...] = 0
        self._spread[...] = 0

    def fetch(self, source: NDArray[np.int64]) -> None:
        """Every slot takes over the noise of slot `source[slot]`."""
        for each in self.estimates:
            each[...] = each[source]

    def rate(self) -> float:
        """Share of the spread by which the next sample, counted here, moves the estimates; 0: it starts them."""
        self._samples += 1
        if self._samples < 3:
            return _FASTEST if self._samples == 2 else 0.0
        return max(_SLOWEST, _FASTEST * 2 / self._samples)

    def process(self, difference: Floats) -> None:
        """difference: float32 (T,), grey levels between this frame and the one before it."""
        rate = self.rate()
        if not rate:
            self._median[...] = difference
            self._spread[...] = 0.25 * difference + 0.25
            return
        away = difference - self._median
        step = rate * np.maximum(self._spread, 0.1)
        self._spread += step * np.sign(np.abs(away) - self._spread)
        self._median += step * np.sign(away)

    def threshold(self, floor: float, factor: float, ceiling: float) -> Floats:
        """`median + factor · MAD` (as a standard deviation), float32 (T,), no lower than `floor`, no higher than
        `ceiling`: what flickers for ever, like leaves in the wind, is content and not noise."""
        level = self._median + (factor * MAD_TO_SIGMA) * self._spread
        return np.clip(level, floor, ceiling)
