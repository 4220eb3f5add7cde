"""The hand-over between the thread that captures and the thread that thinks."""

from __future__ import annotations

import threading
from collections import deque

from agent.capture.frame import Frame


class Ring:
    """A few frames between one producer and one consumer. Full, it drops the oldest and counts it; frames aren't
    copied.

    A dropped frame hands its `discontinuity` on to the next, so that no consumer takes two scenes for neighbours, and
    its motion.
    """

    def __init__(self, capacity: int = 3) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self._capacity = capacity
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Frames lost because the consumer was slower than the producer."""
        return self._dropped

    @property
    def drained(self) -> bool:
        """True when the ring is closed and empty: nothing will come any more."""
        with self._changed:
            return self._closed and not self._frames

    def put(self, frame: Frame, *, block: bool = False) -> bool:
        """Add a frame. A full ring drops its oldest frame, or with `block` waits for room. False once the ring is
        closed."""
        with self._changed:
            while block and len(self._frames) == self._capacity and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._frames.append(frame)
            if len(self._frames) > self._capacity:
                oldest = self._frames.popleft()
                self._dropped += 1
                self._frames[0] = self._frames[0].following(oldest)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None) -> Frame | None:
        """The oldest frame; None when none came in `timeout_s` or the ring is `drained`."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed, timeout_s)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    def close(self) -> None:
        """Take no more frames and wake whoever waits; what is inside can still be taken. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
