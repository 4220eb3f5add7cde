"""The acceptance test on a simulated Jetson: what is compared agrees with the host, and the rest is told to be its."""

from __future__ import annotations

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
from agent.acceptance.stages import HOST, STAGES, Material, run_stage
from agent.power.sensors import Sensors
from engines.manifest import find_model, load_model


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
    result = run_stage(stage, material, found.ops, meter)
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
