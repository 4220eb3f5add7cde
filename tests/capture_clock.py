"""A clock for tests: time passes only when somebody waits or says so."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone

START = datetime(2024, 1, 1, tzinfo=timezone.utc)


class FakeClock:
    """Time that passes only when somebody waits or says so."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits: list[float] = []

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    def utc(self) -> datetime:
        return START + timedelta(seconds=self.now_s - 100)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        self.now_s += timeout_s
        return event.is_set()
