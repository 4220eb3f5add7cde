"""The book of events: what the daemon tells, numbered, kept and handed on.

`publish` and `update` cost the caller some hundred microseconds and never touch the disk: they hand a finished telling
to the book's own thread. That thread writes the outbox, then tells the sinks and wakes the MQTT link, in the order of
the calls. An event is safe once the outbox has taken it, which `flush` waits for; a crash before that (a few
milliseconds, longer on a slow disk) loses it. What the disk refuses is told all the same, as not kept. The way to the
thread is bounded: when the disk hangs, tellings beyond `capacity` are given up and counted, not held in memory without
end.

An event is told in steps: at once with what is known, `pending` naming what will follow (`text`, `snapshot`, `clip`),
then again as each part comes. A part that has not come by its deadline is given up, in an update that says so.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from types import TracebackType

import structlog
from pydantic import ValidationError

from agent.events.model import EVENT, AnyEvent, AnyNews, EventType, Media, event, made_at_s, new_id
from agent.events.outbox import Outbox
from agent.events.sinks import Sink
from agent.service.progress import Beat

log = structlog.get_logger()

_REMEMBERED = 1024
_PRUNE_EVERY_S = 3600.0
_LOOK_EVERY_S = 0.5
_WITH_AN_END = ("anomaly", "rule", "health")


class EventBook:
    """Takes news from any thread. `topic_of` names an event's topic; `stored` is called (from the book's thread) after
    each telling that the outbox has taken, or holds in memory because the disk refuses. days: how long delivered events
    are kept as history. beat: the heart of the book's thread."""

    def __init__(
        self,
        device: str,
        outbox: Outbox,
        *,
        topic_of: Callable[[AnyEvent], str],
        sinks: Sequence[Sink] = (),
        stored: Callable[[AnyEvent], None] = lambda _event: None,
        days: float = 14.0,
        capacity: int = 4096,
        monotonic: Callable[[], float] = time.monotonic,
        utc: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        beat: Beat | None = None,
    ) -> None:
        self._device = device
        self._beat = beat or Beat("events")
        self._writing: AnyEvent | None = None
        self._outbox = outbox
        self._topic_of = topic_of
        self._sinks = tuple(sinks)
        self._stored = stored
        self._days = days
        self._utc, self._monotonic = utc, monotonic
        self._queue: queue.Queue[AnyEvent | None] = queue.Queue(capacity)
        self._lock = threading.Lock()
        self._told: OrderedDict[str, AnyEvent] = OrderedDict()
        self._due: dict[tuple[str, str], tuple[float, float]] = {}  # (event, part) → when it is due, seconds it had
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

    def publish(self, news: AnyNews, *, within: Mapping[str, float] | None = None) -> str:
        """Tell something new; returns the event's id. within: seconds that each part named in `pending` may take."""
        telling = event(news, event_id=new_id(), type=EventType.NEW, ts=self._utc(), device=self._device)
        now = self._monotonic()
        with self._lock:
            self._tell(telling)
            self._due |= {(telling.id, part): (now + seconds, seconds) for part, seconds in (within or {}).items()}
        return telling.id

    def update(
        self,
        event_id: str,
        *,
        end: bool = False,
        done: Sequence[str] = (),
        media: Media | None = None,
        notes: Sequence[str] = (),
        **changes: object,
    ) -> bool:
        """Tell an event again, whole, with these fields of its `News` changed; `end` says that it is over, and what
        comes after that (words that took longer than the event) is told as `end` again. done: parts that are pending no
        longer. media: files that there are now, beside those there were. notes: sentences to add to `degraded`.

        Returns False when it is not told: this run does not remember the event (the last 1,024 are remembered), or the
        way to the outbox is full. Raises pydantic's ValidationError on a wrong field.
        """
        with self._lock:
            before = self._told.get(event_id)
            if before is None:
                return False
            if "regions" in changes:
                regions = changes["regions"]
                changes["region"] = regions[0] if isinstance(regions, Sequence) and regions else None
            if done:
                changes["pending"] = tuple(part for part in before.pending if part not in done)
            if media is not None:
                changes["media"] = before.media.with_files_of(media)
            changes["degraded"] = (
                *(note for note in before.degraded if not _overtaken(note, done if media or "text" in changes else ())),
                *(note for note in notes if note not in before.degraded),
            )
            if end:
                changes.setdefault("duration_s", max(0.0, round(self._utc().timestamp() - made_at_s(event_id), 3)))
            kind = EventType.END if end or before.type is EventType.END else EventType.UPDATE
            after = EVENT.validate_python({**dict(before), **changes, "type": kind, "ts": self._utc()})
            if not self._tell(after):
                return False
            for part in set(before.pending) - set(after.pending):
                self._due.pop((event_id, part), None)
        return True

    def recall(self, event_id: str) -> AnyEvent | None:
        """What was told last of an event that this run remembers."""
        with self._lock:
            return self._told.get(event_id)

    def remembered(self) -> list[AnyEvent]:
        """What was told last of each event that this run remembers, the longest untold first."""
        with self._lock:
            return list(self._told.values())

    def settle(self, reason: str) -> None:
        """Give up every part that is still pending: nothing more will come."""
        for telling in self.remembered():
            self._give_up(telling.id, None, reason)

    def end_interrupted(self) -> int:
        """End the alerts and health events that an earlier run began and did not live to end, and what waits for
        parts that will not come any more; returns how many. Call once, before anything is published."""
        ended = 0
        for document in self._outbox.interrupted(_WITH_AN_END):
            try:
                last = EVENT.validate_python(document)
            except ValidationError:
                log.warning("an event of an earlier version can't be ended", id=document.get("id"))
                continue
            over = last.kind in _WITH_AN_END or last.type is EventType.END
            missing = [f"no {part}: the agent was stopped" for part in last.pending]
            stopped = ["the agent was stopped before this ended"] if over and last.type is not EventType.END else []
            changes = {
                "type": EventType.END if over else EventType.UPDATE,
                "ts": self._utc(),
                "pending": (),
                "degraded": (*last.degraded, *stopped, *missing),
            }
            with self._lock:
                self._tell(last.model_copy(update=changes))
            ended += 1
        return ended

    def _tell(self, telling: AnyEvent) -> bool:
        """Hand one telling to the thread; False when it had to be dropped. With the lock held, so that no two overtake
        each other."""
        if self._closed or self._queue.full():
            self._dropped["queue"] += 1
            return False
        self._queue.put_nowait(telling)
        self._told[telling.id] = telling
        self._told.move_to_end(telling.id)
        if len(self._told) > _REMEMBERED:
            forgotten, _ = self._told.popitem(last=False)
            self._due = {key: due for key, due in self._due.items() if key[0] != forgotten}
        return True

    @property
    def loop(self) -> str:
        """Name of the thread's heart."""
        return self._beat.name

    def unwritten(self) -> list[tuple[str, AnyEvent]]:
        """Topic and event of what the outbox has not taken yet, in order; for who saves it when the thread hangs."""
        with self._queue.mutex:
            writing = self._writing
            waiting = [telling for telling in self._queue.queue if telling is not None and telling is not writing]
        tellings = waiting if writing is None else [writing, *waiting]
        return [(self._topic_of(telling), telling) for telling in tellings]

    def _run(self) -> None:
        prune_at = 0.0
        while True:
            self._beat.idle()
            try:
                told = self._queue.get(timeout=_LOOK_EVERY_S if self._due else 60.0)
            except queue.Empty:
                told = None
                self._beat.beat()
            else:
                self._beat.beat()
                try:
                    if told is None:
                        self._beat.idle()
                        return
                    self._writing = told
                    self._write(told)
                except Exception:  # one event must not end the telling of all others
                    self._dropped["error"] += 1
                    log.exception("an event could not be told")
                finally:
                    self._writing = None
                    self._queue.task_done()
            try:
                self._expire()
            except Exception:  # nor must a part that can't be given up
                log.exception("parts that are overdue could not be given up")
            if time.monotonic() >= prune_at:
                prune_at = time.monotonic() + _PRUNE_EVERY_S
                self._prune()

    def _expire(self) -> None:
        """Give up what is overdue; what could not be told, because the queue was full, is tried again."""
        now = self._monotonic()
        with self._lock:
            overdue = [(key, had_s) for key, (due, had_s) in self._due.items() if due <= now]
        for (event_id, part), had_s in overdue:
            if self._give_up(event_id, part, f"it took longer than {had_s:g} s"):
                with self._lock:
                    self._due.pop((event_id, part), None)

    def _give_up(self, event_id: str, part: str | None, reason: str) -> bool:
        """Whether that is settled: told, or nothing to tell."""
        telling = self.recall(event_id)
        parts = () if telling is None else tuple(p for p in telling.pending if part in (None, p))
        return not parts or self.update(event_id, done=parts, notes=[f"no {p}: {reason}" for p in parts])

    def _write(self, telling: AnyEvent) -> None:
        topic = self._topic_of(telling)
        try:
            telling = self._outbox.append(telling, topic)
        except (sqlite3.Error, OSError) as error:
            self._dropped["disk"] += 1
            if self._trouble is None:
                log.error("events can't be kept", reason=str(error))
            self._trouble = f"events can't be kept: {error}"
            telling = telling.model_copy(update={"degraded": (*telling.degraded, f"not kept: {error}")})
            self._outbox.hold(telling, topic)
        else:
            self._trouble = None
        for sink in self._sinks:
            sink.append(topic, telling)
        self._stored(telling)

    def _prune(self) -> None:
        try:
            self._outbox.prune(self._days)
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


def _overtaken(note: str, came: Sequence[str]) -> bool:
    """A part that was given up has come after all."""
    return any(note.startswith(f"no {part}: it took longer") for part in came)
