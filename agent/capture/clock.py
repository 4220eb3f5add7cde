"""Time as an argument: what capture needs of a clock, and the machine's own."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from typing import Protocol


class Clock(Protocol):
    """Two readings of now, and a wait that an event can cut short."""

    def monotonic_ns(self) -> int: ...

    def utc(self) -> datetime:
        """Now, aware, in UTC."""
        ...

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait for the event, at most `timeout_s`; True when it is set."""
        ...


class SystemClock:
    """The clock of the machine."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def utc(self) -> datetime:
        return datetime.now(timezone.utc)

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(timeout_s)
