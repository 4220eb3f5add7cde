"""An agent that is started again whenever it dies, as systemd would, and what it uses, read from `/proc`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FINAL = (2, 78)
"""Statuses after which systemd would not start it again."""
_RESTART_S = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """Of the agent and its children. at_s: since this life of it began."""

    life: int
    at_s: float
    resident_mb: float
    descriptors: int
    threads: int


class Agent:
    """`stillwatch run` in a process of its own. Until `stop` a thread starts it again a second after it died."""

    def __init__(self, config: Path, folder: Path) -> None:
        self._config, self._folder = config, folder
        self.statuses: list[int] = []
        self.lives = 0
        self.final: int | None = None
        """The status with which it ended for good though nobody told it to."""
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._thread = threading.Thread(target=self._keep, name="keep the agent", daemon=True)
        self._thread.start()

    def send(self, number: signal.Signals) -> bool:
        """Whether it was alive to get it."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        process.send_signal(number)
        return True

    def age_s(self) -> float:
        """Since this life of it began; 0 while it is dead."""
        process = self._process
        return time.monotonic() - self._began if process is not None and process.poll() is None else 0.0

    def sample(self) -> Sample | None:
        """None while it is dead."""
        process = self._process
        if process is None or process.poll() is not None:
            return None
        life, at_s = self.lives, self.age_s()
        try:
            used = [_used(pid) for pid in _family(process.pid)]
        except (OSError, ValueError):  # it died meanwhile
            return None
        resident, descriptors, threads = (sum(column) for column in zip(*used, strict=True))
        return Sample(life, at_s, resident / 1e6, descriptors, threads)

    def stop(self) -> None:
        """End it in order."""
        self._stopping.set()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        self._thread.join(30)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _keep(self) -> None:
        command = [sys.executable, "-m", "agent.cli", "run", "--config", str(self._config)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "STILLWATCH_DEVICE__ID": "box"}
        environment.pop("NOTIFY_SOCKET", None)
        while not self._stopping.is_set():
            self.lives += 1
            with (self._folder / "agent.log").open("ab") as log:
                self._process = subprocess.Popen(
                    command, cwd=self._folder, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
            self._began = time.monotonic()
            self.statuses.append(self._process.wait())
            if self.statuses[-1] in FINAL:
                self.final = self.statuses[-1]
                return
            self._stopping.wait(_RESTART_S)


def _family(pid: int) -> list[int]:
    children = [
        child for tasks in Path(f"/proc/{pid}/task").glob("*/children") for child in map(int, tasks.read_text().split())
    ]
    return [pid, *(one for child in children for one in _family(child))]


def _used(pid: int) -> tuple[int, int, int]:
    """Resident bytes, descriptors, threads."""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return resident, len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
