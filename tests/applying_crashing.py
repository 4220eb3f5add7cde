"""An agent that is killed while it applies configurations, and what each start finds.

    python applying_crashing.py FOLDER steps EVERY OFFSET     before each EVERY-th step of an apply, in turn
    python applying_crashing.py FOLDER random COUNT SEED      at so many random moments, some of them at its start

Every child is a whole agent on two rendered cameras: it starts, says what it found, applies the next configuration and
is killed by SIGKILL on the way. Configuration N gives both cameras a zone `vN`: whatever mixes two of them shows. What
a child said stands in FOLDER/said, one JSON document a line; the last line printed counts the kills by what they left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import structlog
from pydantic import JsonValue

from agent.applying.contract import FINAL, Candidate, Step
from agent.camera import Camera as RunningCamera
from agent.daemon import Daemon
from config.settings import Camera, Device, Events, Settings

PATIENCE_S = 120.0


class Mortal:
    """Counts steps on the applier's thread, and dies before one of them."""

    def __init__(self, die_at: int | None) -> None:
        self.steps, self._die_at = 0, die_at

    def step(self) -> None:
        if threading.current_thread().name != "apply":
            return
        if self.steps == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps += 1

    def watch(self) -> None:
        """Every change of the disk and every turn of a camera is a step."""
        for where, names in (
            (os, ["fsync", "open"]),
            (Path, ["replace", "unlink", "hardlink_to"]),
            (RunningCamera, ["connect", "stop", "begin"]),
        ):
            for name in names:
                setattr(where, name, self._counted(getattr(where, name)))

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return real(*args, **kwargs)

        return call


def zones(daemon: Daemon) -> set[tuple[str, ...]]:
    """The zones of the cameras as they run."""
    return {tuple(camera.watch._zones) for camera in daemon.cameras.values()}


def until(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.005)


def live(folder: Path, die_at: int | None, say: Callable[..., None]) -> None:
    """One life of the agent."""
    scene = "scene:{}?fps=5&width=64&height=64"
    cameras = {"a": Camera(source=scene.format("street")), "b": Camera(source=scene.format("yard"))}
    state = Events(dir=folder / "state", clips=None)
    daemon = Daemon(Settings(device=Device(id="box"), events=state, cameras=cameras))
    applier, mortal = daemon.applier, Mortal(die_at)
    threading.Thread(target=daemon.run, args=(threading.Event(),), daemon=True).start()
    last = applier.last
    say(
        "found",
        version=applier.version,
        digest=applier.digest,
        overlay=applier.overlay,
        zones=sorted(zones(daemon)),
        safe=not daemon.cameras,
        last=None if last is None else (last[0], last[1].state),
    )
    until(lambda: all(camera.latest() for camera in daemon.cameras.values()), "frames")
    version = (last[0] if last is not None else 0) + 1
    zone: JsonValue = [[0, 0], [40, 0], [40, 40]]
    overlay: dict[str, JsonValue] = {"cameras": {name: {"zones": {f"v{version}": zone}} for name in cameras}}
    steps: list[Step] = []

    def tell(step: Step) -> None:
        mortal.step()
        say(step.state, version=version)
        steps.append(step)

    mortal.watch()
    say("submit", version=version)
    applier.submit(Candidate(overlay, version, f"d{version}", 0.3, "remote"), tell)
    until(lambda: steps and steps[-1].state in FINAL and not applier.busy, "the end of the apply")
    say("done", steps=mortal.steps, zones=sorted(zones(daemon)))


def in_child(folder: Path, die_at: int | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(what: str, **more: Any) -> None:
        os.write(said, (json.dumps({"what": what, **more}) + "\n").encode())

    status = 1
    try:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        live(folder, die_at, say)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def lives(folder: Path) -> list[list[dict[str, Any]]]:
    """What was said, by life."""
    found: list[list[dict[str, Any]]] = []
    for line in (folder / "said").read_text().splitlines():
        document = json.loads(line)
        if document["what"] == "found":
            found.append([])
        found[-1].append(document)
    return found


def judge(folder: Path) -> Counter[str]:
    """Raises AssertionError where a life found anything but the old or the new configuration of the life before, whole,
    and the right word for it."""
    seen: Counter[str] = Counter()
    told = lives(folder)
    for before, after in pairwise(told):
        found = after[0]
        words = [document["what"] for document in before]
        old, new = before[0]["version"], next((d["version"] for d in before if d["what"] == "submit"), None)
        version = found["version"]
        assert version in (old, new), (before, found)
        assert version == new or "applied" not in words, (before, found)
        assert found["digest"] == (f"d{version}" if version else "")
        assert set(found["overlay"].get("cameras", {})) == ({"a", "b"} if version else set())
        wanted = [] if found["safe"] else [[f"v{version}"] if version else []]
        assert found["zones"] == wanted, (before, found)
        if "staged" in words:
            assert found["last"] == [new, "applied" if version == new else "rolled_back"], (before, found)
        elif version == old:
            assert found["last"] in (before[0]["last"], [new, "rolled_back"]), (before, found)
        seen["safe mode" if found["safe"] else "new" if version == new else "old"] += 1
    return seen


def life(folder: Path, die_at: int | None, after_s: float | None = None, *, since_submit: bool = True) -> bool:
    """Whether it was killed before it was done."""
    known = (folder / "said").stat().st_size if (folder / "said").exists() else 0
    pid = in_child(folder, die_at)
    if after_s is not None:
        if since_submit:
            until(lambda: b'"submit"' in (folder / "said").read_bytes()[known:], "the apply")
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or status == 0, "the agent ended by itself; see above"
    return os.WIFSIGNALED(status)


def main(folder: Path, mode: str, count: int, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    assert not life(folder, None)
    whole_s = 0.9  # an apply on a quiet machine; on a busy one kills come earlier in it
    if mode == "steps":
        step = seed
        while life(folder, step):
            step += count
    else:
        rng = random.Random(seed)
        for _ in range(count):
            life(folder, None, rng.uniform(0.0, whole_s), since_submit=rng.random() < 0.8)
    assert not life(folder, None)
    sys.stdout.write(json.dumps(judge(folder)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
