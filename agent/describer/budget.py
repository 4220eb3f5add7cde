"""How many requests may be made in an hour, and how cameras share them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

log = structlog.get_logger()

_HOUR_S = 3600.0


class HourlyBudget:
    """At most `per_hour` requests in any 3,600 s. (A sliding window: a bucket that refills would let twice as many
    through in some hours.)

    Half of it is kept for the cameras in equal parts, so that one busy camera can't silence the others; the other half
    goes to who comes first. Safe from any thread.

    file: where requests are kept, so that a restart doesn't give the budget anew; None keeps them in memory alone. It
    holds the wall clock's time (`wall`, Unix seconds) of each request and its camera. A request that seems to lie in
    the future, because that clock was set back, counts as made now.
    """

    def __init__(
        self,
        per_hour: int,
        cameras: Collection[str],
        *,
        file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._per_hour = per_hour
        self._cameras = tuple(cameras)
        self._kept = per_hour // (2 * max(1, len(self._cameras)))
        self._file, self._clock, self._wall = file, clock, wall
        self._spent: deque[tuple[float, str]] = deque(self._earlier())
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Requests that may still be made now, by all cameras together."""
        return max(0, self._per_hour - len(self._last_hour()))

    def allows(self, camera: str) -> bool:
        """Whether this camera may make a request now."""
        spent = self._last_hour()
        left, used = self._per_hour - len(spent), Counter(spent)
        kept_for_others = sum(max(0, self._kept - used[name]) for name in self._cameras if name != camera)
        return left > (0 if used[camera] < self._kept else kept_for_others)

    def spend(self, camera: str) -> None:
        with self._lock:
            self._spent.append((self._clock(), camera))
            self._keep()

    def _last_hour(self) -> list[str]:
        """Who made the requests of the last hour."""
        with self._lock:
            self._forget()
            return [camera for _, camera in self._spent]

    def _forget(self) -> None:
        horizon = self._clock() - _HOUR_S
        while self._spent and self._spent[0][0] <= horizon:
            self._spent.popleft()

    def _earlier(self) -> list[tuple[float, str]]:
        """Requests of earlier runs, by our clock, in order."""
        if self._file is None:
            return []
        now, wall = self._clock(), self._wall()
        try:
            made = json.loads(self._file.read_text(encoding="utf-8"))
            return sorted((now - max(0.0, wall - float(at)), str(camera)) for at, camera in made)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            log.warning("the requests of the last hour are not known", file=str(self._file), reason=str(error))
            return []

    def _keep(self) -> None:
        if self._file is None:
            return
        self._forget()
        ahead = self._wall() - self._clock()
        text = json.dumps([(round(at + ahead, 3), camera) for at, camera in self._spent])
        unfinished = self._file.with_name(f"{self._file.name}.part")
        try:
            with unfinished.open("w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            unfinished.replace(self._file)
        except OSError as error:  # the request is counted all the same, as long as this run lasts
            log.warning("requests can't be kept over a restart", file=str(self._file), reason=error.strerror)
