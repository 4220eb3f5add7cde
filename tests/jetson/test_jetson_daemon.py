"""Two cameras of one agent on the simulated GPU: what was measured with the first holds for the other, and when the
agent ends the GPU has its memory back."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import pytest

from agent.daemon import Daemon, RunOptions
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
