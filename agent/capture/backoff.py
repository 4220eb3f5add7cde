"""How long to wait before the next attempt."""

from __future__ import annotations

from random import Random


class Backoff:
    """Exponential back-off with full jitter: 0, then evenly from [0, first], [0, first·factor], … up to [0, limit]
    seconds.

    The first attempt after `reset` is immediate: most losses are short. Jitter over the whole range keeps a hundred
    agents from knocking together when a switch comes back (Brooker, "Exponential Backoff and Jitter", 2015).
    """

    def __init__(
        self, *, first_s: float = 1.0, limit_s: float = 60.0, factor: float = 2.0, random: Random | None = None
    ) -> None:
        if not (0 < first_s <= limit_s and factor >= 1):
            raise ValueError(f"expected 0 < first_s <= limit_s and factor >= 1, got {first_s}, {limit_s}, {factor}")
        self._first_s = first_s
        self._limit_s = limit_s
        self._factor = factor
        self._random = random or Random()
        self._ceiling_s = 0.0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        delay_s = self._random.uniform(0.0, self._ceiling_s)
        self._ceiling_s = min(self._limit_s, max(self._first_s, self._ceiling_s * self._factor))
        return delay_s

    def reset(self) -> None:
        """Forget earlier failures; the next attempt is immediate."""
        self._ceiling_s = 0.0
