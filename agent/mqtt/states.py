"""How things are: one retained message a topic, the latest wins."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection

Payload = str | bytes
"""Text goes out with QoS 1, bytes (pictures) with QoS 0."""
_MOST_EARLIER = 100


class StateBoard:
    """What the broker is to keep for us. `put` from any thread; the other methods for the sender.

    A topic goes out when its payload has changed, not more often than every `interval_s`, and again on each connection;
    pictures don't: an old one would pass for a new one.
    What is put with `each` goes out even where something newer waits behind it; the last stays with the broker.
    An empty payload takes the topic back: when the broker has acknowledged it, it is dropped and `retracted` called.
    """

    def __init__(self, retracted: Callable[[str], None] = lambda _topic: None) -> None:
        self._retracted = retracted
        self._lock = threading.Lock()
        self._wanted: dict[str, tuple[Payload, float]] = {}
        self._sent: dict[str, tuple[Payload, float]] = {}
        self._earlier: dict[str, deque[Payload]] = {}

    def put(self, topic: str, payload: Payload, *, interval_s: float = 0.0, each: bool = False) -> None:
        with self._lock:
            before = self._wanted.get(topic)
            if each and before is not None and before[0] not in (payload, self._sent.get(topic, ("", 0.0))[0]):
                self._earlier.setdefault(topic, deque(maxlen=_MOST_EARLIER)).append(before[0])
            if self._wanted.get(topic, ("", 0.0))[0] != payload:
                self._wanted.pop(topic, None)  # to the end: topics go out in the order in which they last changed
            self._wanted[topic] = (payload, interval_s)

    def forget_sent(self) -> None:
        """A new connection: everything but pictures goes out again."""
        with self._lock:
            self._sent = {topic: said for topic, said in self._sent.items() if isinstance(said[0], bytes)}

    def repeat(self, topics: Collection[str]) -> None:
        """Send these again, changed or not."""
        with self._lock:
            for topic in topics:
                self._sent.pop(topic, None)

    def acknowledged(self, topic: str) -> None:
        """The broker has taken what was sent last."""
        with self._lock:
            gone = self._wanted.get(topic, ("-", 0.0))[0] == self._sent.get(topic, ("-", 0.0))[0] == ""
            if gone:
                del self._wanted[topic], self._sent[topic]
        if gone:
            self._retracted(topic)

    def due(self, now: float) -> list[tuple[str, Payload]]:
        """(topic, payload) of what is to go out now, in the order in which the topics last changed."""
        with self._lock:
            return [
                (topic, due)
                for topic, (payload, interval_s) in self._wanted.items()
                if self._ready_at(topic, payload, interval_s) <= now
                for due in (*self._earlier.get(topic, ()), payload)
            ]

    def due_in(self, now: float) -> float | None:
        """Seconds until something is due, None when all is said."""
        with self._lock:
            times = [
                self._ready_at(topic, payload, interval_s) for topic, (payload, interval_s) in self._wanted.items()
            ]
        soonest = min(times, default=float("inf"))
        return None if soonest == float("inf") else max(0.0, soonest - now)

    def sent(self, topic: str, payload: Payload, now: float) -> None:
        with self._lock:
            earlier = self._earlier.get(topic)
            if earlier and earlier[0] == payload:
                earlier.popleft()
            else:
                self._sent[topic] = (payload, now)

    def _ready_at(self, topic: str, payload: Payload, interval_s: float) -> float:
        if topic not in self._sent:
            return 0.0
        said, at = self._sent[topic]
        return float("inf") if said == payload else at + interval_s
