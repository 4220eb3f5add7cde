"""The thread that writes pictures and clips beside events, and keeps them within their limits.

An event is told before any of this begins; each part is told as an update when it is on the disk, or that it will not
come and why. Nothing that goes wrong here costs an event.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.events.model import Box, Media, Severity, new_id
from agent.evidence.clip import write_clip
from agent.evidence.files import CLIPS, SNAPSHOTS, Shelf
from agent.evidence.ring import ClipSpan, Footage, NoFootage, PacketRing
from agent.evidence.snapshot import outlined, write_jpeg
from agent.service.progress import Beat

log = structlog.get_logger()

SNAPSHOT, CLIP = "snapshot", "clip"
_LEFT_FREE = 64_000_000
"""Bytes of the disk that media leave to what matters more: the events themselves."""
_PRUNE_EVERY_S = 3600.0


class Completed(Protocol):
    """Tells an event again: `done` is no longer pending, `media` are there now, `notes` say what is missing."""

    def __call__(
        self, event_id: str, *, done: Sequence[str], media: Media | None = None, notes: Sequence[str] = ()
    ) -> object: ...


@dataclass(frozen=True, slots=True)
class _Job:
    """One part of one event that is to be written. `write` returns what there is then; raises when there is nothing.
    `show` comes before it."""

    event_id: str
    part: str
    severity: Severity
    size: int
    write: Callable[[], tuple[Media, tuple[str, ...]]]
    show: Callable[[], None] = lambda: None


class Archive:
    """Takes pictures and footage from any thread, and never makes one wait.

    folder: where `snapshots/` and `clips/` are made. days, max_bytes: what is older goes, then the least severe and
    oldest until the others fit. waiting: pictures and clips that may wait for the disk; one more is given up.
    show: called, from its thread, with an event's id and its picture with the regions outlined, uint8 RGB (H, W, 3),
    whether or not the disk takes it. beat: the heart of the thread.
    """

    def __init__(
        self,
        folder: Path,
        completed: Completed,
        *,
        days: float = 14.0,
        max_bytes: int = 5 * 10**9,
        waiting: int = 8,
        left_free: int = _LEFT_FREE,
        show: Callable[[str, NDArray[np.uint8]], None] = lambda _id, _image: None,
        clock: Callable[[], float] = time.time,
        beat: Beat | None = None,
    ) -> None:
        self._beat = beat or Beat("evidence")
        self._shelf = Shelf(folder)
        self._completed = completed
        self._days, self._max_bytes, self._waiting, self._left_free = days, max_bytes, waiting, left_free
        self._clock, self._show = clock, show
        self._pictures: deque[_Job] = deque()
        self._clips: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self._bytes = 0
        self._prune_at = 0.0
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why events have no pictures or clips at this moment, None when they have."""
        return self._trouble

    def snapshot(
        self, event_id: str, image: NDArray[np.uint8], regions: Sequence[Box], severity: Severity = Severity.INFO
    ) -> None:
        """Keep uint8 RGB (H, W, 3), never written to afterwards, as it is and with the regions outlined."""
        clean = self._shelf.path(SNAPSHOTS, severity, f"{event_id}.clean.jpg")
        drawn = self._shelf.path(SNAPSHOTS, severity, f"{event_id}.jpg")

        def show() -> None:
            self._show(event_id, outlined(image, regions))

        def write() -> tuple[Media, tuple[str, ...]]:
            self._bytes += write_jpeg(drawn, outlined(image, regions))
            self._bytes += write_jpeg(clean, image)
            return Media(snapshot=self._shelf.relative(drawn), clean=self._shelf.relative(clean)), ()

        self._queue(self._pictures, _Job(event_id, SNAPSHOT, severity, image.size // 4, write, show))

    def picture(self, image: NDArray[np.uint8]) -> str:
        """Write uint8 RGB (H, W, 3) that somebody asked for, in the thread that asks; returns its path under the
        folder. Raises OSError."""
        path = self._shelf.path(SNAPSHOTS, Severity.INFO, f"{new_id()}.asked.jpg")
        self._make_room(image.size // 4, Severity.INFO)
        self._bytes += write_jpeg(path, image)
        return self._shelf.relative(path)

    def clip(self, event_id: str, ring: PacketRing, at_ns: int, span: ClipSpan, severity: Severity) -> None:
        """Have a clip made around the frame of that moment (monotonic ns)."""

        def taken(footage: Footage | NoFootage) -> None:
            if isinstance(footage, NoFootage):
                self._completed(event_id, done=(CLIP,), notes=(f"no clip: {footage}",))
            else:
                self._keep(event_id, footage, severity)

        ring.take(at_ns, span.pre_s, span.post_s, taken)

    def _keep(self, event_id: str, footage: Footage, severity: Severity) -> None:
        path = self._shelf.path(CLIPS, severity, f"{event_id}.{footage.stream.suffix}")

        def write() -> tuple[Media, tuple[str, ...]]:
            self._bytes += write_clip(path, footage)
            return Media(clip=self._shelf.relative(path), clip_at_s=round(footage.at_s, 3)), footage.notes

        size = sum(len(packet.data) for packet in footage.packets)
        self._queue(self._clips, _Job(event_id, CLIP, severity, size, write))

    def _queue(self, jobs: deque[_Job], job: _Job) -> None:
        with self._changed:
            refused = "the agent was stopping" if self._closed else None
            if len(jobs) >= self._waiting:
                refused = "the disk is behind"
            if refused is None:
                jobs.append(job)
                self._changed.notify_all()
        if refused is not None:
            self._completed(job.event_id, done=(job.part,), notes=(f"no {job.part}: {refused}",))

    def finish(self, timeout_s: float) -> bool:
        """Wait until all that was taken is written; False when that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._pictures or self._clips or self._busy), timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what waits, as far as time allows, then stop; False when something was left. A second call does
        nothing."""
        written = self.finish(timeout_s)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=0.5)
        return written

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        self._tidy(first=True)
        while True:
            self._beat.idle()
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._pictures or self._clips or self._closed, _PRUNE_EVERY_S)
                waiting = self._pictures or self._clips  # pictures first: they are small, and looked at first
                if not waiting and self._closed:
                    return
                job = waiting.popleft() if waiting else None
                self._busy = job is not None
            self._beat.beat()
            if job is not None:
                self._do(job)
            if self._bytes > self._max_bytes or self._clock() >= self._prune_at:
                self._tidy()

    def _do(self, job: _Job) -> None:
        media: Media | None = None
        notes: tuple[str, ...] = ()
        try:
            job.show()
        except Exception:  # whoever looks on must not cost the event its picture
            log.exception("a picture could not be shown", id=job.event_id)
        try:
            self._make_room(job.size, job.severity)
            media, notes = job.write()
            self._trouble = None
        except OSError as error:
            reason = error.strerror or str(error)
            notes = (f"no {job.part}: {reason}",)
            if self._trouble is None:
                log.error("pictures and clips can't be kept", reason=reason)
            self._trouble = f"pictures and clips can't be kept: {reason}"
        except Exception as error:  # one file must not end the keeping of all others
            log.exception("a part of an event could not be written", part=job.part, id=job.event_id)
            notes = (f"no {job.part}: {error}",)
        try:
            self._completed(job.event_id, done=(job.part,), media=media, notes=notes)
        except Exception:
            log.exception("a part of an event could not be told", part=job.part, id=job.event_id)

    def _make_room(self, size: int, severity: Severity) -> None:
        """Raises OSError when the disk is too full for a file of this size even without what is worth less."""
        wanted = size + self._left_free - self._shelf.free()
        if wanted <= 0:
            return
        self._bytes -= self._shelf.make_room(wanted, severity)
        if self._shelf.free() < size + self._left_free:
            raise OSError(errno.ENOSPC, f"the disk is full ({self._shelf.free() // 10**6} MB free)")

    def _tidy(self, *, first: bool = False) -> None:
        try:
            if first:
                self._shelf.clear_unfinished()
            now_s = self._clock()
            self._prune_at = now_s + _PRUNE_EVERY_S
            self._bytes = self._shelf.prune(older_than_s=now_s - self._days * 86400.0, max_bytes=self._max_bytes)
        except OSError as error:
            log.warning("old pictures and clips can't be removed", reason=str(error))
