"""A program that writes clips, pictures, baselines and settings and is killed: at every line in turn, then at random
moments.

    python evidence_crashing.py FOLDER SEED

What is replaced by each write (a baseline, what was set) holds the number of the write that made it; after each death
it must be that of this write or of the last one that ended. Prints how many lines it died at.
"""

from __future__ import annotations

import json
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

from agent import remembering
from agent.evidence import clip, files, packets, snapshot
from agent.evidence.encoding import FrameEncoder
from agent.evidence.ring import Footage
from agent.homeassistant import announcing
from agent.insight import baseline_file

WATCHED = {module.__file__ for module in (clip, files, packets, snapshot, baseline_file, remembering, announcing)}


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


def replace(folder: Path, number: int) -> None:
    """Write what there is one of."""
    baseline_file.write(folder / "front.npz", {"number": np.array(number), "much": np.zeros(5000)})
    memory = remembering.CameraMemory(folder / "cameras.json", clock=lambda: 0.0)
    memory.mute("front", float(number + 1))
    retained = announcing.RetainedTopics(folder / "retained.json")
    for topic in retained.replace(["ab"[number % 2]]):
        retained.forgotten(topic)


def replaced(folder: Path) -> dict[str, int]:
    """The number of the write that made each file, -1 where there is none. Raises when one is not whole."""
    found = dict.fromkeys(("front.npz", "cameras.json"), -1)
    if (folder / "front.npz").exists():
        with np.load(folder / "front.npz") as arrays:
            assert arrays["much"].shape == (5000,)
            found["front.npz"] = int(arrays["number"])
    if (folder / "cameras.json").exists():
        found["cameras.json"] = int(json.loads((folder / "cameras.json").read_text())["front"]["muted_until_s"]) - 1
    if (folder / "retained.json").exists():
        assert set(json.loads((folder / "retained.json").read_text())) <= {"a", "b"}
    return found


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
    before = replaced(folder)
    while True:

        def traced(after: int = lines) -> None:
            sys.settrace(dying_after(after))
            write(folder, short, f"line-{after:04}")
            replace(folder, after)

        _, status = os.waitpid(in_child(traced), 0)
        now = replaced(folder)
        assert all(number in (lines, before[name]) for name, number in now.items()), (lines, before, now)
        if not os.WIFSIGNALED(status):
            break
        before = now
        lines += 1
    assert set(now.values()) == {lines}
    rng = random.Random(seed)

    def on_and_on(run: int) -> None:
        for n in range(100_000):
            write(folder, long, f"run-{run}-{n:06}")
            replace(folder, n)

    for run in range(6):
        pid = in_child(lambda run=run: on_and_on(run))  # type: ignore[misc]
        time.sleep(rng.uniform(0.01, 0.2))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        replaced(folder)
    sys.stdout.write(f"{lines}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
