"""What the whole agent tells on the simulated Jetson, event by event beside what it tells on the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from capture_media import write_clip

from agent.capture import open_source

ROOT = Path(__file__).parents[2]
PATH = f"{ROOT / 'tests/jetson_sim'}{os.pathsep}{ROOT}"

pytestmark = pytest.mark.timeout(300)


def events(folder: Path, clip: Path, path: str, options: str = "") -> tuple[list[dict[str, Any]], str]:
    """What one run over a clip tells, and its log."""
    folder.mkdir()
    command = [sys.executable, "-m", "agent.cli", "run", "--state", str(folder / "state"), "--no-retry"]
    command += ["--source", f"{clip}{options}", "--events-to", str(folder / "events.ndjson")]
    environment = {**os.environ, "PYTHONPATH": path, "STILLWATCH_DEVICE__ID": "box"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=250, env=environment, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in (folder / "events.ndjson").read_text().splitlines()]
    return told, done.stderr


def when(event: dict[str, Any], first: dict[str, Any]) -> float:
    """Seconds of video since the first event."""
    stamps = (datetime.fromisoformat(one["frame_ts"].replace("Z", "+00:00")) for one in (event, first))
    mine, began = (stamp.timestamp() for stamp in stamps)
    return mine - began


def overlap(a: list[int], b: list[int]) -> float:
    """Intersection over union of two boxes [x, y, w, h]."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0, w) * max(0, h)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_it_tells_what_the_host_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STILLWATCH_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("NVCC", "/bin/true")
    with open_source("scene:street?seed=2&camera=cut&fps=5&width=320&height=180&seconds=9", source_id="cam") as source:
        images = [source.read().image for _ in range(45)]
    write_clip(tmp_path / "clip.mp4", images, fps=5, gop=5)
    expected, log = events(tmp_path / "host", tmp_path / "clip.mp4", str(ROOT))
    assert "OpenCV" in log and "semantic_change" in {event["kind"] for event in expected}
    found, log = events(tmp_path / "jetson", tmp_path / "clip.mp4", PATH)
    assert "CUDA kernels" in log and "OFA through VPI" in log and "TensorRT 10.3.0 (fp16)" in log
    what = ("kind", "type", "text", "frame_size")
    assert [[event.get(key) for key in what] for event in found] == [
        [event.get(key) for key in what] for event in expected
    ]
    for mine, theirs in zip(found, expected, strict=True):
        assert when(mine, found[0]) == pytest.approx(when(theirs, expected[0]), abs=0.3)
        # Flow that is late is left out, and how late it is differs from run to run, on the host too.
        assert overlap(mine["region"], theirs["region"]) > 0.5
