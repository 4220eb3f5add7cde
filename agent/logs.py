"""Logs go to stderr: lines for people on a terminal, records with fields to systemd's journal where stderr leads
there, one JSON object a line everywhere else. What is said again and again is said once a minute."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from agent.service.journal import ToJournal, stderr_is_journal
from agent.service.repeated import Repeated
from config.redact import redact


def _hide_credentials(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {key: redact(value) if isinstance(value, str) else value for key, value in entry.items()}


class _Stderr(io.TextIOBase):
    """Stderr as it is at the moment of writing. A log that nobody can read any more must not stop what is logged. An
    exception is text only here, and may tell of a URL."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(redact(text))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def set_up_logs(level: int = logging.INFO) -> None:
    """Configure structlog for this process: time, level, sentence and fields on a terminal, fields in the journal, else
    NDJSON in UTC.

    Tracebacks come without the values of variables, which may be whole pictures, or secrets.
    """
    terminal = sys.stderr.isatty()
    last: list[Any] = (
        [
            structlog.processors.TimeStamper("%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
        if terminal
        else [
            structlog.processors.TimeStamper("iso", utc=True),
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ]
    )
    journal: list[Any] = [structlog.processors.format_exc_info, ToJournal()] if stderr_is_journal() else []
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _hide_credentials,
            Repeated(),
            *journal,
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Stderr())),
        cache_logger_on_first_use=False,
    )
