"""What systemd does for a service of Type=notify with WatchdogSec and Restart=on-failure, over a real socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Told:
    """One message. at_s: monotonic. run: which start of the process it came in, from 1."""

    at_s: float
    run: int
    lines: tuple[str, ...]


class NotifySocket:
    """Listens; `messages` grows. Abstract where `path` is None."""

    def __init__(self, path: Path | None = None) -> None:
        self.address = f"@stillwatch-test-{os.getpid()}-{id(self)}" if path is None else str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address.replace("@", "\0", 1))

    def receive(self, timeout_s: float) -> tuple[str, ...] | None:
        self._socket.settimeout(timeout_s)
        try:
            return tuple(self._socket.recv(65536).decode().split("\n"))
        except TimeoutError:
            return None

    def close(self) -> None:
        self._socket.close()


class Service:
    """Runs a command, and starts it again when it fails, as long as this is open. log: its stderr, of all runs."""

    def __init__(
        self, command: Sequence[str], log: Path, *, watchdog_s: float, environment: Mapping[str, str], folder: Path
    ) -> None:
        self._command, self.log, self.watchdog_s = list(command), log, watchdog_s
        self._notify = NotifySocket()
        self._environment = {
            **os.environ,
            **environment,
            "NOTIFY_SOCKET": self._notify.address,
            "WATCHDOG_USEC": str(round(watchdog_s * 1e6)),
        }
        self._folder = folder
        self.told: list[Told] = []
        self.kills: list[tuple[float, int, str]] = []
        """When, in which run, and why."""
        self.statuses: list[int] = []
        """Exit statuses."""
        self.run = 0
        self.ended = False
        """By itself, with a status that nobody tries again after."""
        self._process: subprocess.Popen[bytes] | None = None
        self._open = True
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def ready(self, run: int) -> bool:
        return any(told.run == run and "READY=1" in told.lines for told in list(self.told))

    def of(self, run: int, word: str) -> list[Told]:
        """Messages of a run that have a line beginning so."""
        return [told for told in list(self.told) if told.run == run and any(x.startswith(word) for x in told.lines)]

    def signal(self, number: signal.Signals) -> None:
        """To the process that runs now."""
        assert self._process is not None
        self._process.send_signal(number)

    def close(self) -> None:
        self._open = False
        self._thread.join(timeout=60)
        self._notify.close()

    def _keep(self) -> None:
        while self._open:
            self.run += 1
            with self.log.open("ab") as stderr:
                process = subprocess.Popen(
                    self._command, stderr=stderr, stdout=stderr, env=self._environment, cwd=self._folder
                )
            self._process = process
            try:
                self._watch(process)
            finally:
                if process.poll() is None:
                    process.kill()
            self.statuses.append(process.wait())
            if self.statuses[-1] in (0, 2, 78):
                self.ended = True
                return

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Until it ends, or is ended."""
        fed_s: float | None = None
        while process.poll() is None:
            if not self._open:
                process.send_signal(signal.SIGTERM)
                _wait(process, 20)
                return
            lines = self._notify.receive(0.1)
            now = time.monotonic()
            if lines is not None:
                self.told.append(Told(now, self.run, lines))
                if "READY=1" in lines or "WATCHDOG=1" in lines:
                    fed_s = now
                if "STOPPING=1" in lines:
                    fed_s = None
            trigger = lines is not None and "WATCHDOG=trigger" in lines
            if trigger or (fed_s is not None and now - fed_s > self.watchdog_s):
                process.send_signal(signal.SIGABRT)
                self.kills.append((now, self.run, "trigger" if trigger else "unfed"))
                _wait(process, 5)
                return


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
