"""The whole agent on the simulated Jetson while something fails: it recovers or does with less, and says so."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent.daemon import Daemon, RunOptions
from agent.events.model import AnyEvent, HealthEvent
from agent.runtimes import choose_decoder, choose_encoder
from config.settings import Camera, Device, Events, Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280), pytest.mark.usefixtures("jetson")]

WITHIN_S = 120.0
CSI = "csi://{}?size=96x64&rate=15"
FAILURES = {"die": "died", "hang": "no frame", "nothing": "no frame", "throw": "failed to capture"}


class Told:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[AnyEvent] = []

    def append(self, topic: str, event: AnyEvent) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass

    def of(self, camera: str) -> list[HealthEvent]:
        return [each for each in self.events if isinstance(each, HealthEvent) and each.camera == camera]


@pytest.fixture
def faults(jetson: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What TensorRT is to do wrong; all right again at the end. Engines are built anew in every test."""
    monkeypatch.setenv("STILLWATCH_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("STILLWATCH_SIM_TENSORRT", "10.3.0")
    import tensorrt

    yield tensorrt.faults
    tensorrt.faults.reset()
    jetson.budget = 2**32
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt"]:
        del sys.modules[name]


@contextmanager
def running(folder: Path, cameras: dict[str, str]) -> Iterator[tuple[Daemon, Told]]:
    """The agent on these sources, in a thread of the test; ended at the end."""
    told, stop = Told(), threading.Event()
    settings = Settings(
        device=Device(id="box"),
        events=Events(dir=folder / "state"),
        cameras={name: Camera(source=source) for name, source in cameras.items()},
    )
    daemon = Daemon(settings, RunOptions(sinks=(told,), sysfs=folder / "sys"))
    thread = threading.Thread(target=daemon.run, args=(stop,))
    thread.start()
    try:
        yield daemon, told
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def until(holds: Callable[[], object], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def frames(daemon: Daemon) -> dict[str, int]:
    return {name: camera.watch.frames for name, camera in daemon.cameras.items()}


def test_cameras_that_die_hang_fall_silent_or_throw_are_told_lost_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = tmp_path / "orders.json"
    monkeypatch.setenv("JETSON_SIM_CAMERA", str(orders))
    for choose in (choose_encoder, choose_decoder):  # engines are not what fails here
        monkeypatch.setattr(f"agent.building.{choose.__name__}", partial(choose, has=lambda _: False))

    def tell(of: dict[str, dict[str, Any]]) -> None:
        half = orders.with_suffix(".half")
        half.write_text(json.dumps({"of": of}))
        half.replace(orders)

    tell({})
    cameras = {does: CSI.format(number) for number, does in enumerate(FAILURES)}
    with running(tmp_path, {**cameras, "well": CSI.format(9)}) as (daemon, told):
        until(lambda: min(frames(daemon).values()) > 3, lambda: frames(daemon))
        assert daemon._fleet.backend == "cpu"
        tell({f"csi://{number}": {"does": does} for number, does in enumerate(FAILURES)})
        lost = lambda name: {each.text for each in told.of(name) if each.condition.value == "lost"}  # noqa: E731
        until(
            lambda: all(any(says in text for text in lost(name)) for name, says in FAILURES.items()),
            lambda: told.events,
        )
        assert all(told.of(name)[0].type.value == "new" for name in FAILURES)
        before = frames(daemon)
        until(lambda: frames(daemon)["well"] > before["well"] + 10, lambda: frames(daemon))
        tell({})
        back = frames(daemon)
        until(lambda: all(frames(daemon)[name] > back[name] + 3 for name in FAILURES), lambda: frames(daemon))
        until(lambda: all(told.of(name)[-1].type.value == "end" for name in FAILURES), lambda: told.events)
        assert not told.of("well") and all(camera.error is None for camera in daemon.cameras.values())


def test_an_engine_that_cannot_be_built_costs_speed_only_and_is_said(faults: Any, tmp_path: Path) -> None:
    faults.build = "Error Code 10: Could not find any implementation for node"
    with capture_logs() as logs, running(tmp_path, {"front": CSI.format(0)}) as (daemon, _):
        until(lambda: frames(daemon)["front"] > 5, lambda: frames(daemon))
        assert daemon._fleet.backend == "cpu"
    said = {log["event"]: log for log in logs}
    for part in ("encoder", "decoder"):
        assert said[part]["used"].startswith("ONNX Runtime")
        assert "Could not find any implementation" in said[part]["not_taken"][0]
    assert not [log for log in logs if log["event"] == "a frame could not be judged"]


def test_what_a_callback_raises_while_engines_are_built_costs_nothing_and_is_said(
    faults: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(step: str, done: float | None) -> None:
        raise BrokenPipeError("nobody listens")

    from agent import building
    from engines.tensorrt.building import Watch

    def beats() -> None:
        raise OSError("no socket")

    monkeypatch.setattr(building, "_building", lambda: Watch(fails, beats, every_s=0.01))
    with capture_logs() as logs, running(tmp_path, {"front": CSI.format(0)}) as (daemon, _):
        until(lambda: frames(daemon)["front"] > 5, lambda: frames(daemon))
        assert daemon._fleet.backend == "tensorrt"
    used = next(log for log in logs if log["event"] == "encoder")
    assert used["used"].startswith("TensorRT")
    told = " ".join(used["not_taken"])
    assert "BrokenPipeError: nobody listens" in told and "OSError: no socket" in told


def test_without_memory_on_the_gpu_a_camera_is_looked_at_by_the_cpu_and_that_is_said(
    faults: Any, jetson: Any, tmp_path: Path
) -> None:
    jetson.budget = jetson.used + 3_000_000  # for image operations, but no caches
    with capture_logs() as logs, running(tmp_path, {"front": CSI.format(0)}) as (daemon, _):
        until(lambda: frames(daemon)["front"] > 5, lambda: frames(daemon))
    said = json.dumps(logs, default=str)
    assert "GPU memory:" in said and "can't be had" in said
    assert not [log for log in logs if log["event"] == "a frame could not be judged"]


def test_a_gpu_that_goes_on_failing_is_given_up_while_the_camera_is_watched_on(faults: Any, tmp_path: Path) -> None:
    with capture_logs() as logs, running(tmp_path, {"front": CSI.format(0)}) as (daemon, _):
        until(lambda: frames(daemon)["front"] > 3, lambda: frames(daemon))
        assert daemon._fleet.backend == "tensorrt" and not daemon._fleet.troubles
        faults.execute = 10**6
        daemon.cameras["front"].watch._vlm._encoder.reset()  # a still picture asks nothing of the encoder
        until(lambda: any("the encoder failed" in reason for reason in daemon._fleet.troubles), lambda: frames(daemon))
        before = frames(daemon)["front"]
        until(lambda: frames(daemon)["front"] > before + 5, lambda: frames(daemon))
        reason = next(reason for reason in daemon._fleet.troubles if "the encoder failed" in reason)
        assert "3 times in a row" in reason and "simulated failure" in reason
    assert reason in [log["reason"] for log in logs if log["event"] == "an engine is given up"]
