"""The acceptance test of a machine: what it finds right, what it finds wrong, and what it says is the host's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_sysfs import Board
from numpy.typing import NDArray

from agent.acceptance import accept, lines
from agent.acceptance.backends import Backends, Encoders, Ops, Sights, Words, backends
from agent.acceptance.encoding import encoder_result
from agent.acceptance.flow import flow_errors
from agent.acceptance.meter import Meter
from agent.acceptance.picturing import OnCpu, Patches
from agent.acceptance.soak import failures, growth_mb_per_minute
from agent.acceptance.speaking import words_result
from agent.acceptance.stages import HOST, PICTURES, STAGES, Material, run_picture, run_stage
from agent.board import read_board
from agent.power.sensors import Sensors
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.language import LanguageModel
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, TokenMap
from vpi_ops.host import HostOps
from vpi_ops.interface import FlowField, PatchPyramid, Residual

ORIN = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64"


@pytest.fixture(scope="module")
def host() -> Backends:
    return backends(load_model(find_model("reference")))


@pytest.fixture(scope="module")
def material(host: Backends) -> Material:
    return Material.of(host.model.manifest)


@pytest.fixture
def meter(tmp_path: Path) -> Meter:
    return Meter(Sensors(tmp_path), 0.0)


class Twin(HostOps):
    """Another implementation that does the same."""

    def residual(self, current: PatchPyramid, reference: PatchPyramid) -> Residual:
        return super().residual(current, reference)


class Wrong(Twin):
    """One still patch is said to have changed, the histogram is not to be had, and all flow points the other way."""

    def residual(self, current: PatchPyramid, reference: PatchPyramid) -> Residual:
        found = super().residual(current, reference)
        found.patch[7] = 99
        return found

    def histogram(self, pyramid: PatchPyramid) -> NDArray[np.float32]:
        raise RuntimeError("VPI_ERROR_NOT_IMPLEMENTED")

    def flow(self, *arguments: Any, **named: Any) -> FlowField:
        found = super().flow(*arguments, **named)
        return FlowField(-found.backward, found.scale)


class Noisy(OnnxEncoder):
    """Token 3 is wrong whenever it is encoded."""

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        found = super().encode(picture, plan)
        found.features[3] = -found.features[3]
        return found


def test_a_plain_machine_is_accepted_and_every_stage_is_told_to_be_its_own(tmp_path: Path) -> None:
    Board(tmp_path / "sys")
    report = accept(soak_s=5, each_s=0.01, root=tmp_path)
    assert report["passed"], report["failures"]
    named = {*(stage.name for stage in PICTURES), *(stage.name for stage in STAGES)}
    assert set(report["own"]) == {*named, "capture", "flow", "encoder", "words"}
    assert {stage["stage"] for stage in report["stages"]} == named
    assert all(stage["difference"] is None for stage in report["stages"])
    assert all(stage["watts"] == pytest.approx(15.2) for stage in report["stages"])
    assert report["flow"]["found"]["moving_px"] < report["flow"]["no_motion"]["moving_px"]
    assert report["soak"]["mb_per_minute"] is None  # nobody can tell after five seconds
    assert min(report["soak"]["frames"].values()) > 0
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert lines(report)[-1] == "Accepted."


def test_another_implementation_that_does_the_same_passes_and_is_compared(material: Material, meter: Meter) -> None:
    results = {stage.name: run_stage(stage, material, Ops(Twin(), HostOps(), "twin"), meter) for stage in STAGES}
    residual, warp = results["residual"], results["token warp"]
    assert (residual.own, residual.runs_on, residual.difference, residual.passed) == (False, "twin", 0.0, True)
    assert (warp.own, warp.runs_on, warp.passed) == (True, HOST, None)
    assert residual.host_ms is not None and warp.host_ms is None


def test_what_differs_or_fails_is_found_by_name(material: Material, meter: Meter) -> None:
    results = {stage.name: run_stage(stage, material, Ops(Wrong(), HostOps(), "wrong"), meter) for stage in STAGES}
    assert (results["residual"].difference or 0) > 80 and results["residual"].passed is False
    assert results["HSV histogram"].fault == "RuntimeError: VPI_ERROR_NOT_IMPLEMENTED"
    assert results["HSV histogram"].passed is False
    assert results["residual between frames"].passed is None


class Shifted(OnCpu):
    """Coarse patches are those of the neighbouring cell; pictures are right."""

    def patches(self, slots: NDArray[np.int64], cells: NDArray[np.int64]) -> Patches:
        return super().patches(slots, cells[::-1])


def test_patches_of_other_places_are_found_though_the_picture_is_right(material: Material, meter: Meter) -> None:
    shifted = Sights(Shifted(material.preprocessor), OnCpu(material.preprocessor), "shifted")
    found = [run_picture(stage, material, shifted, meter) for stage in PICTURES]
    assert [(result.own, result.passed) for result in found] == [(False, True), (False, True), (False, False)]
    assert (found[-1].difference or 0) > 50


class Careless(HostOps):
    """Finds all flow consistent."""

    def check(self, flow: FlowField, previous: NDArray[np.uint8], current: NDArray[np.uint8]) -> FlowField:
        return replace(flow, error=np.zeros(flow.backward.shape[:2], np.float32))


def test_a_check_that_finds_all_flow_consistent_is_refused(meter: Meter) -> None:
    found = flow_errors(Ops(Careless(), HostOps()), meter)
    assert (found.own, found.passed) == (True, False)
    assert found.check_differs is not None and found.check_differs > 0.01


def test_flow_that_points_the_other_way_is_refused(meter: Meter) -> None:
    wrong = flow_errors(Ops(Wrong(), HostOps()), meter)
    assert not wrong.own and not wrong.passed
    assert wrong.found is not None and wrong.host is not None
    assert wrong.found.moving_px > wrong.no_motion.moving_px > wrong.host.moving_px


def test_one_wrong_token_in_four_hundred_fails_the_encoder(host: Backends, material: Material, meter: Meter) -> None:
    runtime = OnnxRuntime(host.model, spin=False)
    noisy = Encoders(Noisy(runtime), OnnxEncoder(runtime), "noisy")
    result = encoder_result(replace(host, encoders=noisy), material, meter)
    assert result.passed is False and result.full is not None
    assert result.full[1] == pytest.approx(-1, abs=1e-3)


class Muddled(LanguageModel):
    """Sees pictures upside down."""

    def visual_tokens(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().visual_tokens(features[::-1])


def test_a_decoder_that_reads_something_else_fails_the_words(host: Backends, material: Material, meter: Meter) -> None:
    runtime = OnnxRuntime(host.model, spin=False)
    muddled = Words(Muddled(runtime), LanguageModel(runtime), "muddled")
    result = words_result(replace(host, words=muddled), material, meter)
    assert result.passed is False and result.cosine is not None and result.cosine < 0.999
    same = words_result(host, material, meter)
    assert (same.own, same.passed, same.cosine, same.host_pace) == (True, None, None, None)
    assert same.pace is not None and same.pace.pieces > 1 and same.pace.answer.ms > same.pace.first.ms > 0


def test_a_leak_is_told_from_the_sawtooth_of_an_allocator() -> None:
    sawtooth = [(t, 400 + 3 * (t % 10)) for t in np.arange(60.0, 300.0)]
    leak = [(t, mb + t / 15) for t, mb in sawtooth]  # 4 MB a minute
    assert growth_mb_per_minute(sawtooth, 300) == pytest.approx(0, abs=0.5)
    assert growth_mb_per_minute(leak, 300) == pytest.approx(4, abs=0.5)
    assert growth_mb_per_minute(leak, 60) is None
    assert failures({"a": 9}, 0, 0.1, 0) == ()
    assert failures({"a": 9, "b": 0}, 2, 4.0, 9) == (
        "b: no frame was handled",
        "2 frames failed",
        "memory grew by 4.0 MB a minute, expected 2 or less",
        "9 more file descriptors at the end, expected 4 or fewer",
    )


@pytest.mark.parametrize(
    ("release", "l4t", "jetpack"),
    [(ORIN, "36.4.3", "6"), (ORIN.replace("R36", "R38"), "38.4.3", "7"), (ORIN.replace("R36", "R99"), "99.4.3", None)],
)
def test_the_board_is_known_by_its_release(tmp_path: Path, release: str, l4t: str, jetpack: str | None) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(release)
    board = read_board(tmp_path)
    assert board.is_jetson and board.l4t == l4t
    assert (board.jetpack and board.jetpack.name) == jetpack


def test_a_machine_without_that_file_is_no_jetson(tmp_path: Path) -> None:
    assert not read_board(tmp_path).is_jetson
