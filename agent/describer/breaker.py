"""When to leave a server alone: back-off between tries, and a circuit breaker that stops trying for a while.

    closed ──`threshold` failures in a row, or one that is permanent──▶ open ──its time is over──▶ half-open (one try)
       ▲                                                                  ▲                          │         │
       └──────────────────────────────── success ─────────────────────────│──────────────────────────┘      failure
                                                                          └──────── for twice as long ─────────┘

(Nygard, "Release It!", 2007; jitter after Brooker, "Exponential Backoff and Jitter", 2015: a half of each pause is
random, so that many agents don't knock together when the server is back, and the other half isn't, so that a server
that is down is left alone.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from math import inf
from random import Random


class BreakerState(str, Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """For one thread. Pauses grow from `first_s` to `limit_s`, and are at least `permanent_s` after what won't mend
    itself."""

    def __init__(
        self,
        *,
        threshold: int = 3,
        first_s: float = 1.0,
        limit_s: float = 300.0,
        permanent_s: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self.state = BreakerState.CLOSED
        self._threshold, self._first_s, self._limit_s, self._permanent_s = threshold, first_s, limit_s, permanent_s
        self._clock = clock
        self._random = random or Random()
        self._failures = 0
        self._paused_until = -inf

    def admit(self) -> float:
        """0.0: go and try, then say how it went. Else the seconds until it is worth asking again, inf while the one
        try of the half-open state is on its way."""
        left_s = self._paused_until - self._clock()
        if left_s > 0:
            return left_s
        if self.state is BreakerState.HALF_OPEN:
            return inf
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN
        return 0.0

    def succeeded(self) -> None:
        self.state = BreakerState.CLOSED
        self._failures = 0
        self._paused_until = -inf

    def failed(self, *, permanent: bool = False, at_least_s: float = 0.0) -> None:
        """at_least_s: how long the server itself asks to be left alone."""
        self._failures += 1
        pause_s = min(self._limit_s, self._first_s * 2.0 ** min(self._failures - 1, 32)) * self._random.uniform(0.5, 1)
        pause_s = max(pause_s, at_least_s, self._permanent_s if permanent else 0.0)
        self._paused_until = max(self._paused_until, self._clock() + pause_s)
        if permanent or self._failures >= self._threshold:
            self.state = BreakerState.OPEN

    def abandoned(self) -> None:
        """The try was given up for reasons of our own; it says nothing about the server."""
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.OPEN
