"""The coherent path as a whole: what it saves, what it must never show, how it fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy

import cv2
import numpy as np
import pytest
from coherence_standin import PATCH, LinearEncoder, Stretch, costs, frame, texture
from numpy.typing import NDArray

from agent.coherence.cuts import token_cosines
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.result import FrameResult
from agent.coherence.settings import CoherenceSettings
from config.errors import EngineFault
from engines.plan import Mode
from vpi_ops.host import HostOps
from vpi_ops.interface import FlowField

SIDE = 8 * PATCH
IN_TIME = CoherenceSettings(flow_deadline_ms=60_000)
Image = NDArray[np.uint8]


class Ops(HostOps):
    """Host operations of which one can be told to fail or to be slow."""

    failing: str = ""
    slow_s: float = 0.0

    def fill(self, pyramid, picture):  # type: ignore[no-untyped-def]
        if self.failing == "fill":
            raise RuntimeError("told to fail")
        super().fill(pyramid, picture)

    def flow(
        self,
        previous: Image,
        current: Image,
        scale: tuple[float, float],
        region: tuple[int, int, int, int] | None = None,
    ) -> FlowField:
        time.sleep(self.slow_s)
        if self.failing == "flow":
            raise RuntimeError("told to fail")
        return super().flow(previous, current, scale, region)


@pytest.fixture
def encoder() -> LinearEncoder:
    return LinearEncoder()


@pytest.fixture
def ops() -> Ops:
    return Ops()


@pytest.fixture
def vlm(encoder: LinearEncoder, ops: Ops) -> Iterator[TemporalVLM]:
    made = build(encoder, ops)
    yield made
    made.close()


def build(encoder: LinearEncoder, ops: HostOps, settings: CoherenceSettings = IN_TIME) -> TemporalVLM:
    return TemporalVLM(Stretch(SIDE), encoder, ops, settings, costs=costs())


def passing(background: Image, steps: int, start: int = 0) -> list[Image]:
    """A mottled block that crosses the picture, two pixels a frame."""
    images = []
    for step in range(start, start + steps):
        image = background.copy()
        image[50:90, 10 + 2 * step : 50 + 2 * step] = texture(99, (40, 40))
        images.append(image)
    return images


def test_a_still_camera_costs_one_encode(vlm: TemporalVLM, encoder: LinearEncoder) -> None:
    still = texture(1)
    modes = [vlm.process(frame(still, i)).mode for i in range(6)]
    assert modes == [Mode.FULL, *[Mode.REUSE] * 5]
    assert sum(encoder.runs) == 64


def test_a_passing_object_costs_its_patches_and_stays_true(vlm: TemporalVLM, encoder: LinearEncoder) -> None:
    first, *rest = passing(texture(2), 20)
    vlm.process(frame(first, 0))
    flows = 0
    encoded = []
    for index, image in enumerate(rest, start=1):
        result = vlm.process(frame(image, index))
        flows += result.flow is not None
        assert result.mode is Mode.HIERARCHICAL_DIFF
        assert result.tokens_encoded
        encoded.append(result.tokens_encoded)
        truth = encoder.encode_full(Stretch(SIDE).picture(image))
        assert token_cosines(result.tokens.features, truth).mean() > 0.995
        np.testing.assert_array_equal(result.accumulated[result.changed], result.tokens.features[result.changed])
    assert np.mean(encoded) < 16
    inside_the_block = 4 * 8 + 2
    assert result.motion[inside_the_block, 0] == pytest.approx(-2, abs=0.7)
    assert 0 < result.avg_motion < 0.1
    assert flows == 5, "flow that finds nothing to fetch rests for three frames of four"


def test_a_scene_that_has_settled_keeps_no_drift_worth_an_encode(vlm: TemporalVLM, encoder: LinearEncoder) -> None:
    images = passing(texture(3), 10)
    images += [images[-1]] * 12
    results = [vlm.process(frame(image, i)) for i, image in enumerate(images)]
    truth = encoder.encode_full(Stretch(SIDE).picture(images[-1]))
    assert results[-1].mode is Mode.REUSE
    assert token_cosines(results[-1].tokens.features, truth).min() > 1 - IN_TIME.settle_drift


def test_after_a_linear_fade_every_patch_was_encoded_again(vlm: TemporalVLM) -> None:
    bright = np.maximum(texture(4), 90)
    vlm.process(frame(bright, 0))
    seen = np.zeros(64, bool)
    for step in range(1, 61):
        result = vlm.process(frame(bright - np.uint8(step), step))
        seen[slice(None) if result.dirty is None else result.dirty] = True
    assert seen.all()


@pytest.mark.parametrize("image", [texture(5), texture(6, (176, 144))])
def test_nothing_from_before_a_break_survives_it(image: Image) -> None:
    """A cut, a discontinuity, a new frame size: from there on all is as in a pipeline that saw no more."""
    before = passing(texture(7), 12)
    after = passing(255 - cv2.convertScaleAbs(image, alpha=0.4), 10)
    for broken in (False, True):
        used, fresh = build(LinearEncoder(), HostOps()), build(LinearEncoder(), HostOps())
        for i, each in enumerate(before):
            used.process(frame(each, i))
        fresh.fidelity = deepcopy(used.fidelity)  # what was learned of the camera is no memory of the scene
        expected = [_kept(fresh.process(frame(each, i))) for i, each in enumerate(after)]
        results = [used.process(frame(each, i, discontinuity=broken and i == 0)) for i, each in enumerate(after[:1])]
        is_cut = not broken and image.shape == before[0].shape
        assert results[0].mode is (Mode.SCENE_CUT_FULL if is_cut else Mode.FULL)
        assert results[0].cut is is_cut
        assert results[0].tokens_encoded == 64
        got = [_kept(results[0])] + [_kept(used.process(frame(each, i))) for i, each in enumerate(after) if i]
        for ours, theirs in zip(got, expected, strict=True):
            for mine, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(mine, other)
        used.close()
        fresh.close()


def _kept(result: FrameResult) -> tuple[NDArray[np.generic], ...]:
    dirty = np.arange(64) if result.dirty is None else result.dirty
    arrays = (result.tokens.features, result.accumulated, result.residual, result.changed, result.motion, dirty)
    return tuple(array.copy() for array in arrays)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (-5, 2), (0, -4), (9, 6)])
def test_a_pan_encodes_what_it_reveals(encoder: LinearEncoder, right: int, down: int) -> None:
    """Once the grid is locked only what comes into view is encoded, and each region lies where it is in the frame."""
    wide = texture(8, (700, 700), grain=14)
    vlm = build(encoder, HostOps())
    encoded = []
    for step in range(20):
        x, y = 220 + step * right, 220 + step * down
        image = np.ascontiguousarray(wide[y : y + 180, x : x + 240])
        result = vlm.process(frame(image, step))
        encoded.append(result.tokens_encoded)
        assert result.picture is not None and result.placement is not None
        x0, y0, x1, y1 = result.placement.crop
        np.testing.assert_array_equal(result.picture, Stretch(SIDE).picture(image, crop=(x0, y0, x1, y1)))
    assert result.camera_px == pytest.approx((-right, -down), abs=0.3)
    assert np.mean(encoded[6:]) < 16
    truth = encoder.encode_full(result.picture)
    assert token_cosines(result.tokens.features, truth).mean() > 0.985
    vlm.close()


def test_a_shaking_camera_costs_nothing(encoder: LinearEncoder) -> None:
    wide = texture(18, (400, 300), grain=14)
    vlm = build(encoder, HostOps())
    rng = np.random.default_rng(1)
    encoded = []
    for step in range(30):
        x, y = 60 + rng.integers(-4, 5, 2)
        encoded.append(vlm.process(frame(np.ascontiguousarray(wide[y : y + 180, x : x + 240]), step)).tokens_encoded)
    assert sum(encoded[8:]) <= 64
    vlm.close()


def test_a_zoom_falls_back_to_full_encodes_and_stays_true(encoder: LinearEncoder) -> None:
    wide = texture(19, (480, 360), grain=10)
    vlm = build(encoder, HostOps())
    for step in range(12):
        part = wide[4 * step : 360 - 4 * step, 5 * step : 480 - 5 * step]
        image = np.asarray(cv2.resize(part, (240, 180), interpolation=cv2.INTER_AREA), np.uint8)
        result = vlm.process(frame(image, step))
        assert result.picture is not None
        truth = encoder.encode_full(result.picture)
        assert token_cosines(result.tokens.features, truth).mean() > 0.97
    vlm.close()


def test_a_budget_is_met_with_coarse_tokens_that_are_refined_later(encoder: LinearEncoder) -> None:
    settings = CoherenceSettings(flow_deadline_ms=60_000, budget_tokens=8)
    vlm = build(encoder, HostOps(), settings)
    before = texture(20)
    after = before.copy()
    after[20:80, 20:100] = texture(21, (80, 60))
    vlm.process(frame(before, 0))
    first = vlm.process(frame(after, 1))
    assert first.tokens_encoded <= 8
    assert first.reasons["coarse"] > 0
    assert first.tokens.coarse.any()
    results = [vlm.process(frame(after, 2 + i)) for i in range(16)]
    assert max(result.tokens_encoded for result in results) <= 8
    assert not results[-1].tokens.coarse.any()
    truth = encoder.encode_full(Stretch(SIDE).picture(after))
    assert token_cosines(results[-1].tokens.features, truth).mean() > 0.999
    vlm.close()


def test_a_failed_encode_costs_the_frame_its_coherence_only(vlm: TemporalVLM, encoder: LinearEncoder) -> None:
    images = passing(texture(9), 3)
    vlm.process(frame(images[0], 0))
    encoder.failing = 1
    result = vlm.process(frame(images[1], 1))
    assert result.mode is Mode.FULL
    assert result.reasons == {"fault": 64}
    np.testing.assert_array_equal(result.tokens.features, encoder.encode_full(Stretch(SIDE).picture(images[1])))
    assert vlm.process(frame(images[2], 2)).mode is Mode.FULL
    assert vlm.faults == {"encode": 1}


def test_when_the_full_encode_fails_too_the_last_good_result_stands(vlm: TemporalVLM, encoder: LinearEncoder) -> None:
    images = passing(texture(10), 4)
    good = vlm.process(frame(images[0], 0)).tokens.features.copy()
    encoder.failing = 4
    for index in (1, 2):
        result = vlm.process(frame(images[index], index))
        assert result.mode is Mode.ERROR
        assert (result.frame_index, result.tokens_encoded) == (index, 0)
        np.testing.assert_array_equal(result.tokens.features, good)
    assert vlm.process(frame(images[3], 3)).mode is Mode.FULL
    assert vlm.faults == {"encode": 4}


def test_a_first_frame_that_fails_is_an_error_without_features(vlm: TemporalVLM, encoder: LinearEncoder) -> None:
    encoder.failing = 2
    result = vlm.process(frame(texture(11), 0))
    assert result.mode is Mode.ERROR
    assert not result.tokens.features.any()


@pytest.mark.parametrize("operation", ["fill", "flow"])
def test_operations_that_keep_failing_leave_full_encodes(vlm: TemporalVLM, ops: Ops, operation: str) -> None:
    images = passing(texture(12), 6)
    vlm.process(frame(images[0], 0))
    ops.failing = operation
    assert all(vlm.process(frame(image, i)).mode is Mode.FULL for i, image in enumerate(images[1:], start=1))
    ops.failing = ""
    modes = [vlm.process(frame(image, 6 + i)).mode for i, image in enumerate(images)]
    assert modes[2:] == [Mode.HIERARCHICAL_DIFF] * 4


def test_a_late_flow_is_dropped_and_the_frame_goes_on(encoder: LinearEncoder, ops: Ops) -> None:
    vlm = build(encoder, ops, CoherenceSettings(flow_deadline_ms=20))
    images = passing(texture(13), 6)
    vlm.process(frame(images[0], 0))
    ops.slow_s = 0.3
    results = [vlm.process(frame(image, i)) for i, image in enumerate(images[1:4], start=1)]
    assert all(result.flow is None and not result.motion.any() for result in results)
    assert all(result.mode is Mode.HIERARCHICAL_DIFF for result in results)
    assert vlm.late_flows == 3
    assert not vlm.faults
    vlm.close()


def test_a_query_is_answered_by_the_describer(encoder: LinearEncoder) -> None:
    def describe(frame: object, result: FrameResult, query: str) -> str:
        if not query:
            raise EngineFault("nothing asked")
        return f"{query} {result.mode.value}"

    vlm = TemporalVLM(Stretch(SIDE), encoder, HostOps(), costs=costs(), describer=describe)
    assert vlm.process(frame(texture(14), 0), "What?").text == "What? full"
    assert vlm.process(frame(texture(14), 1)).text is None
    failed = vlm.process(frame(texture(14), 2), "")
    assert (failed.text, failed.mode) == (None, Mode.REUSE)
    assert vlm.faults == {"text": 1}
    vlm.close()


def test_a_query_without_a_describer_is_misuse(vlm: TemporalVLM) -> None:
    with pytest.raises(ValueError, match="describer"):
        vlm.process(frame(texture(15), 0), "What?")


def test_stages_add_up_to_the_frame(encoder: LinearEncoder) -> None:
    ticks = iter(range(1000))
    vlm = TemporalVLM(Stretch(SIDE), encoder, HostOps(), costs=costs(), clock=lambda: float(next(ticks)))
    stages = vlm.process(frame(texture(16), 0)).stages_ms
    assert set(stages) == {"preprocess", "residual", "cut", "flow", "plan", "encode", "blend"}
    assert sum(stages.values()) == 1000 * (next(ticks) - 1)
    vlm.close()
