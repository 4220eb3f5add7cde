"""Ghosting: blended features that keep what is gone.

A token ghosts when what it shows has been steady for some frames (it moved less than half of what its blended value
lags behind) and the blended value has still not come to it. Both matter: a token whose content goes to and fro is far
from its blended value too, and there blending is the cure (see `flicker`). Taking fast motion for ghosting, as is
common, finds neither.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.coherence.cuts import token_cosines

Floats = NDArray[np.float32]
Slots = NDArray[np.int64]
Mask = NDArray[np.bool_]


class GhostDetector:
    """The detector of one camera. Only tokens that were touched and have not come to rest since are looked at.

    frames: for so many a token may lag. distance: 1 − cosine of blended and current features that is a lag.
    found: how many ghosts there were so far."""

    def __init__(self, tokens: int, dim: int, *, frames: int = 3, distance: float = 0.05) -> None:
        self._frames, self._distance = frames, distance
        self._behind = np.zeros(tokens, np.int32)
        self._steady = np.zeros((tokens, dim), np.float32)
        self.found = 0

    def reset(self) -> None:
        self._behind[...] = 0

    def fetch(self, source: Slots) -> None:
        """Every slot takes over what was seen of slot `source[slot]`."""
        if self._behind.any():
            self._behind, self._steady = self._behind[source], self._steady[source]

    def process(self, accumulated: Floats, features: Floats, touched: Mask) -> Slots:
        """The ghosts of this frame, int64 (n,); who blends is to take the current features for them, and they are
        forgotten here. accumulated, features: (T, D), blended and current. touched: bool (T,), tokens whose content
        changed or moved in this frame."""
        slots = np.flatnonzero(touched | (self._behind > 0))
        if not len(slots):
            return slots
        now = features[slots]
        lag = 1 - token_cosines(accumulated[slots], now)
        waiting = self._behind[slots] > 0
        moved = 1 - token_cosines(self._steady[slots], now) > lag / 2
        lags = lag > self._distance
        fresh = lags & (moved | ~waiting)  # the count begins where the present does
        self._steady[slots[fresh]] = now[fresh]
        behind = np.where(lags, np.where(fresh, 1, self._behind[slots] + 1), 0)
        ghosts = behind > self._frames
        self._behind[slots] = np.where(ghosts, 0, behind)
        self.found += int(ghosts.sum())
        return slots[ghosts]
