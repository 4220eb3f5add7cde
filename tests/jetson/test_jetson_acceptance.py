"""The acceptance test on a simulated Jetson: what is compared agrees with the host, and the rest is told to be its."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.acceptance.backends import Backends, backends
from agent.acceptance.capturing import capture_result
from agent.acceptance.encoding import encoder_result
from agent.acceptance.flow import flow_errors
from agent.acceptance.meter import Meter
from agent.acceptance.speaking import words_result
from agent.acceptance.stages import HOST, PICTURES, STAGES, Material, StageResult, run_picture, run_stage
from agent.power.sensors import Sensors
from engines.manifest import find_model, load_model

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def found(jetson: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLWATCH_ENGINES", str(tmp_path_factory.mktemp("engines")))
        patch.setenv("STILLWATCH_SIM_TENSORRT", "10.3.0")
        yield backends(load_model(find_model("reference")))


@pytest.fixture(scope="module")
def material(found: Backends) -> Material:
    return Material.of(found.model.manifest)


@pytest.fixture
def meter(tmp_path: Path) -> Meter:
    return Meter(Sensors(tmp_path), 0.0)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_is_the_jetson_s_and_agrees(found: Backends, material: Material, meter: Meter, stage: Any) -> None:
    agrees(run_stage(stage, material, found.ops, meter))


@pytest.mark.parametrize("stage", PICTURES, ids=lambda stage: stage.name)
def test_pictures_and_patches_are_made_on_the_gpu_and_agree(
    found: Backends, material: Material, meter: Meter, stage: Any
) -> None:
    agrees(run_picture(stage, material, found.sights, meter))


def agrees(result: StageResult) -> None:
    assert result.fault is None
    assert not result.own and result.runs_on != HOST
    assert result.passed, f"differs by {result.difference} {result.unit}"


def test_captured_frames_are_those_of_the_clip_in_order(jetson: Any, meter: Meter) -> None:
    result = capture_result(meter)
    assert not result.own and result.runs_on.startswith("jetson-utils")
    assert result.passed and result.in_order, result
    assert result.frames > 1 and result.host_ms is not None


def test_the_flow_engine_is_measured_against_the_truth_and_the_host(found: Backends, meter: Meter) -> None:
    result = flow_errors(found.ops, meter)
    assert not result.own and "OFA" in result.runs_on
    assert result.passed and result.found is not None and result.host is not None


def test_the_encoder_is_compared_in_full_and_selectively(found: Backends, material: Material, meter: Meter) -> None:
    result = encoder_result(found, material, meter)
    assert not result.own and "TensorRT" in result.runs_on
    assert result.passed and result.full is not None and result.full[0] > 0.999


def test_the_words_are_compared_and_timed_beside_the_host_s(found: Backends, material: Material, meter: Meter) -> None:
    result = words_result(found, material, meter)
    assert not result.own and "TensorRT" in result.runs_on
    assert result.passed and result.cosine is not None and result.cosine > 0.999
    assert result.pace is not None and result.host_pace is not None and result.pace.pieces == result.host_pace.pieces


WRONG = """
import sys
from dataclasses import replace
from vpi_ops.cuda import Kernels

right = Kernels.patches

def wrong(self, sampled, slots, fine, coarse, format, *where):
    right(self, sampled, slots, fine, coarse, replace(format, shift=(0.0, 0.0, 0.0)), *where)

Kernels.patches = wrong
"""
"""Patches for the encoder are half as bright again."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which kernels and engines are built once."""
    path = f"{ROOT / 'tests/jetson_sim'}{os.pathsep}{ROOT}"
    own = {name: str(tmp_path_factory.mktemp(name)) for name in ("XDG_CACHE_HOME", "STILLWATCH_ENGINES")}
    return {**os.environ, **own, "PYTHONPATH": path, "NVCC": "/bin/true", "STILLWATCH_SIM_TENSORRT": "10.3.0"}


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["", WRONG], ids=["right", "wrong"])
def test_the_command_compares_every_part_and_fails_when_one_differs(
    broken: str, tmp_path: Path, kept: dict[str, str]
) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-c", f"{broken}\nfrom agent.cli import main\nmain()", "doctor", "--acceptance"]
    command += ["--out", str(report), "--soak-seconds", "1" if broken else "20", "--stage-seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=kept, cwd=tmp_path, check=False)
    found = json.loads(report.read_text())
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert set(stages) == {*(stage.name for stage in PICTURES), *(stage.name for stage in STAGES)}
    assert found["own"] == []
    assert found["capture"]["passed"] and found["flow"]["passed"] and found["words"]["passed"]
    assert found["flow"]["check_differs"] is not None
    wrong = {"patches for the encoder"} if broken else set()
    assert {name for name, stage in stages.items() if stage["passed"] is not True} == wrong
    assert found["encoder"]["passed"] is not bool(broken)
    if broken:
        assert done.returncode == 1 and done.stdout.endswith("Not accepted.\n"), done.stderr
        # What a second of the whole agent comes to, on a busy machine, stands behind them.
        assert [failure.partition(" on ")[0] for failure in found["failures"][:2]] == [*wrong, "encoder"]
        assert "grey levels from the host's, expected 2 or less" in found["failures"][0]
    else:
        assert done.returncode == 0 and done.stdout.endswith("Accepted.\n"), (found["failures"], done.stderr)
