"""Events that could not be written because the writer hung: saved in a file, and told by the next run.

The outbox is the only place where events are safe, and one thread writes it. When that thread hangs, the watchdog will
have the agent killed; before, it puts what waits for the writer into `unwritten.json`. The next run puts it into the
outbox, as events of an earlier run; what had been written after all is then told twice, under the same id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import structlog
from pydantic import ValidationError

from agent.events.model import EVENT, AnyEvent
from agent.events.outbox import Outbox

log = structlog.get_logger()

NAME = "unwritten.json"


def save(folder: Path, tellings: Sequence[tuple[str, AnyEvent]]) -> None:
    """Keep these (topic, event), whole or not at all, instead of what was kept before. Raises OSError."""
    path = folder / NAME
    document = [{"topic": topic, "event": json.loads(event.model_dump_json())} for topic, event in tellings]
    half = path.with_suffix(".half")
    with half.open("w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def discard(folder: Path) -> None:
    """The writer goes on by itself. Raises OSError."""
    (folder / NAME).unlink(missing_ok=True)


def recover(folder: Path) -> int:
    """Put what an earlier run saved into the outbox; returns how many tellings. Call it before this run opens it.

    Raises ConfigError when the outbox can't be opened, OSError and sqlite3.Error when the disk fails. A file that
    can't be read is set aside.
    """
    path = folder / NAME
    if not path.exists():
        return 0
    try:
        saved = [(str(one["topic"]), EVENT.validate_python(one["event"])) for one in json.loads(path.read_bytes())]
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        log.error("saved events can't be read", file=str(path), reason=str(error))
        path.replace(path.with_suffix(".damaged"))
        return 0
    with Outbox(folder / "events.db") as outbox:  # of its own: these are no events of this run
        for topic, event in saved:
            outbox.append(event, topic)
    path.unlink()
    return len(saved)
