"""Where events go besides the broker: newline-delimited JSON on stdout or in a file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Protocol, TextIO

import structlog

from agent.events.model import AnyEvent
from config.errors import ConfigError

log = structlog.get_logger()


class Sink(Protocol):
    """Takes events in the order in which they were accepted. Called from one thread; must not raise."""

    def append(self, topic: str, event: AnyEvent) -> None: ...

    def close(self) -> None: ...


class NdjsonSink:
    """One line an event: the document plus its `topic`, flushed line by line. `-` is stdout, else a file that is
    appended to. Raises ConfigError when the file can't be opened.

    Whoever reads may leave: after a broken pipe `broken` is True and nothing more is written. A full disk costs the
    lines that don't fit, and is said once.
    """

    def __init__(self, target: str) -> None:
        self.broken = False
        self._complaining = False
        self._target = target
        try:
            self._out: TextIO = sys.stdout if target == "-" else _open_at_line_start(Path(target))
        except OSError as error:
            raise ConfigError(f"{target}: can't write events here: {error.strerror}; give another file or -") from None

    def append(self, topic: str, event: AnyEvent) -> None:
        if self.broken:
            return
        line = json.dumps({**event.model_dump(mode="json"), "topic": topic}, ensure_ascii=False)
        try:
            self._out.write(line + "\n")
            self._out.flush()
            self._complaining = False
        except BrokenPipeError:
            self.broken = True
            _point_at_nothing(self._out)
            log.warning("nobody reads the events any more", target=self._target)
        except OSError as error:
            if not self._complaining:
                log.error("can't write events", target=self._target, reason=error.strerror)
            self._complaining = True

    def close(self) -> None:
        if self._target != "-":
            self._out.close()

    def __enter__(self) -> NdjsonSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_at_line_start(path: Path) -> TextIO:
    """Open for appending; a line that a crash cut short is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    out = path.open("a", encoding="utf-8")
    if out.tell() > 0 and path.is_file():
        with path.open("rb") as written:
            written.seek(-1, os.SEEK_END)
            if written.read(1) != b"\n":
                out.write("\n")
    return out


def _point_at_nothing(out: TextIO) -> None:
    """Else the interpreter complains of the broken pipe once more when it flushes at exit."""
    with open(os.devnull, "w") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), out.fileno())
