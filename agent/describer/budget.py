"""How many requests may be made in an hour, and how cameras share them."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection

_HOUR_S = 3600.0


class HourlyBudget:
    """At most `per_hour` requests in any 3,600 s. (A sliding window: a bucket that refills would let twice as many
    through in some hours.)

    Half of it is kept for the cameras in equal parts, so that one busy camera can't silence the others; the other half
    goes to who comes first. Safe from any thread.
    """

    def __init__(self, per_hour: int, cameras: Collection[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_hour = per_hour
        self._cameras = tuple(cameras)
        self._kept = per_hour // (2 * max(1, len(self._cameras)))
        self._clock = clock
        self._spent: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Requests that may still be made now, by all cameras together."""
        return self._per_hour - len(self._last_hour())

    def allows(self, camera: str) -> bool:
        """Whether this camera may make a request now."""
        spent = self._last_hour()
        left, used = self._per_hour - len(spent), Counter(spent)
        kept_for_others = sum(max(0, self._kept - used[name]) for name in self._cameras if name != camera)
        return left > (0 if used[camera] < self._kept else kept_for_others)

    def spend(self, camera: str) -> None:
        with self._lock:
            self._spent.append((self._clock(), camera))

    def _last_hour(self) -> list[str]:
        """Who made the requests of the last hour."""
        horizon = self._clock() - _HOUR_S
        with self._lock:
            while self._spent and self._spent[0][0] <= horizon:
                self._spent.popleft()
            return [camera for _, camera in self._spent]
