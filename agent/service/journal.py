"""Log records for systemd's journal: with fields that `journalctl CAMERA=front` finds, and a priority.

systemd-python sends them where it is installed; else its datagram is made here (systemd.io/JOURNAL_NATIVE_PROTOCOL).
"""

from __future__ import annotations

import importlib
import os
import re
import socket
import struct
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import structlog

from config.redact import redact

SOCKET = "/run/systemd/journal/socket"
PRIORITIES = {"critical": "2", "error": "3", "warning": "4", "info": "6", "debug": "7"}
_RENAMED = {"ID": "EVENT_ID"}
_NO_FIELDS = ("event", "level", "exception")


def stderr_is_journal() -> bool:
    """Whether systemd has connected stderr with its journal."""
    with suppress(OSError, ValueError):
        found = os.fstat(sys.stderr.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def record(entry: Mapping[str, Any]) -> dict[str, str]:
    """Fields of an entry: MESSAGE says all of it, the others each value; CAMERA and EVENT_ID are what is looked for."""
    values = {key: redact(str(value)) for key, value in entry.items() if key not in _NO_FIELDS and value is not None}
    message = " ".join([str(entry.get("event", "")), *(f"{key}={value}" for key, value in values.items())])
    if "exception" in entry:
        message += f"\n{redact(str(entry['exception']))}"
    fields = {"MESSAGE": message, "PRIORITY": PRIORITIES.get(str(entry.get("level")), "6")}
    for key, value in values.items():
        name = re.sub(r"[^A-Z0-9_]", "_", key.upper()).lstrip("_0123456789")[:64]
        if name and name not in fields:
            fields[_RENAMED.get(name, name)] = value
    return fields | {"SYSLOG_IDENTIFIER": "stillwatch"}


def datagram(fields: Mapping[str, str]) -> bytes:
    """A record on the wire. Values of several lines go with their length."""
    parts = []
    for name, value in fields.items():
        raw = value.encode(errors="replace")
        if b"\n" in raw:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
        else:
            parts.append(name.encode() + b"=" + raw + b"\n")
    return b"".join(parts)


class ToJournal:
    """The last processor but one: what the journal takes ends here, the rest goes on to be written to stderr."""

    def __init__(self, path: str = SOCKET) -> None:
        self._send = _python_sender() or _Datagrams(path)

    def __call__(self, _logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        try:
            self._send(record(entry))
        except OSError:
            return entry
        raise structlog.DropEvent


class _Datagrams:
    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def __call__(self, fields: Mapping[str, str]) -> None:
        """Raises OSError: no journal, or a record that is too long."""
        self._socket.sendto(datagram(fields), self._path)


def _python_sender() -> Callable[[Mapping[str, str]], None] | None:
    try:
        sendv = importlib.import_module("systemd.journal").sendv
    except (ImportError, AttributeError):
        return None
    return lambda fields: sendv(*(f"{name}={value}" for name, value in fields.items()))
