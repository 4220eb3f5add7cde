"""The book of events: what the daemon tells, numbered, kept and handed on.

`publish` and `update` cost the caller some hundred microseconds and never touch the disk: they hand a finished telling
to the book's own thread. That thread writes the picture, then the outbox, then tells the sinks and wakes the MQTT
link, in the order of the calls. An event is safe once the outbox has taken it, which `flush` waits for; a crash before
that (a few milliseconds, longer on a slow disk) loses it. The way to the thread is bounded: when the disk hangs,
tellings beyond `capacity` and pictures beyond `max_pictures` are given up and counted, not held in memory without end.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import ValidationError

from agent.events.media import prune_media, save_snapshot
from agent.events.model import EVENT, AnyEvent, AnyNews, EventType, Media, event, new_id
from agent.events.outbox import Outbox
from agent.events.sinks import Sink

log = structlog.get_logger()
T = TypeVar("T")

_REMEMBERED = 1024
_PRUNE_EVERY_S = 3600.0
_WITH_AN_END = ("anomaly", "health")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long history and pictures are kept: whichever limit is met first."""

    days: float = 14.0
    media_bytes: int = 5 * 10**9


@dataclass(frozen=True, slots=True)
class _Told:
    event: AnyEvent
    picture: NDArray[np.uint8] | None


class EventBook:
    """Takes news from any thread. `topic_of` names an event's topic; `stored` is called (from the book's thread) after
    each telling that the outbox has taken. folder: where `snapshots/` is made, None = no pictures."""

    def __init__(
        self,
        device: str,
        outbox: Outbox,
        *,
        topic_of: Callable[[AnyEvent], str],
        folder: Path | None = None,
        sinks: Sequence[Sink] = (),
        stored: Callable[[AnyEvent], None] = lambda _event: None,
        retention: Retention | None = None,
        capacity: int = 4096,
        max_pictures: int = 8,
        utc: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._device = device
        self._outbox = outbox
        self._topic_of = topic_of
        self._folder = folder
        self._sinks = tuple(sinks)
        self._stored = stored
        self._retention = retention or Retention()
        self._utc = utc
        self._queue: queue.Queue[_Told | None] = queue.Queue(capacity)
        self._pictures = threading.Semaphore(max_pictures)
        self._lock = threading.Lock()
        self._told: OrderedDict[str, AnyEvent] = OrderedDict()
        self._pictured: OrderedDict[str, tuple[str | None, tuple[str, ...]]] = OrderedDict()
        self._dropped: Counter[str] = Counter()
        self._trouble: str | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> dict[str, int]:
        """Tellings that never reached the outbox, by cause: `queue` (the disk hangs), `disk` (it refuses)."""
        return dict(self._dropped)

    @property
    def trouble(self) -> str | None:
        """Why events are not kept at this moment, None when they are."""
        return self._trouble

    def publish(self, news: AnyNews, *, snapshot: NDArray[np.uint8] | None = None) -> str:
        """Tell something new; returns the event's id. snapshot: uint8 RGB (H, W, 3), never written to afterwards."""
        telling = event(news, event_id=new_id(), type=EventType.NEW, ts=self._utc(), device=self._device)
        with self._lock:
            self._tell(telling, snapshot)
        return telling.id

    def update(
        self, event_id: str, *, end: bool = False, snapshot: NDArray[np.uint8] | None = None, **changes: object
    ) -> bool:
        """Tell an event again, whole, with these fields of its `News` changed; `end` says that it is over, and what
        comes after that (words that took longer than the event) is told as `end` again. Returns False when this run
        does not remember the event (the last 1,024 are remembered). Raises pydantic's ValidationError on a wrong
        field."""
        with self._lock:
            before = self._told.get(event_id)
            if before is None:
                return False
            if "regions" in changes:
                regions = changes["regions"]
                changes["region"] = regions[0] if isinstance(regions, Sequence) and regions else None
            kind = EventType.END if end or before.type is EventType.END else EventType.UPDATE
            after = EVENT.validate_python({**dict(before), **changes, "type": kind, "ts": self._utc()})
            self._tell(after, snapshot)
        return True

    def end_interrupted(self) -> int:
        """End the anomalies and health events that an earlier run began and did not live to end; returns how many.
        Call once, before anything is published."""
        ended = 0
        for document in self._outbox.interrupted(_WITH_AN_END):
            try:
                last = EVENT.validate_python(document)
            except ValidationError:
                log.warning("an event of an earlier version can't be ended", id=document.get("id"))
                continue
            notes = (*last.degraded, "the agent was stopped before this ended")
            changes = {"type": EventType.END, "ts": self._utc(), "pending": (), "degraded": notes}
            with self._lock:
                self._tell(last.model_copy(update=changes), None)
            ended += 1
        return ended

    def _tell(self, telling: AnyEvent, picture: NDArray[np.uint8] | None) -> None:
        """Hand one telling to the thread. With the lock held, so that no two overtake each other."""
        if self._folder is None:
            picture = None
        if picture is not None and not self._pictures.acquire(blocking=False):
            picture = None
            telling = telling.model_copy(update={"degraded": (*telling.degraded, "no snapshot: the disk is behind")})
        if self._closed or self._queue.full():
            self._dropped["queue"] += 1
            if picture is not None:
                self._pictures.release()
            return
        self._queue.put_nowait(_Told(telling, picture))
        _remember(self._told, telling.id, telling)

    def _run(self) -> None:
        prune_at = 0.0
        while True:
            try:
                told = self._queue.get(timeout=60.0)
            except queue.Empty:
                told = None
            else:
                try:
                    if told is None:
                        return
                    self._write(told)
                except Exception:  # one event must not end the telling of all others
                    self._dropped["error"] += 1
                    log.exception("an event could not be told")
                finally:
                    self._queue.task_done()
            if time.monotonic() >= prune_at:
                prune_at = time.monotonic() + _PRUNE_EVERY_S
                self._prune()

    def _write(self, told: _Told) -> None:
        telling = told.event
        if told.picture is not None:
            _remember(self._pictured, telling.id, self._picture(telling, told.picture))
        path, notes = self._pictured.get(telling.id, (None, ()))
        telling = telling.model_copy(update={"media": Media(snapshot=path), "degraded": (*telling.degraded, *notes)})
        topic = self._topic_of(telling)
        try:
            telling = self._outbox.append(telling, topic)
        except (sqlite3.Error, OSError) as error:
            self._dropped["disk"] += 1
            if self._trouble is None:
                log.error("events can't be kept", reason=str(error))
            self._trouble = f"events can't be kept: {error}"
            telling = telling.model_copy(update={"degraded": (*telling.degraded, f"not kept: {error}")})
        else:
            self._trouble = None
        for sink in self._sinks:
            sink.append(topic, telling)
        if telling.seq:
            self._stored(telling)

    def _picture(self, telling: AnyEvent, picture: NDArray[np.uint8]) -> tuple[str | None, tuple[str, ...]]:
        """Where the snapshot is, or why there is none."""
        assert self._folder is not None
        try:
            return save_snapshot(self._folder, telling.id, picture, telling.regions), ()
        except OSError as error:
            return None, (f"no snapshot: {error.strerror or error}",)
        finally:
            self._pictures.release()

    def _prune(self) -> None:
        try:
            self._outbox.prune(self._retention.days)
            if self._folder is not None:
                prune_media(self._folder, days=self._retention.days, max_bytes=self._retention.media_bytes)
        except (OSError, sqlite3.Error) as error:
            log.warning("old events can't be removed", reason=str(error))

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything told so far is written; False when time ran out."""
        deadline = time.monotonic() + timeout_s
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks:
                if not self._queue.all_tasks_done.wait(max(0.0, deadline - time.monotonic())):
                    return not self._queue.unfinished_tasks
        return True

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what was told, then stop; False when the disk did not let it finish in time. A second call does
        nothing. Outbox and sinks stay open: their owner closes them."""
        with self._lock:
            first, self._closed = not self._closed, True
        if not first:
            return not self._thread.is_alive()
        written = self.flush(timeout_s)
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return False
        self._thread.join(timeout=0.5)
        return written

    def __enter__(self) -> EventBook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _remember(memory: OrderedDict[str, T], key: str, value: T) -> None:
    """Put it last; forget the first beyond the limit."""
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)
