"""The format of the state folder: brought forward step by step, never backward.

`format.json` says which format a folder has. A newer version of Stillwatch brings an older folder to its own; an older
version refuses a newer folder, because what it does not know it would lose. Each step may be interrupted at any point:
it is done again from its beginning, so it has to be one that can be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from agent import __version__
from config.errors import ConfigError

log = structlog.get_logger()

NAME = "format.json"
FORMAT = 1
"""Format 0 has no `format.json` and is otherwise the same."""
Step = Callable[[Path], None]
STEPS: Mapping[int, Step] = {}
"""What brings a folder of this format to the next; a format that is not named here differs in nothing but its number.
Of the event outbox its own tables say (`agent.events.outbox`)."""


def found_format(folder: Path) -> int:
    """Format of a folder; of one that does not exist or is empty the current one. Raises ConfigError."""
    path = folder / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0 if any(path.name != "lock" for path in folder.glob("*")) else FORMAT
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    try:
        number = json.loads(text)["format"]
    except (ValueError, KeyError, TypeError):
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ConfigError(f'{path}: expected {{"format": NUMBER, …}}, found {text[:80]!r}; restore the file')
    return number


def check(folder: Path, *, current: int = FORMAT) -> int:
    """Format of a folder that this version can use, perhaps after `prepare`. Raises ConfigError."""
    found = found_format(folder)
    if found > current:
        raise ConfigError(
            f"{folder}: the state folder has format {found}, this version ({__version__}) reads up to {current}; run "
            "the newer version that wrote it, or give another events.dir"
        )
    return found


def prepare(folder: Path, *, steps: Mapping[int, Step] = STEPS, current: int = FORMAT) -> int:
    """Bring a folder to the current format; returns the one it had. Call it with the folder locked.

    Raises ConfigError for a folder of a newer version, which is left as it is, or one that can't be written.
    """
    found = check(folder, current=current)
    try:
        for number in range(found, current):
            log.info("the state folder is brought to a newer format", found=number, next=number + 1)
            if number in steps:
                steps[number](folder)
            _stamp(folder, number + 1)
        if not (folder / NAME).exists():
            _stamp(folder, current)
    except OSError as error:
        raise ConfigError(f"{folder}: can't be brought to format {current}: {error.strerror or error}") from error
    return found


def _stamp(folder: Path, number: int) -> None:
    path = folder / NAME
    half = path.with_name(f".{NAME}.{os.getpid()}")
    with half.open("w", encoding="utf-8") as file:
        json.dump({"format": number, "version": __version__}, file)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
