"""A program that writes clips and pictures and is killed: at every line in turn, then at random moments.

    python evidence_crashing.py FOLDER SEED

Prints how many lines it died at.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from agent.evidence import clip, files, packets, snapshot
from agent.evidence.encoding import FrameEncoder
from agent.evidence.ring import Footage

WATCHED = {module.__file__ for module in (clip, files, packets, snapshot)}


def footage(frames: int) -> Footage:
    encoder = FrameEncoder((64, 48))
    noise = np.random.default_rng(0)
    made = [
        packet
        for n in range(frames)
        for packet in encoder.encode(noise.integers(0, 255, (48, 64, 3), np.uint8), n / 10)
    ]
    assert encoder.stream is not None
    return Footage(encoder.stream, tuple(made), 0.0)


def write(folder: Path, seen: Footage, name: str) -> None:
    clip.write_clip(folder / "clips" / "high" / f"{name}.mp4", seen)
    snapshot.write_jpeg(folder / "snapshots" / "high" / f"{name}.jpg", np.full((48, 64, 3), 90, np.uint8))


def dying_after(lines: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that kills this process before one of the lines of the watched modules."""
    left = [lines]

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def in_child(work: Callable[[], None]) -> int:
    """Fork, work, end; returns the pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def main(folder: Path, seed: int) -> None:
    short, long = footage(3), footage(300)
    lines = 0
    while True:

        def traced(after: int = lines) -> None:
            sys.settrace(dying_after(after))
            write(folder, short, f"line-{after:04}")

        _, status = os.waitpid(in_child(traced), 0)
        if not os.WIFSIGNALED(status):
            break
        lines += 1
    rng = random.Random(seed)

    def on_and_on(run: int) -> None:
        for n in range(100_000):
            write(folder, long, f"run-{run}-{n:06}")

    for run in range(6):
        pid = in_child(lambda run=run: on_and_on(run))  # type: ignore[misc]
        time.sleep(rng.uniform(0.01, 0.2))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    sys.stdout.write(f"{lines}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
