"""A program that writes to an outbox and is killed: at every statement in turn, then at random moments.

    python events_crashing.py FOLDER SEED

Accepted events are noted in FOLDER/accepted by single unbuffered writes, one line each: what stands there was promised.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from agent.events.model import EventType, SemanticChange, event, new_id
from agent.events.outbox import Outbox

_steps_left: int | None = None


def _step() -> None:
    global _steps_left
    if _steps_left is not None:
        _steps_left -= 1
        if _steps_left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


class MortalConnection(sqlite3.Connection):
    """Dies before one of its statements, which is after the one before it."""

    def execute(self, *args: Any) -> sqlite3.Cursor:
        _step()
        return super().execute(*args)


_connect = sqlite3.connect


def _mortal(*args: Any, **kwargs: Any) -> sqlite3.Connection:
    return _connect(*args, **kwargs, factory=MortalConnection)


def write(folder: Path, appends: int) -> None:
    """Append and deliver in turn. A delivery is noted before it is written: it may or may not have happened."""
    notes = os.open(folder / "accepted", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Outbox(folder / "outbox.db") as outbox:
        for n in range(appends):
            camera = ("front", "yard")[n % 2]
            news = SemanticChange(camera=camera, distance=0.1)
            telling = event(news, event_id=new_id(), type=EventType.NEW, ts=datetime.now(timezone.utc), device="box")
            seq = outbox.append(telling, f"{camera}/change").seq
            os.write(notes, f"accepted {telling.id} {camera} {seq}\n".encode())
            if n % 4 == 3:
                oldest = outbox.pending(1)[0]
                os.write(
                    notes, f"delivered {oldest.document['id']} {oldest.camera} {oldest.document['seq']}\n".encode()
                )
                outbox.delivered([oldest.row])


def in_child(folder: Path, appends: int, steps: int | None) -> int:
    """Fork, write, die; returns the pid."""
    pid = os.fork()
    if pid == 0:
        global _steps_left
        _steps_left = steps
        try:
            write(folder, appends)
        finally:
            os._exit(0)
    return pid


def main(folder: Path, seed: int) -> None:
    sqlite3.connect = _mortal  # type: ignore[assignment]
    steps = 0
    while True:
        _, status = os.waitpid(in_child(folder, 4, steps), 0)
        if not os.WIFSIGNALED(status):
            break
        steps += 1
    rng = random.Random(seed)
    for _ in range(5):
        pid = in_child(folder, 100_000, None)
        time.sleep(rng.uniform(0.005, 0.08))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    sys.stdout.write(f"{steps}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
