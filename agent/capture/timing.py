"""When a frame is: repaired positions in the video, stamps of recorded video, and the limit of frames a second."""

from __future__ import annotations

import math
import threading
from datetime import datetime, timedelta

from agent.capture.clock import Clock

_LONGEST_GAP_S = 60.0
_LARGEST_DISORDER_PERIODS = 2
_SMALLEST_STEP_S = 0.001
_LATE_S = 1.0


class Timeline:
    """Positions in seconds that start at 0 and only rise, whatever the container's time stamps do.

    Good stamps pass unchanged (less the first one). A missing one is put a frame period after the last. A small step
    back (frames out of order, equal stamps) becomes the smallest step forward. A large step back or a gap of more
    than a minute (wrapped counter, joined files, damaged stamp) moves everything after it, so that the picture
    follows on.
    """

    def __init__(self, *, period_s: float) -> None:
        self._period_s = period_s
        self._shift_s: float | None = None
        self._last_s = 0.0

    def place(self, stamp_s: float | None) -> float:
        """Position of the next frame, given its stamp (None = the container has none)."""
        if self._shift_s is None:
            self._shift_s = -(stamp_s or 0.0)
            return self._last_s
        follows_s = self._last_s + self._period_s
        position_s = follows_s if stamp_s is None else stamp_s + self._shift_s
        step_s = position_s - self._last_s
        if not -_LARGEST_DISORDER_PERIODS * self._period_s <= step_s <= _LONGEST_GAP_S:
            self._shift_s += follows_s - position_s
            position_s = follows_s
        elif step_s <= 0:
            position_s = self._last_s + _SMALLEST_STEP_S
        self._last_s = position_s
        return position_s


class MediaClock:
    """Stamps of recorded video: the moment its first frame was read, plus the frame's position.

    So a rule that needs three seconds sees three seconds of video also when the file is read as fast as possible.
    Paced, a stamp is given out when its moment has come. Whoever comes more than a second late (machine asleep,
    decoder too slow) goes on from there at normal speed instead of racing through what was missed.
    """

    def __init__(self, clock: Clock, *, paced: bool) -> None:
        self._clock = clock
        self._paced = paced
        self._start: tuple[int, datetime] | None = None

    def stamp(self, media_s: float, stop: threading.Event) -> tuple[int, datetime]:
        """(monotonic ns, UTC) of the frame at `media_s`. Paced, waits until then, or until `stop` is set."""
        if self._start is None:
            self._start = (
                self._clock.monotonic_ns() - round(media_s * 1e9),
                self._clock.utc() - timedelta(seconds=media_s),
            )
        if self._paced:
            start_ns, start_utc = self._start
            ahead_s = media_s + (start_ns - self._clock.monotonic_ns()) / 1e9
            if ahead_s > 0:
                self._clock.wait(stop, ahead_s)
            elif ahead_s < -_LATE_S:
                self._start = start_ns - round(ahead_s * 1e9), start_utc - timedelta(seconds=ahead_s)
        start_ns, start_utc = self._start
        return start_ns + round(media_s * 1e9), start_utc + timedelta(seconds=media_s)


class RateLimit:
    """Keeps at most `fps` frames a second on average, each the nearest to when one is due.

    Nearest, not first after: stamps are rounded (Matroska: to milliseconds) and jitter, and a limit equal to the
    source's own rate must not lose frames.
    """

    def __init__(self, fps: float) -> None:
        self._period_s = 1 / fps
        self._due_s = -math.inf
        self._last_s = -math.inf

    def keeps(self, time_s: float) -> bool:
        """Whether the frame at this time (rising from call to call) is one to keep."""
        step_s, self._last_s = time_s - self._last_s, time_s
        if time_s < self._due_s - step_s / 2:
            return False
        self._due_s += self._period_s
        if self._due_s <= time_s:  # the first frame, or after a gap
            self._due_s = time_s + self._period_s
        return True
