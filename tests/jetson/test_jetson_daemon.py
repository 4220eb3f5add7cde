"""Two cameras of one agent on the simulated GPU: what was measured with the first holds for the other, and when the
agent ends the GPU has its memory back."""

from __future__ import annotations

import gc
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.daemon import Daemon, RunOptions
from agent.runtimes import choose_decoder, choose_encoder
from config.settings import Camera, Device, Events, Settings


def test_every_camera_encodes_by_the_measured_costs_and_gives_its_memory_back(
    jetson: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("STILLWATCH_SIM_TENSORRT", "10.3.0")
    cameras = {name: Camera(source="scene:yard?fps=5&width=160&height=120&seconds=2") for name in ("front", "back")}
    settings = Settings(device=Device(id="box"), events=Events(dir=tmp_path / "state"), cameras=cameras)
    daemon = Daemon(settings, RunOptions(seconds=30, retry=False))
    towers = [camera.watch._vlm._encoder for camera in daemon.cameras.values()]
    assert towers[0].crossover == towers[1].crossover
    daemon.run(threading.Event())
    daemon.close()
    registry = daemon.metrics.registry

    def held(owner: str, part: str, kind: str) -> float | None:
        labels = {"owner": owner, "part": part, "kind": kind}
        return registry.get_sample_value("stillwatch_gpu_memory_bytes", labels)

    for name in cameras:
        assert held(name, "frames", "peak") == 2 * 160 * 120 * 3 and held(name, "frames", "allocated") == 0
    for part in ("cache", "rows", "inputs", "outputs", "scratch"):
        assert held("encoder", part, "allocated") == 0 < (held("encoder", part, "peak") or 0), part
    del daemon, towers
    gc.collect()
    assert not jetson.stack and not jetson.counts["leaked"]


def no_flow(patch: pytest.MonkeyPatch, _: Daemon) -> None:
    def fails(*_: object, **__: object) -> Any:
        raise RuntimeError("VPI_ERROR_INTERNAL")

    patch.setattr("vpi.optflow_dense", fails)


def no_launch(patch: pytest.MonkeyPatch, _: Daemon) -> None:
    from pycuda import driver

    def fails(*_: object, **__: object) -> Any:
        raise driver.LaunchError("cuLaunchKernel failed: unspecified launch failure")

    patch.setattr(driver.Function, "prepared_async_call", fails)


def no_room(patch: pytest.MonkeyPatch, daemon: Daemon) -> None:
    import simulated_cuda

    patch.setattr(simulated_cuda.machine, "budget", simulated_cuda.machine.used)
    builder = daemon._fleet.builder
    assert builder is not None
    builder.camera("front", daemon._fleet._settings)


@pytest.mark.parametrize(
    ("fail", "says"),
    [
        (no_flow, "front: the OFA is given up, the CPU computes flow until the next start: VPI_ERROR_INTERNAL"),
        (no_launch, "front: the GPU is given up, the CPU compares patches until the next start: LaunchError"),
        (no_room, "front: image operations of a camera run on the CPU"),
    ],
    ids=["OFA", "GPU", "at start"],
)
def test_a_gpu_or_flow_engine_that_is_given_up_is_told_in_the_status_once(
    fail: Any, says: str, jetson: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for choose in (choose_encoder, choose_decoder):  # engines are not what fails here
        monkeypatch.setattr(f"agent.building.{choose.__name__}", partial(choose, has=lambda _: False))
    source = "scene:street?fps=5&width=160&height=120&camera=pan"
    settings = Settings(
        device=Device(id="box"), events=Events(dir=tmp_path / "state"), cameras={"front": Camera(source=source)}
    )
    daemon = Daemon(settings, RunOptions(seconds=100, retry=False))
    assert not daemon._teller._notes()
    gc.collect()
    fail(monkeypatch, daemon)
    enough = threading.Event()

    def look(_every_s: float = 0.05) -> None:
        while not (daemon._teller._notes() and daemon.cameras["front"].watch.frames > 10):
            if enough.wait(_every_s):
                return
        enough.set()

    looking = threading.Thread(target=look)
    looking.start()
    daemon.run(enough)
    enough.set()
    looking.join()
    notes = daemon._teller._notes()
    assert sum(note.startswith(says) for note in notes) == 1, notes
    assert daemon.cameras["front"].watch.frames and not daemon.cameras["front"].watch.modes.get("error")
    daemon.close()
