"""A program that writes to an outbox and is killed: at every statement in turn, then at random moments.

    python events_crashing.py FOLDER SEED

What was promised is noted in FOLDER/*/notes by single unbuffered writes, one line each; the lines of the outbox's code
that it died at in FOLDER/sites. FOLDER/small holds an outbox that is always full.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from agent.events import outbox
from agent.events.model import AnyEvent, EventType, SemanticChange, Severity, event, new_id
from agent.events.outbox import Outbox

FULL = 6000
"""Bytes that the small outbox may hold."""

_steps_left: int | None = None
_sites = -1


def _step() -> None:
    global _steps_left
    if _steps_left is not None:
        _steps_left -= 1
        if _steps_left < 0:
            os.write(_sites, f"{sys._getframe(2).f_lineno}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)


class MortalConnection(sqlite3.Connection):
    """Dies before one of its statements, which is after the one before it."""

    def execute(self, *args: Any) -> sqlite3.Cursor:
        _step()
        return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        _step()
        return super().executemany(*args)


_connect = sqlite3.connect


def _mortal(*args: Any, **kwargs: Any) -> sqlite3.Connection:
    return _connect(*args, **kwargs, factory=MortalConnection)


def telling(n: int, severity: Severity, text: str = "") -> AnyEvent:
    news = SemanticChange(camera=("front", "yard")[n % 2], distance=0.1, severity=severity, text=text)
    return event(news, event_id=new_id(), type=EventType.NEW, ts=datetime.now(timezone.utc), device="box")


class Notes:
    """Of one outbox. What is tried is noted before, what was done after: a crash between leaves both possible."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True, parents=True)
        self._file = os.open(folder / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, word: str, event: dict[str, Any]) -> None:
        line = f"{word} {event['id']} {event['camera']} {event['seq']} {event['severity']}\n"
        os.write(self._file, line.encode())


def write(folder: Path, appends: int) -> None:
    """Append, deliver, refuse, set aside and forget in turn."""
    notes = Notes(folder)
    with Outbox(folder / "outbox.db") as box:
        for n in range(appends):
            told = telling(n, Severity.INFO)
            notes.note("trying", told.model_dump(mode="json"))
            notes.note("accepted", box.append(told, "t").model_dump(mode="json"))
            if n % 4 == 3:
                first, second = box.pending(2)
                notes.note("settled", first.document)
                box.delivered([first.row])
                if n % 8 == 3:
                    notes.note("settled", second.document)
                    box.quarantine(second.row, "no")
                box.interrupted(["semantic_change"])
                box.prune(0.0)
                box.oldest()


def overfill(folder: Path, appends: int) -> None:
    """Append far more than there is room for; what matters is little."""
    notes = Notes(folder)
    with Outbox(folder / "outbox.db", max_bytes=FULL) as box:
        for n in range(appends):
            waiting = box.pending(10)
            matters = not any(stored.document["severity"] == "high" for stored in waiting)
            told = telling(n, Severity.HIGH if matters else Severity.INFO, "x" * 1500)
            notes.note("trying", told.model_dump(mode="json"))
            notes.note("accepted", box.append(told, "t").model_dump(mode="json"))


Work = Callable[[Path, int], None]


def in_child(work: Work, folder: Path, appends: int, steps: int | None) -> int:
    """Fork, work, die; returns the pid."""
    pid = os.fork()
    if pid == 0:
        global _steps_left
        _steps_left = steps
        try:
            work(folder, appends)
        finally:
            os._exit(0)
    return pid


def at_every_statement(work: Work, folder: Path, appends: int, *, anew: bool = False) -> int:
    """anew: each time with an outbox of its own; else with what the one before left, so that losses would add up."""
    steps = 0
    while True:
        place = folder / f"{steps:03}" if anew else folder
        _, status = os.waitpid(in_child(work, place, appends, steps), 0)
        if not os.WIFSIGNALED(status):
            return steps
        steps += 1


def main(folder: Path, seed: int) -> None:
    global _sites
    sqlite3.connect = _mortal  # type: ignore[assignment]
    _sites = os.open(folder / "sites", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    outbox._RESERVE_BYTES = 1 << 14  # a hundred of them shall fit in memory
    steps = sum(
        at_every_statement(work, folder / name, appends, anew=name.startswith("new"))
        for work, name, appends in (
            *((write, "large", 8), (overfill, "small", 7)),
            *((write, "new-large", 4), (overfill, "new-small", 5)),
        )
    )
    rng = random.Random(seed)
    for work, name in ((write, "large"), (overfill, "small")) * 4:
        pid = in_child(work, folder / name, 100_000, None)
        time.sleep(rng.uniform(0.005, 0.08))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    sys.stdout.write(f"{steps}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
