"""`stillwatch anomaly score` on a rendered walkway, with the reference model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.capture.scene import Scene
from agent.capture.scene.truth import SceneTruth
from agent.capture.scene.walkway import NORMAL_S, intrudes
from agent.cli import app
from agent.scoring import Scorer
from config.errors import ConfigError

SCENE = "scene:walkway?seed=1&width=180&height=120&fps=10&seconds=90"


def score(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    out = tmp_path / "scores.json"
    result = CliRunner().invoke(app, ["anomaly", "score", *arguments, "--json", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_every_frame_has_a_score_and_a_place_inside_the_frame(tmp_path: Path) -> None:
    found = score(tmp_path, f"{SCENE}:50-57", "--fit", f"{SCENE}:0-11", "--fit", f"{SCENE}:40-49")
    assert found["fps"] == 10 and found["frame_size"] == [180, 120]
    assert len(found["scores"]) == len(found["regions"]) == 8
    assert all(number >= 0 for number in found["scores"])
    for x, y, w, h in found["regions"]:
        assert min(x, y) >= 0 and min(w, h) > 0 and x + w <= 180 and y + h <= 120


def test_without_normal_clips_the_first_seconds_are_learned(tmp_path: Path) -> None:
    found = score(tmp_path, "scene:walkway?seed=1&width=180&height=120&fps=1&seconds=25")
    assert found["scores"][:20] == [0] * 20 and any(found["scores"][21:])


def test_frames_of_another_size_are_refused_by_name() -> None:
    scorer = Scorer()
    scorer.fit(f"{SCENE}:0-2")
    with pytest.raises(ConfigError, match=r"frames are \(120, 80\), expected \(180, 120\)"):
        scorer.score("scene:walkway?width=120&height=80&seconds=1")


def test_a_walkway_is_normal_at_first_and_then_is_not() -> None:
    scene = Scene("walkway", 1, width=360, height=240, fps=10)

    def intruders(truth: SceneTruth) -> int:
        return sum(intrudes(thing) for thing in truth.objects)

    assert not any(intruders(scene.truth(i)) for i in range(0, round(NORMAL_S * 10), 20))
    seen = [intruders(scene.truth(i)) for i in range(round(NORMAL_S * 10), 1000, 20)]
    assert 0.2 < sum(map(bool, seen)) / len(seen) < 0.9
    assert all(len(scene.truth(i).objects) >= 6 for i in range(0, 400, 80))
