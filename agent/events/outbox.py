"""Events on disk before anything is sent: a SQLite queue that survives SIGKILL and power cuts.

`append` returns when the event is in the write-ahead log and the log is on the disk (WAL, synchronous=FULL). From
then on it is kept until it is delivered, and after that as history until `prune`. Every camera's `seq` is counted in
the same transaction, so it rises strictly over restarts and never names two documents.

The outbox is bounded: above `max_bytes` of documents it forgets history first (oldest first), then what waits, least
severe and oldest first, and counts those. A full disk is met the same way; free pages and log space are set aside at
the start, so that a disk filled by others does not stop alerts at once.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

from agent.events.model import AnyEvent
from agent.events.unstored import Unstored, UnstoredEvents
from config.errors import ConfigError

log = structlog.get_logger()

SCHEMA_VERSION = 1
_RESERVE_BYTES = 1 << 20
_LOG_PAGES = 200
_MAKE_ROOM_BYTES = 1 << 17
_UNLIMITED_PAGES = (1 << 31) - 2
_PENDING, _DELIVERED, _QUARANTINED = 0, 1, 2
_TABLES = (
    """CREATE TABLE event(
        row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, camera TEXT NOT NULL, seq INTEGER NOT NULL,
        kind TEXT NOT NULL, type TEXT NOT NULL, topic TEXT NOT NULL, severity INTEGER NOT NULL,
        document TEXT NOT NULL, bytes INTEGER NOT NULL,
        run TEXT NOT NULL, stored REAL NOT NULL, monotonic REAL NOT NULL,
        state INTEGER NOT NULL DEFAULT 0, reason TEXT, UNIQUE(camera, seq))""",
    "CREATE INDEX waiting ON event(row) WHERE state = 0",
    "CREATE INDEX least_severe ON event(severity, row) WHERE state = 0",
    "CREATE INDEX settled ON event(row) WHERE state != 0",
    "CREATE INDEX by_id ON event(id, row)",
    "CREATE TABLE camera(name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE counter(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


@dataclass(frozen=True, slots=True)
class Stored:
    """One event that waits. document: as it was accepted. age_s: since it was accepted, by the monotonic clock when
    this run accepted it. earlier_run: an earlier run of the agent accepted it."""

    row: int
    camera: str
    topic: str
    document: dict[str, Any]
    size: int
    age_s: float
    earlier_run: bool


class Outbox:
    """The queue in one file. Every method is safe from any thread; one process at a time (`StateLock`).

    Raises ConfigError when the file can't be opened or comes from a newer version. A damaged file is set aside under
    another name and `damaged` says so. Methods raise sqlite3.Error when the disk fails.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 256_000_000,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._monotonic = monotonic
        self._run = uuid.uuid4().hex
        self._lock = threading.Lock()
        self.damaged: str | None = None
        self._first_seq = 1
        self._scarce = False
        self._unstored = UnstoredEvents()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._db = self._open()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._set_aside(error)
                self._db = self._open()
            self._depth, self._bytes = self._totals()
            self._last_row = int(self._db.execute("SELECT ifnull(max(row), 0) FROM event").fetchone()[0])
            self._dropped: dict[str, int] = dict(self._db.execute("SELECT name, value FROM counter"))
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"{path}: can't open the event outbox: {error}; check events.dir") from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"{self._path}: the outbox has format {version}, this version reads up to {SCHEMA_VERSION}; "
                    "run the newer version that wrote it, or give another events.dir"
                )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            if version == 0:
                with _transaction(db):
                    for statement in _TABLES:
                        db.execute(statement)
            _set_space_aside(db)
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Keep a damaged file for whoever wants to look, and number on from the clock: above anything it held."""
        stamp = int(self._clock())
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                part.replace(self._path.with_name(f"{self._path.name}.damaged-{stamp}{suffix}"))
        self._first_seq = stamp
        self.damaged = f"the outbox was damaged ({error}) and set aside as {self._path.name}.damaged-{stamp}"
        log.error("outbox damaged, set aside", file=str(self._path), reason=str(error))

    def _totals(self) -> tuple[int, int]:
        depth, size = self._db.execute("SELECT count(*) FILTER (WHERE state = 0), total(bytes) FROM event").fetchone()
        return int(depth), int(size)

    @property
    def depth(self) -> int:
        """Events that wait to be delivered. Never waits for the disk."""
        return self._depth

    @property
    def dropped(self) -> dict[str, int]:
        """What will never be delivered, by cause (`full`, `refused`), over all runs. Never waits for the disk."""
        return dict(self._dropped)

    def oldest(self, timeout_s: float = 1.0) -> float | None:
        """When the oldest event that waits was accepted, seconds since 1970; None when none waits, or when the disk
        keeps us waiting for longer."""
        if not self._depth or not self._lock.acquire(timeout=timeout_s):
            return None
        try:
            found = self._db.execute("SELECT stored FROM event WHERE state = 0 ORDER BY row LIMIT 1").fetchone()
        except sqlite3.Error:  # closed, or damaged: others tell
            return None
        finally:
            self._lock.release()
        return None if found is None else float(found[0])

    def append(self, event: AnyEvent, topic: str) -> AnyEvent:
        """Number and keep an event; returns it with its `seq`, once it is on the disk."""
        with self._lock:
            self._watch_disk()
            try:
                return self._append(event, topic)
            except sqlite3.OperationalError as error:
                if "full" not in str(error):
                    raise
                with _transaction(self._db):
                    self._forget(_MAKE_ROOM_BYTES)
                self._recount()
                return self._append(event, topic)

    def _watch_disk(self) -> None:
        """On a nearly full disk the file must not grow: what can't be copied from the log into it would fill the log,
        and then not even room could be made."""
        disk = os.statvfs(self._path.parent)
        scarce = disk.f_bavail * disk.f_frsize < 2 * _RESERVE_BYTES
        if scarce != self._scarce:
            self._scarce = scarce
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            pages = int(self._db.execute("PRAGMA page_count").fetchone()[0]) if scarce else _UNLIMITED_PAGES
            self._db.execute(f"PRAGMA max_page_count = {pages}")

    def _append(self, event: AnyEvent, topic: str) -> AnyEvent:
        with _transaction(self._db):
            (seq,) = self._db.execute(
                "INSERT INTO camera VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET seq = seq + 1 RETURNING seq",
                (event.camera, self._first_seq),
            ).fetchone()
            event = event.model_copy(update={"seq": seq})
            document = event.model_dump_json()
            size = len(document.encode())
            added = self._db.execute(
                "INSERT INTO event(id, camera, seq, kind, type, topic, severity,"
                " document, bytes, run, stored, monotonic) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(event.id, event.camera, seq, event.kind, event.type.value, topic, event.severity.rank),
                    *(document, size, self._run, self._clock(), self._monotonic()),
                ),
            )
            excess = self._bytes + size - self._max_bytes
            if excess > 0:
                self._forget(excess)
        self._last_row = added.lastrowid or self._last_row
        if excess > 0:
            self._recount()
        else:
            self._depth += 1
            self._bytes += size
        return event

    def hold(self, event: AnyEvent, topic: str) -> None:
        """Keep in memory what `append` could not keep: it is told to a broker that is there, and gone with this run."""
        self._unstored.put(event, topic, after=self._last_row, monotonic=self._monotonic())

    def _forget(self, size: int) -> None:
        """Delete about `size` bytes of documents: history, then what waits by severity and age. In a transaction."""
        for condition, order in (("state != 0", "row"), ("state = 0", "severity, row")):
            rows = []
            for row, row_size in self._db.execute(f"SELECT row, bytes FROM event WHERE {condition} ORDER BY {order}"):
                if size <= 0:
                    break
                rows.append((row,))
                size -= row_size
            self._db.executemany("DELETE FROM event WHERE row = ?", rows)
            if condition == "state = 0" and rows:
                self._count("full", len(rows))

    def _count(self, cause: str, more: int) -> None:
        self._db.execute(
            "INSERT INTO counter VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = value + ?2", (cause, more)
        )

    def _recount(self) -> None:
        self._depth, self._bytes = self._totals()
        self._dropped = dict(self._db.execute("SELECT name, value FROM counter"))

    def pending(
        self,
        limit: int,
        *,
        after: int = 0,
        skip_topics: Sequence[str] = (),
        skip_cameras: Sequence[str] = (),
    ) -> list[Stored]:
        """The oldest events that wait, in the order of acceptance, from row `after` on; among them what `hold` keeps
        (its rows are below 0)."""
        query = (
            "SELECT row, camera, topic, document, bytes, run, stored, monotonic FROM event"
            f" WHERE state = 0 AND row > ? AND topic NOT IN ({','.join('?' * len(skip_topics))})"
            f" AND camera NOT IN ({','.join('?' * len(skip_cameras))}) ORDER BY row LIMIT ?"
        )
        with self._lock:
            found = self._db.execute(query, (after, *skip_topics, *skip_cameras, limit)).fetchall()
        now, monotonic = self._clock(), self._monotonic()
        kept = [
            Stored(
                row=row,
                camera=camera,
                topic=topic,
                document=json.loads(document),
                size=size,
                age_s=max(0.0, monotonic - then if run == self._run else now - stored),
                earlier_run=run != self._run,
            )
            for row, camera, topic, document, size, run, stored, then in found
        ]
        unstored = self._unstored.waiting(skip_topics, skip_cameras)
        ordered = [((s.row, 0), s) for s in kept] + [((u.after, -u.row), self._as_stored(u)) for u in unstored]
        return [s for _, s in sorted(ordered, key=lambda pair: pair[0])][:limit]

    def held(self, *, skip_topics: Sequence[str] = (), skip_cameras: Sequence[str] = ()) -> list[Stored]:
        """What `hold` keeps. Never touches the disk."""
        return [self._as_stored(unstored) for unstored in self._unstored.waiting(skip_topics, skip_cameras)]

    def _as_stored(self, unstored: Unstored) -> Stored:
        document = unstored.event.model_dump(mode="json")
        return Stored(
            row=unstored.row,
            camera=unstored.event.camera,
            topic=unstored.topic,
            document=document,
            size=len(json.dumps(document, ensure_ascii=False).encode()),
            age_s=max(0.0, self._monotonic() - unstored.monotonic),
            earlier_run=False,
        )

    def delivered(self, rows: Sequence[int]) -> None:
        """These have arrived. Rows that are gone or settled are passed over."""
        self._settle(rows, _DELIVERED, None)

    def quarantine(self, row: int, reason: str) -> None:
        """This one will not be sent again; it is counted and stays in the history with its reason."""
        self._settle([row], _QUARANTINED, reason)

    def _settle(self, rows: Sequence[int], state: int, reason: str | None) -> None:
        self._unstored.discard(rows)
        rows = [row for row in rows if row > 0]
        if not rows:
            return
        with self._lock:
            with _unsynced(self._db), _transaction(self._db):
                changed = sum(
                    self._db.execute(
                        "UPDATE event SET state = ?, reason = ? WHERE row = ? AND state = 0", (state, reason, row)
                    ).rowcount
                    for row in rows
                )
                if state == _QUARANTINED and changed:
                    self._count("refused", changed)
            self._depth -= changed
            if state == _QUARANTINED and changed:
                self._dropped["refused"] = self._dropped.get("refused", 0) + changed

    def prune(self, days: float) -> int:
        """Forget history older than that; what waits stays. Returns how many were forgotten."""
        with self._lock:
            with _transaction(self._db):
                gone = self._db.execute(
                    "DELETE FROM event WHERE state != 0 AND stored < ?", (self._clock() - days * 86400.0,)
                ).rowcount
            self._recount()
        return gone

    def interrupted(self, kinds: Sequence[str]) -> list[dict[str, Any]]:
        """The last telling of every event of these kinds that an earlier run began and did not end, and of every event
        that still waits for a part."""
        query = (
            "SELECT document FROM event e WHERE run != ? AND"
            f" ((type != 'end' AND kind IN ({','.join('?' * len(kinds))})) OR instr(document, '\"pending\":[]') = 0)"
            " AND NOT EXISTS (SELECT 1 FROM event later WHERE later.id = e.id AND later.row > e.row) ORDER BY row"
        )
        with self._lock:
            return [json.loads(document) for (document,) in self._db.execute(query, (self._run, *kinds))]

    def close(self) -> None:
        """Give the file back. A second call does nothing."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, taking the write lock at the start."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def _unsynced(db: sqlite3.Connection) -> Iterator[None]:
    """Don't wait for the disk: what a power cut can take back here is that an event was sent, so it is sent again."""
    db.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        db.execute("PRAGMA synchronous = FULL")


def _set_space_aside(db: sqlite3.Connection) -> None:
    """Leave free pages in the file and a log longer than it ever needs to be: later writes use these before they need
    the disk's own."""
    try:
        db.execute("CREATE TABLE IF NOT EXISTS reserve(filler BLOB)")
        db.execute("INSERT INTO reserve VALUES(zeroblob(?))", (_RESERVE_BYTES,))
        db.execute("PRAGMA wal_checkpoint(RESTART)")
        db.execute("DELETE FROM reserve")
        db.execute("PRAGMA wal_checkpoint(RESTART)")
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        log.warning("no space can be set aside for events: the disk is full")
