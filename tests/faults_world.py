"""An agent in a process of its own, and what can be done to the ground that it stands on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mqtt_world import watched

ROOT = Path(__file__).parents[1]
CUTTING = "scene:street?seed=2&camera=cut&fps=5&width=320&height=180"
"""Shows another place 6.3 s after it began, and every few seconds from then on."""
BASE = "stillwatch/box"


@contextmanager
def run(folder: Path, *, log: str = "agent.log", **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """`stillwatch run` with these settings as the device `box`; what it says goes to `log`; gone at the end whatever
    happened."""
    file = folder / "agent.yaml"
    file.write_text(json.dumps({"events": {"dir": "state"}, "cameras": {"front": {"source": CUTTING}}, **settings}))
    with start(folder, file, folder / log) as process:
        yield process


@contextmanager
def start(folder: Path, file: Path, log: Path, prefix: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """prefix: what runs it."""
    command = [*prefix, sys.executable, "-m", "agent.cli", "run", "--config", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STILLWATCH_DEVICE__ID": "box", "OMP_NUM_THREADS": "2"}
    with log.open("ab") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
    try:
        with watched(process, log):
            yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def small_disk(folder: Path, size: str = "24m") -> Iterator[Path]:
    """A file system of its own that can really be full; skips where none may be mounted."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("a file system of its own needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    hog = folder / "hog"
    with hog.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096) == 4096:
                pass
        except OSError:
            pass
    return hog
