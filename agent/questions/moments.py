"""What a camera saw of late, kept as tokens: a moment each time that something differs from the one before.

An unchanged scene costs nothing, however long it stays; when the bytes are used up the oldest moments go.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from agent.insight.reference import Reference, unit_rows
from agent.insight.sight import Sight

EVERY_S = 0.5
DRIFT = 0.25
LEAST_TOKENS = 2
MOST_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class MomentSeen:
    """features: float16 (T, D), accumulated. start_s, utc: when it was first seen; until_s: when it was last so,
    monotonic seconds."""

    features: NDArray[np.float16]
    start_s: float
    until_s: float
    utc: datetime


class Moments:
    """A `Follower` of one camera: `see` from the frame loop, everything else from any thread."""

    def __init__(self, *, max_bytes: int = MOST_BYTES) -> None:
        self._max_bytes, self._share = max_bytes, 1.0
        self._kept: deque[MomentSeen] = deque()
        self._last: Reference | None = None
        self._next_s = -np.inf
        self._wanted: list[Future[MomentSeen]] = []
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Of all that is kept; what reports memory reads it."""
        with self._lock:
            return self._nbytes()

    def see(self, sight: Sight) -> None:
        with self._lock:
            wanted, self._wanted = self._wanted, []
            if wanted:
                now = _moment(sight)
                for future in wanted:
                    if future.set_running_or_notify_cancel():
                        future.set_result(now)
            if sight.broken:
                self._last = None
            if sight.now_s < self._next_s:
                return
            self._next_s = sight.now_s + EVERY_S
            unit = unit_rows(sight.features)
            last = self._last
            if last is not None and int(last.drifted(unit, DRIFT, sight.counted).sum()) < LEAST_TOKENS:
                self._kept[-1] = replace(self._kept[-1], until_s=sight.now_s)
                return
            self._last = Reference(unit)
            self._kept.append(_moment(sight))
            self._trim()

    def interrupted(self, reason: str) -> None:
        """What was seen stays; the next frame is a moment of its own."""
        with self._lock:
            self._last = None

    def shed(self, share: float) -> None:
        """Hold at most this share of `max_bytes` from now on, and the last moment in any case; from any thread."""
        with self._lock:
            self._share = share
            self._trim()

    def now(self) -> Future[MomentSeen]:
        """The next frame that is judged."""
        future: Future[MomentSeen] = Future()
        with self._lock:
            self._wanted.append(future)
        return future

    def since(self, start_s: float) -> list[MomentSeen]:
        """What was seen at or after this time, the oldest first."""
        with self._lock:
            return [moment for moment in self._kept if moment.until_s >= start_s]

    def _trim(self) -> None:
        while len(self._kept) > 1 and self._nbytes() > self._share * self._max_bytes:
            self._kept.popleft()

    def _nbytes(self) -> int:
        return sum(moment.features.nbytes for moment in self._kept)


def _moment(sight: Sight) -> MomentSeen:
    return MomentSeen(sight.features.astype(np.float16), sight.now_s, sight.now_s, sight.frame.utc)
