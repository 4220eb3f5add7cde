"""Which event of the outbox goes out next: order, window, retries. No I/O but the outbox; time is an argument.

Events go in the order of acceptance and up to `window` unacknowledged at once. What a subscriber is promised:

- At least once. An event stays in the outbox until the broker has acknowledged it; when a connection ends, everything
  unacknowledged goes again, from the oldest on, under the same id and seq.
- In order per camera. The exception is an event that the broker *refuses* (an access list, a quota): it is tried again
  with growing pauses, for `refused_for_s` at least, then set aside (quarantined) and counted. Its camera waits with it
  for `order_s`; after that only its topic does, so that what may not be said does not silence what may.
- After a lost connection the subscribers have lost theirs too. So each camera starts again with one event at a time,
  and while the broker says that nobody listens (MQTT 5, reason 16) where somebody did before, it waits for them, for
  `patience_s`.
- A disk that refuses must not stop the telling: what has arrived and can't be noted is known until the run ends (and
  comes again in the next), what can't be read waits; both are tried again with growing pauses and told in `trouble`.
- An event that ends the connection each time (a packet that this broker does not take) must not stop all others, and a
  bad line must not cost a good event: after a connection died with events in flight they go one by one, each after the
  connection has proved itself. One that was alone when the connection died right after it waits on the next ones, each
  time longer, to see whether they live without it: one that dies without it clears it. After `max_tries` deaths the
  others of its camera go first, too; when others have passed and the connection dies on it once more, it is set aside.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Literal

import structlog

from agent.events.form import event_form
from agent.events.outbox import Outbox, Stored
from agent.mqtt.session import PACKET_OVERHEAD, Ack

log = structlog.get_logger()

NO_SUBSCRIBERS = 0x10
"""MQTT 5: the broker has taken it, and nobody is subscribed."""
_LISTEN_AGAIN_S = 0.25
_BURST_S = 0.1
_LONGEST_PAUSE_S = 60.0
_AT_ONCE_S = 5.0
"""A broker that ends the connection because of an event does so right after it came."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event as it is sent now. form: the same news as Home Assistant's event entity reads it."""

    row: int
    topic: str
    payload: str
    form: str


@dataclass(slots=True)
class _Trying:
    """Something that fails and is tried again, after growing pauses. waited_s: those there were."""

    until: float = 0.0
    tries: int = 0
    pause_s: float = 0.0
    waited_s: float = 0.0
    reason: str | None = None

    def again(self, now: float, first_s: float, reason: str) -> None:
        self.waited_s += self.pause_s
        self.pause_s = _pause_s(self.tries, first_s)
        self.until = now + self.pause_s
        self.tries += 1
        self.reason = reason


@dataclass(slots=True)
class _Deadly:
    """An event that was alone, and had just been sent, when a connection died. others_pass: since the first time."""

    camera: str
    deaths: int = 0
    others_pass: bool = False


def _pause_s(tries: int, first_s: float) -> float:
    return min(_LONGEST_PAUSE_S, first_s * 2.0 ** min(tries, 20))


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
        refused_for_s: float = 3600.0,
        order_s: float = 60.0,
    ) -> None:
        self._outbox = outbox
        self._window = window
        self._max_tries = max_tries
        self._replay_after_s = replay_after_s
        self._replay_interval_s = 1.0 / replay_per_s
        self._patience_s = patience_s
        self._retry_s = retry_s
        self._refused_for_s = refused_for_s
        self._order_s = order_s
        self._in_flight: dict[int, Stored] = {}
        self._arrived: list[int] = []
        self._aside: dict[int, str] = {}
        self._saving, self._reading = _Trying(), _Trying()
        self._refusals: dict[str, _Trying] = {}
        self._deadly: dict[int, _Deadly] = {}
        self._sent_at = 0.0
        self._now = 0.0
        self._suspects: set[int] = set()
        self._heard: set[str] = set()
        self._cursor = 0
        self._holds: dict[tuple[Literal["camera", "topic", "row"], str], float] = {}
        self._begun_at = 0.0
        self._ready: set[str] = set()
        self._proved = False
        self._listened = False
        self._max_packet: int | None = None
        self._next_replay_at = 0.0

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def trouble(self) -> tuple[str, ...]:
        """What the disk refuses, and what connections die of, as sentences. From any thread."""
        unsaved, unread = self._saving.reason, self._reading.reason
        deaths = max((deadly.deaths for deadly in list(self._deadly.values())), default=0)
        return (
            *((f"the connection ended {deaths} times right after one and the same event",) if deaths > 1 else ()),
            *((f"what was sent can't be noted, a later run sends it again: {unsaved}",) if unsaved else ()),
            *((f"the events that wait can't be read: {unread}",) if unread else ()),
        )

    def begin(self, now: float, max_packet: int | None) -> None:
        """A new connection: start from the oldest event that waits. max_packet: bytes the broker takes, None = any."""
        self._begun_at = self._now = now
        self._max_packet = max_packet
        self._cursor = 0
        self._holds.clear()
        self._ready.clear()
        self._proved = False
        self._listened = False
        for row, deadly in self._deadly.items():
            until = now + _pause_s(deadly.deaths - 1, self._retry_s)
            if deadly.deaths < self._max_tries:
                self._hold("camera", deadly.camera, until)
            else:
                self._hold("row", str(row), until)

    def prove(self) -> None:
        """The broker has acknowledged something on this connection: it works."""
        self._proved = True

    def lost(self) -> None:
        """The connection is gone."""
        alone = next(iter(self._in_flight.values())) if len(self._in_flight) == 1 else None
        if self._proved and alone is not None and self._now - self._sent_at <= _AT_ONCE_S:
            if alone.row in self._suspects:
                self._count_death(alone)
        elif self._proved and not self._in_flight.keys() & self._deadly.keys():
            self._deadly.clear()  # connections die without them, too
        self._suspects = {*self._in_flight, *self._deadly}
        self._in_flight.clear()

    def _count_death(self, stored: Stored) -> None:
        deadly = self._deadly.setdefault(stored.row, _Deadly(stored.camera))
        deadly.deaths += 1
        if deadly.deaths >= self._max_tries and deadly.others_pass:
            del self._deadly[stored.row], self._in_flight[stored.row]
            self._set_aside(stored.row, "the broker ends the connection on it")

    def next(self, room: int, now: float) -> list[Outgoing]:
        """What to send now, at most `room`."""
        self._now = now
        if any(now >= until for until in self._holds.values()):
            self._holds = {key: until for key, until in self._holds.items() if now < until}
            self._cursor = 0
        one_by_one = bool(self._suspects)
        window = 1 if one_by_one else self._window
        room = min(room, window - len(self._in_flight))
        if room <= 0 or (one_by_one and not self._proved):
            return []
        settled = {*self._in_flight, *self._arrived, *self._aside}
        settled |= {int(name) for kind, name in self._holds if kind == "row"}
        waiting = [stored for stored in self._read(room + len(settled), now) if stored.row not in settled]
        if not waiting and not self._in_flight and not self._holds and self._reading.reason is None:
            self._suspects.clear()  # the outbox dropped them to make room
            self._deadly.clear()
        return self._choose(waiting, room, now)

    def _read(self, limit: int, now: float) -> list[Stored]:
        topics = [name for kind, name in self._holds if kind == "topic"]
        cameras = [name for kind, name in self._holds if kind == "camera"]
        if now >= self._reading.until:
            try:
                found = self._outbox.pending(limit, after=self._cursor, skip_topics=topics, skip_cameras=cameras)
                self._reading = _Trying()
                return found
            except sqlite3.Error as error:
                if self._reading.reason is None:
                    log.error("the events that wait can't be read", reason=str(error))
                self._reading.again(now, self._retry_s, str(error))
        return self._outbox.held(skip_topics=topics, skip_cameras=cameras)[:limit]

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
            self._sent_at = now
            if stored.camera not in self._ready:
                busy.add(stored.camera)
            if not passed_over:
                self._cursor = max(self._cursor, stored.row)
        return chosen

    def acknowledged(self, row: int, ack: Ack, now: float) -> None:
        """The broker has answered. Delivered rows are written by `save`."""
        stored = self._in_flight.pop(row, None)
        if stored is None:
            return
        self._suspects.discard(row)
        self._deadly.pop(row, None)
        for deadly in self._deadly.values():
            deadly.others_pass = True
        if ack.refused:
            self._refused(stored, ack.reason, now)
            return
        self._refusals.pop(stored.topic, None)
        if ack.code != NO_SUBSCRIBERS:
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

    def _hold(self, kind: Literal["camera", "topic", "row"], name: str, until: float) -> None:
        self._holds[kind, name] = until
        self._cursor = 0

    def _refused(self, stored: Stored, reason: str, now: float) -> None:
        """Hold what comes after it; its camera starts again with one event at a time."""
        refusal = self._refusals.setdefault(stored.topic, _Trying())
        if now >= refusal.until:  # else it was sent together with the one that has been counted
            refusal.again(now, self._retry_s, reason)
        if refusal.waited_s >= self._refused_for_s and stored.age_s >= self._refused_for_s:
            self._set_aside(stored.row, reason)
            return
        self._ready.discard(stored.camera)
        if refusal.waited_s < self._order_s:
            self._hold("camera", stored.camera, refusal.until)
        else:
            self._hold("topic", stored.topic, refusal.until)

    def _set_aside(self, row: int, reason: str) -> None:
        log.error("an event can't be delivered and is set aside", row=row, reason=reason)
        self._aside[row] = reason
        self.save(self._now)

    def save(self, now: float) -> None:
        """Write what has arrived to the outbox, in one transaction, and what is set aside. What the disk refuses is
        kept and written later."""
        if now < self._saving.until or not (self._arrived or self._aside):
            return
        try:
            self._outbox.delivered(self._arrived)
            self._arrived = []
            while self._aside:
                row, reason = next(iter(self._aside.items()))
                self._outbox.quarantine(row, reason)
                del self._aside[row]
        except sqlite3.Error as error:
            if self._saving.reason is None:
                log.error("what was sent can't be noted", reason=str(error))
            self._saving.again(now, self._retry_s, str(error))
        else:
            self._saving = _Trying()

    def due_in(self, now: float) -> float | None:
        """Seconds until something that is held back may go, None when nothing is."""
        later = (self._next_replay_at, self._saving.until, self._reading.until)
        times = [*self._holds.values(), *(time for time in later if time > now)]
        return max(0.0, min(times) - now) if times else None


def _outgoing(stored: Stored, replayed: bool) -> Outgoing:
    document = {**stored.document, "replayed": replayed, "age_s": round(stored.age_s, 1)}
    whole, form = (json.dumps(d, ensure_ascii=False, separators=(",", ":")) for d in (document, event_form(document)))
    return Outgoing(stored.row, stored.topic, whole, form)
