"""A process that captures: it can hang, leak or crash, and be killed, and the agent goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.capture.handover import Gone, Line, Message
from config.errors import SourceError

_KILLED_WITHIN_S = 1.0


class CaptureProcess:
    """Runs `python -m MODULE DESCRIPTOR NAME` at the other end of a socket. order: the first message it gets, and where
    credentials are: neither command line nor environment show them.

    patience_s: how long it may take to give its source back when it is asked to; then it is killed.
    Everything but `close` belongs to one thread, and must be called by the one that made it: with that thread the
    kernel ends the process, too.
    """

    def __init__(self, module: str, name: str, order: dict[str, Any], *, patience_s: float = 0.0) -> None:
        self._name, self._patience_s = name, patience_s
        self._closed = threading.Event()
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line = Line(self.connection)
        command = [sys.executable, "-m", module, str(theirs.fileno()), str(order.get("source_id", ""))]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            "PYTHONSAFEPATH": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        try:
            with theirs:
                self.process = subprocess.Popen(
                    command,
                    pass_fds=[theirs.fileno()],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
        except OSError as error:  # no memory, too many processes: later there may be room
            self.connection.close()
            raise SourceError(f"{name}: a process to capture can't be started: {error.strerror}") from None
        try:
            self.line.send(order)
        except OSError:
            self.close()
            raise SourceError(f"{name}: {self._died()}") from None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def receive(self, timeout_s: float) -> Message | None:
        """The next message; None when none came in time. Raises SourceError once the process is gone."""
        try:
            return self.line.receive(timeout_s)
        except Gone as gone:
            raise SourceError(f"{self._name}: {self._fate(gone)}") from None

    def close(self) -> None:
        """End it, by force where it doesn't end at once. Pictures that were read stay as they are."""
        self._closed.set()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)  # wakes a read in another thread, and tells the process
        if self._patience_s:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(self._patience_s)
        self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # it waits in a driver: the kernel ends it when that returns
            self.process.wait(_KILLED_WITHIN_S)

    def _fate(self, gone: Gone) -> str:
        if self.closed:
            return "closed"
        return self._died() if str(gone) == "closed" else f"the capture process {gone}"

    def _died(self) -> str:
        try:
            status = self.process.wait(_KILLED_WITHIN_S)
        except subprocess.TimeoutExpired:
            return "the capture process went silent"
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"the capture process died ({how})"
