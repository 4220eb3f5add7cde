"""An agent with rendered cameras in a process of its own, as it would run here, and what it does."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.error import URLError

from config.errors import StillwatchError

_FRAMES = re.compile(r'^stillwatch_frames_total\{camera="([^"]+)",[^}]*\} (\S+)$', re.MULTILINE)
_TICKS_S = os.sysconf("SC_CLK_TCK")
_STOPPED_WITHIN_S = 20.0
_LOG_LINES = 5


@dataclass(frozen=True, slots=True)
class Counted:
    """At one moment: frames handled by camera, processor seconds of the agent and of those that capture for it."""

    at_s: float
    frames: Mapping[str, int]
    agent_s: float
    capture_s: float


class Running:
    """Runs until it is closed. cameras: their sections of the configuration, by name; model: as in it."""

    def __init__(self, cameras: Mapping[str, Mapping[str, object]], *, model: str = "reference") -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="stillwatch-capacity-")))
        self._port = _free_port()
        config = folder / "agent.yaml"
        settings = {
            "model": model,
            "events": {"dir": str(folder / "state")},
            "metrics": {"port": self._port},
            "cameras": cameras,
        }
        config.write_text(json.dumps(settings), encoding="utf-8")
        self._log = folder / "agent.log"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("STILLWATCH_", "NOTIFY_"))
        }
        environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "run", "--config", str(config), "--events-to", "/dev/null"],
                env={**environment, "PYTHONSAFEPATH": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._stack.callback(self._stop)
        self._cameras = tuple(cameras)

    def wait(self, frames: int, timeout_s: float) -> None:
        """Until every camera has had so many frames. Raises StillwatchError."""
        until = time.monotonic() + timeout_s
        while True:
            if self._process.poll() is not None:
                said = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
                raise StillwatchError("the agent has ended: " + " | ".join(said))
            with suppress(OSError, URLError):
                counted = self.counted().frames
                if min(counted.get(name, 0) for name in self._cameras) >= frames:
                    return
            if time.monotonic() > until:
                raise StillwatchError(f"not every camera had {frames} frames within {timeout_s:g} s")
            time.sleep(0.25)

    def window(self, seconds: float) -> tuple[Counted, Counted]:
        """At the beginning and at the end of so many seconds. Raises OSError when it doesn't answer."""
        first = self.counted()
        time.sleep(seconds)
        return first, self.counted()

    def rates(self, seconds: float) -> dict[str, float]:
        """Frames a second of each camera in a window of so many seconds. Raises OSError when it doesn't answer."""
        first, last = self.window(seconds)
        passed_s = last.at_s - first.at_s
        return {name: round((last.frames[name] - first.frames[name]) / passed_s, 3) for name in self._cameras}

    def counted(self) -> Counted:
        """Raises OSError when it doesn't answer."""
        asked_s = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        answered_s = time.monotonic()
        frames = dict.fromkeys(self._cameras, 0)
        for name, count in _FRAMES.findall(text):
            frames[name] += round(float(count))
        captured = sum(_processor_s(pid) for pid in self.processes().values())
        return Counted((asked_s + answered_s) / 2, frames, _processor_s(self._process.pid), captured)

    def processes(self) -> dict[str, int]:
        """Those that capture, by camera."""
        found: dict[str, int] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, IndexError, ValueError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self._process.pid:
                    words = (stat.parent / "cmdline").read_bytes().split(b"\0")
                    if b"agent.capture.child" in words:
                        found[words[words.index(b"agent.capture.child") + 2].decode()] = int(stat.parent.name)
        return found

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _processor_s(pid: int) -> float:
    """What a process has used so far, 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_S


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
