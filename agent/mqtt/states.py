"""How things are: one retained message a topic, the latest wins."""

from __future__ import annotations

import threading


class StateBoard:
    """What the broker is to keep for us. `put` from any thread; the other methods for the sender.

    A topic goes out when its payload has changed, not more often than every `interval_s`, and again on each connection.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[str, tuple[str, float]] = {}
        self._sent: dict[str, tuple[str, float]] = {}

    def put(self, topic: str, payload: str, *, interval_s: float = 0.0) -> None:
        with self._lock:
            if self._wanted.get(topic, ("", 0.0))[0] != payload:
                self._wanted.pop(topic, None)  # to the end: topics go out in the order in which they last changed
            self._wanted[topic] = (payload, interval_s)

    def forget_sent(self) -> None:
        """A new connection: everything goes out again."""
        with self._lock:
            self._sent.clear()

    def due(self, now: float) -> list[tuple[str, str]]:
        """(topic, payload) of what is to go out now, in the order in which the topics last changed."""
        with self._lock:
            return [
                (topic, payload)
                for topic, (payload, interval_s) in self._wanted.items()
                if self._ready_at(topic, payload, interval_s) <= now
            ]

    def due_in(self, now: float) -> float | None:
        """Seconds until something is due, None when all is said."""
        with self._lock:
            times = [
                self._ready_at(topic, payload, interval_s) for topic, (payload, interval_s) in self._wanted.items()
            ]
        soonest = min(times, default=float("inf"))
        return None if soonest == float("inf") else max(0.0, soonest - now)

    def sent(self, topic: str, payload: str, now: float) -> None:
        with self._lock:
            self._sent[topic] = (payload, now)

    def _ready_at(self, topic: str, payload: str, interval_s: float) -> float:
        if topic not in self._sent:
            return 0.0
        said, at = self._sent[topic]
        return float("inf") if said == payload else at + interval_s
