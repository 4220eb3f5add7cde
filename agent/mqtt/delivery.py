"""Which event of the outbox goes out next: order, window, retries. No I/O but the outbox; time is an argument.

Events go in the order of acceptance and up to `window` unacknowledged at once. What a subscriber is promised:

- At least once. An event stays in the outbox until the broker has acknowledged it; when a connection ends, everything
  unacknowledged goes again, from the oldest on, under the same id and seq.
- In order per camera. The exception is an event that the broker *refused* (an ACL, a quota): it is tried again a few
  times with growing pauses while other topics go on, then set aside (quarantined) and counted.
- After a lost connection the subscribers have lost theirs too. So each camera starts again with one event at a time,
  and while the broker says that nobody listens (MQTT 5, reason 16) where somebody did before, it waits for them, for
  `patience_s`.
- An event that ends the connection each time (a packet that this broker does not take) must not stop all others: after
  a connection died with events in flight they go one by one, each after the connection has proved itself; the one on
  which it dies `max_tries` times is set aside.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import structlog

from agent.events.form import event_form
from agent.events.outbox import Outbox, Stored
from agent.mqtt.session import PACKET_OVERHEAD, Ack

log = structlog.get_logger()

_NO_SUBSCRIBERS = 0x10
_LISTEN_AGAIN_S = 0.25
_BURST_S = 0.1


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event as it is sent now. form: the same news as Home Assistant's event entity reads it."""

    row: int
    topic: str
    payload: str
    form: str


class Delivery:
    """The sender's view of the outbox, for one thread. Times are monotonic seconds."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        window: int = 20,
        max_tries: int = 5,
        replay_after_s: float = 5.0,
        replay_per_s: float = 200.0,
        patience_s: float = 20.0,
        retry_s: float = 1.0,
    ) -> None:
        self._outbox = outbox
        self._window = window
        self._max_tries = max_tries
        self._replay_after_s = replay_after_s
        self._replay_interval_s = 1.0 / replay_per_s
        self._patience_s = patience_s
        self._retry_s = retry_s
        self._in_flight: dict[int, Stored] = {}
        self._arrived: list[int] = []
        self._suspects: set[int] = set()
        self._heard: set[str] = set()
        self._cursor = 0
        self._holds: dict[tuple[Literal["camera", "topic"], str], float] = {}
        self._begun_at = 0.0
        self._ready: set[str] = set()
        self._proved = False
        self._listened = False
        self._max_packet: int | None = None
        self._next_replay_at = 0.0

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def begin(self, now: float, max_packet: int | None) -> None:
        """A new connection: start from the oldest event that waits. max_packet: bytes the broker takes, None = any."""
        self._begun_at = now
        self._max_packet = max_packet
        self._cursor = 0
        self._holds.clear()
        self._ready.clear()
        self._proved = False
        self._listened = False

    def prove(self) -> None:
        """The broker has acknowledged something on this connection: it works."""
        self._proved = True

    def lost(self) -> None:
        """The connection is gone."""
        if len(self._in_flight) == 1 and self._proved and (only := next(iter(self._in_flight))) in self._suspects:
            self._count_refusal(only, "the broker ends the connection on it")
        self._suspects = set(self._in_flight)
        self._in_flight.clear()

    def next(self, room: int, now: float) -> list[Outgoing]:
        """What to send now, at most `room`."""
        if any(now >= until for until in self._holds.values()):
            self._holds = {key: until for key, until in self._holds.items() if now < until}
            self._cursor = 0
        one_by_one = bool(self._suspects)
        window = 1 if one_by_one else self._window
        room = min(room, window - len(self._in_flight))
        if room <= 0 or (one_by_one and not self._proved):
            return []
        found = self._outbox.pending(
            room + len(self._in_flight),
            after=self._cursor,
            skip_topics=[name for kind, name in self._holds if kind == "topic"],
            skip_cameras=[name for kind, name in self._holds if kind == "camera"],
        )
        waiting = [stored for stored in found if stored.row not in self._in_flight and stored.row not in self._arrived]
        if not waiting and not self._in_flight and not self._holds:
            self._suspects.clear()  # the outbox dropped them to make room
        return self._choose(waiting, room, now)

    def _choose(self, waiting: list[Stored], room: int, now: float) -> list[Outgoing]:
        chosen: list[Outgoing] = []
        busy = {stored.camera for stored in self._in_flight.values()} - self._ready
        passed_over = False
        for stored in waiting:
            if len(chosen) == room:
                break
            if stored.camera in busy:
                passed_over = True
                continue
            if self._max_packet is not None and stored.size + len(stored.topic) + PACKET_OVERHEAD > self._max_packet:
                self._set_aside(stored.row, f"{stored.size} bytes, the broker takes packets of {self._max_packet}")
                continue
            replayed = stored.earlier_run or stored.age_s > self._replay_after_s
            if replayed and now < self._next_replay_at:
                break
            if replayed:
                self._next_replay_at = max(self._next_replay_at, now - _BURST_S) + self._replay_interval_s
            chosen.append(_outgoing(stored, replayed))
            self._in_flight[stored.row] = stored
            if stored.camera not in self._ready:
                busy.add(stored.camera)
            if not passed_over:
                self._cursor = stored.row
        return chosen

    def acknowledged(self, row: int, ack: Ack, now: float) -> None:
        """The broker has answered. Delivered rows are written by `save`."""
        stored = self._in_flight.pop(row, None)
        if stored is None:
            return
        self._suspects.discard(row)
        if ack.refused:
            tries = self._count_refusal(row, ack.reason)
            self._hold("topic", stored.topic, now + self._retry_s * 2.0 ** (tries - 1))
            return
        if ack.code != _NO_SUBSCRIBERS:
            self._heard.add(stored.topic)
            self._listened = True
        elif now - self._begun_at < self._patience_s and self._should_be_heard(stored.topic):
            self._hold("camera", stored.camera, now + _LISTEN_AGAIN_S)
            return
        self._ready.add(stored.camera)
        self._arrived.append(row)

    def _should_be_heard(self, topic: str) -> bool:
        """Somebody listened here before, or did elsewhere and nobody at all is back yet."""
        return topic in self._heard or (bool(self._heard) and not self._listened)

    def _hold(self, kind: Literal["camera", "topic"], name: str, until: float) -> None:
        self._holds[kind, name] = until
        self._cursor = 0

    def _count_refusal(self, row: int, reason: str) -> int:
        tries = self._outbox.refused(row)
        if tries >= self._max_tries:
            self._set_aside(row, reason)
        return tries

    def _set_aside(self, row: int, reason: str) -> None:
        log.error("an event can't be delivered and is set aside", row=row, reason=reason)
        self._outbox.quarantine(row, reason)

    def save(self) -> None:
        """Write what has arrived to the outbox, in one transaction."""
        if self._arrived:
            self._outbox.delivered(self._arrived)
            self._arrived = []

    def due_in(self, now: float) -> float | None:
        """Seconds until something that is held back may go, None when nothing is."""
        times = [*self._holds.values()]
        if self._next_replay_at > now:
            times.append(self._next_replay_at)
        return max(0.0, min(times) - now) if times else None


def _outgoing(stored: Stored, replayed: bool) -> Outgoing:
    document = {**stored.document, "replayed": replayed, "age_s": round(stored.age_s, 1)}
    whole, form = (json.dumps(d, ensure_ascii=False, separators=(",", ":")) for d in (document, event_form(document)))
    return Outgoing(stored.row, stored.topic, whole, form)
