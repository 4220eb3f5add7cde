"""What has stayed, or is gone: how long each place has looked unlike itself without moving, by what is usual there.

A bag that is put down and a picture that was taken from the wall are alike here: the place has changed, and nothing
stirs. On a bench people sit for minutes, on a crossing nobody does.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_GRACE_S = 6.0
"""Seconds that anything may stay anywhere."""
_FORGIVES = 3.0
"""A place that looks like itself loses its time so many times faster than it came. One that moves keeps it: somebody
who walks past hides a bag for a moment."""


class Dwell:
    """At each of T places: for how long something has stayed, and for how long at most things stay in normal time.

    stayed, longest: float32 (T,), seconds. over: float32 (T,), how long the stay was that has just ended, 0 = none did.
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        self._grid = grid
        self.stayed, self.longest, self.over, self._peak = (np.zeros(grid[0] * grid[1], np.float32) for _ in range(4))

    def process(self, strange: Mask, moving: Mask, dt_s: float) -> None:
        """strange, moving: bool (T,), places that look unlike themselves, and that move."""
        change = np.where(moving, 0.0, np.where(strange, dt_s, -_FORGIVES * dt_s))
        self.stayed = np.maximum(0, self.stayed + change).astype(np.float32)
        self._peak = np.maximum(self._peak, self.stayed)
        ended = self.stayed == 0
        self.over = np.where(ended, self._peak, 0).astype(np.float32)
        self._peak[ended] = 0

    @property
    def unsettled(self) -> Mask:
        """bool (T,): places where something has stayed for longer than is usual there."""
        return np.asarray(self.stayed > self.longest + _GRACE_S)

    def score(self) -> Floats:
        """float32 (T,): how many times longer than is usual there something has stayed."""
        return np.asarray(self.stayed / (self.longest + _GRACE_S), np.float32)

    def learn(self, over: Floats, dt_s: float, age_s: float) -> None:
        """Take it for normal that stays of so long (T,) came to an end, at a place beside as well."""
        spread = cv2.dilate(over.reshape(self._grid), np.ones((3, 3), np.uint8)).reshape(-1)
        self.longest = np.maximum(self.longest * np.float32(1 - min(1.0, dt_s / age_s)), spread)

    def forget(self, places: Mask) -> None:
        """What is at these places (T,) belongs there now."""
        self.stayed[places] = 0.0
        self._peak[places] = 0.0
