"""How much of the time something moves at a place, by hour of the day.

At noon somebody on the path is nothing, at three in the night it is news. An hour that has been seen for too short a
time borrows from the hours around it, as many as are needed.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

HOURS = 24
_COARSE = (9, 10)
"""Rows and columns in which this is kept."""
_ENOUGH_S = 3600.0
_REACHES = (0.1, 1.0, 2.0, 4.0, 12.0)
"""Hours around, standard deviations, that are tried until enough was seen."""
_PRIOR = (0.5, 50.0)
"""A place that was never watched is taken to have moved for 0.5 s of 50 s."""
_COMMON = 0.03
"""Share of the time from which on movement is nothing rare."""
_RAREST = 5.0


class MovingHours:
    """seconds: float32 (24,), watched. moved: float32 (24, 9, 10), of these the seconds in which something moved."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.seconds = np.zeros(HOURS, np.float32)
        self.moved = np.zeros((HOURS, *_COARSE), np.float32)
        self._shape = shape
        self._known: tuple[int, float, Floats] | None = None

    def learn(self, moves: NDArray[np.bool_], dt_s: float, age_s: float, hour: float) -> None:
        """Take in `dt_s` seconds in which the cells `moves` (h, w) moved. An hour fades beyond `age_s` of its own."""
        bin_ = int(hour) % HOURS
        keep = np.float32(min(1.0, age_s / (float(self.seconds[bin_]) + dt_s)))
        some = cv2.resize(moves.astype(np.float32), _COARSE[::-1], interpolation=cv2.INTER_AREA)
        self.seconds[bin_] = (self.seconds[bin_] + np.float32(dt_s)) * keep
        self.moved[bin_] = (self.moved[bin_] + np.float32(dt_s) * some) * keep

    def share(self, hour: float) -> Floats:
        """float32 (h, w): share of the time in which something moves at that hour of the day."""
        bin_, seen_s = int(hour) % HOURS, float(self.seconds.sum())
        if self._known is None or self._known[0] != bin_ or seen_s > 1.02 * self._known[1] + 1:
            weights = self._weights(bin_)
            moved = np.tensordot(weights, self.moved, 1)
            coarse = (moved + _PRIOR[0]) / (float(weights @ self.seconds) + _PRIOR[1])
            fine = cv2.resize(coarse.astype(np.float32), self._shape[::-1], interpolation=cv2.INTER_LINEAR)
            self._known = bin_, seen_s, np.asarray(fine, np.float32)
        return self._known[2]

    def rarity(self, hour: float) -> Floats:
        """float32 (h, w): how rare movement is, in natural logarithms below what is common, 0 to 5."""
        return np.asarray(np.clip(-np.log(self.share(hour) / _COMMON), 0, _RAREST), np.float32)

    def _weights(self, bin_: int) -> Floats:
        away = np.abs(np.arange(HOURS) - bin_)
        away = np.minimum(away, HOURS - away)
        weights = np.zeros(HOURS, np.float32)
        for reach in _REACHES:
            weights = np.exp(-0.5 * (away / reach) ** 2).astype(np.float32)
            if weights @ self.seconds >= _ENOUGH_S:
                break
        return weights
