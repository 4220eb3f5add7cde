"""Answers to commands until the broker has taken them, over lost connections: bounded in number, bytes and age.

They are for whoever asked and waits, so unlike events they are not kept on disk, and after `keep_s` nobody gets them.
An answer that was on its way when the connection was lost may have come through. It goes again only where it names its
request (`request_id`, correlation data), which tells it from the answer to another; one that never left, or that the
broker says had no listener (MQTT 5), goes in any case.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import structlog

from agent.mqtt.commands import Reply

log = structlog.get_logger()

_LISTEN_AGAIN_S = 0.25


@dataclass(frozen=True, slots=True, order=True)
class Answer:
    """A reply and its place in the order of replies. made, due: monotonic seconds."""

    number: int
    reply: Reply = field(compare=False)
    made: float = field(compare=False)
    due: float = field(compare=False)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return len(self.reply.payload) + len(self.reply.topic) + len(self.reply.correlation or b"")


class Answers:
    """What waits to be said. `add` from any thread; the other methods are the sender's."""

    def __init__(
        self, monotonic: Callable[[], float], *, most: int = 100, max_bytes: int = 1 << 20, keep_s: float = 60.0
    ) -> None:
        self._monotonic = monotonic
        self._most, self._max_bytes, self._keep_s = most, max_bytes, keep_s
        self._lock = threading.Lock()
        self._waiting: list[Answer] = []
        self._numbers = 0
        self._begun = 0.0

    def begin(self) -> None:
        """A new connection."""
        self._begun = self._monotonic()

    def add(self, reply: Reply) -> None:
        now = self._monotonic()
        with self._lock:
            self._numbers += 1
            self._waiting.append(Answer(self._numbers, reply, now, now))
            self._bound()

    def next(self) -> Answer | None:
        """The first that is due and not too old, and no longer waits here."""
        now = self._monotonic()
        with self._lock:
            young = [answer for answer in self._waiting if now - answer.made < self._keep_s]
            if len(young) < len(self._waiting):
                log.warning("answers are too old to be sent", count=len(self._waiting) - len(young))
            self._waiting = young
            for place, answer in enumerate(young):
                if answer.due <= now:
                    return young.pop(place)
        return None

    def due_in(self) -> float | None:
        """Seconds until one is due, None when none waits."""
        with self._lock:
            due = min((answer.due for answer in self._waiting), default=None)
        return None if due is None else max(0.0, due - self._monotonic())

    def lost(self, on_their_way: Iterable[Answer]) -> None:
        """The connection is gone before the broker said that it took these."""
        with self._lock:
            for answer in on_their_way:
                if answer.reply.named:
                    insort(self._waiting, answer)
            self._bound()

    def unheard(self, answer: Answer) -> None:
        """Nobody listens where this went. Who asked over an earlier connection has lost theirs, too, and may come."""
        if answer.made >= self._begun:
            return
        with self._lock:
            insort(self._waiting, replace(answer, due=self._monotonic() + _LISTEN_AGAIN_S))
            self._bound()

    def _bound(self) -> None:
        """Pieces of an answer go before answers, which say it all; the oldest go first."""
        while len(self._waiting) > self._most or sum(answer.size for answer in self._waiting) > self._max_bytes:
            place = next((i for i, answer in enumerate(self._waiting) if answer.reply.part), 0)
            dropped = self._waiting.pop(place)
            log.warning("an answer is dropped: too many wait for the broker", topic=dropped.reply.topic)
