"""When something watches: windows of the week such as `mon-fri 22:00-06:00`, by the wall clock of a time zone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(
    r"(?:(?P<days>[a-z,\-]+)\s+)?(?P<from_h>\d\d):(?P<from_m>\d\d)-(?P<to_h>\d\d):(?P<to_m>\d\d)", re.IGNORECASE
)
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """days: on which it begins, 0 = Monday. start, end: minutes of the day; an end at or before the start is on the day
    after."""

    days: frozenset[int]
    start: int
    end: int

    @classmethod
    def of(cls, text: str) -> Window:
        """From `[DAYS ]HH:MM-HH:MM`; days are `mon,wed`, `mon-fri` or both mixed, every day without. Raises ValueError
        that says what was expected."""
        found = _WINDOW.fullmatch(text.strip())
        if found is None:
            raise ValueError("expected a window such as `22:00-06:00` or `mon-fri 08:30-17:00`")
        start, end = (int(found[f"{at}_h"]) * 60 + int(found[f"{at}_m"]) for at in ("from", "to"))
        if int(found["from_m"]) > 59 or int(found["to_m"]) > 59 or start >= _DAY_MINUTES or end > _DAY_MINUTES:
            raise ValueError("expected times from 00:00 to 24:00")
        return cls(_days(found["days"]), start, end)

    def covers(self, wall: datetime) -> bool:
        """Whether the clock on the wall is inside; the start belongs to it, the end does not."""
        minute = wall.hour * 60 + wall.minute
        if self.start < self.end:
            return wall.weekday() in self.days and self.start <= minute < self.end
        began_yesterday = (wall - timedelta(days=1)).weekday() in self.days
        return (wall.weekday() in self.days and minute >= self.start) or (began_yesterday and minute < self.end)


def covers(windows: Sequence[str], timezone: str | None, at: datetime) -> bool:
    """Whether any of the windows covers this moment, an aware time. timezone: IANA name, None = this machine's.

    Where clocks are set back, the repeated hour counts twice; where they are put forward, the skipped one never comes.
    """
    wall = at.astimezone(None if timezone is None else ZoneInfo(timezone))
    return any(Window.of(text).covers(wall) for text in windows)


def known_timezone(name: str) -> bool:
    """Whether this machine has rules for the time zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(f"expected days out of {', '.join(DAYS)}")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days |= {day % 7 for day in range(begin, end + 1 + (7 if end < begin else 0))}
    return frozenset(days)
