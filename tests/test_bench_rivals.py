"""The rivals of the benchmark: each does what it is known for, and the verdict is fair to it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from coherence_standin import frame, texture
from engines_checkpoint import Size, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.bench.eventful import rivals
from agent.bench.every_n import EveryN
from agent.bench.gates import MotionGate, PreviousFrameGate
from agent.bench.verdict import speedup_at
from agent.coherence.costs import EncodeCosts
from engines.export import export_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor

SIDE = 56


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntime:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, Size(image=SIDE))
    return OnnxRuntime(export_model(folder, name="random", domain="noise", prompt="{image}{question}"), threads=1)


def full(runtime: OnnxRuntime, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return OnnxEncoder(runtime).encode_full(Preprocessor(runtime.model.manifest).picture(image))


def pictures() -> list[NDArray[np.uint8]]:
    """Two that differ in one patch, then one that differs everywhere."""
    first, third = texture(1, (SIDE, SIDE)), texture(2, (SIDE, SIDE))
    second = first.copy()
    second[14:28, 28:42] = third[14:28, 28:42]
    return [first, second, second, third, first]


def test_open_gates_let_everything_through_and_equal_the_full_encode(runtime: OnnxRuntime) -> None:
    by_norm, by_rank = rivals(runtime, thresholds=[0.0], shares=[1.0])
    for index, image in enumerate(pictures()):
        truth = full(runtime, image)
        np.testing.assert_allclose(by_norm.process(frame(image, index)), truth, atol=1e-4)
        np.testing.assert_allclose(by_rank.process(frame(image, index)), truth, atol=1e-4)


def test_shut_gates_keep_the_first_frame_but_for_what_goes_around_them(runtime: OnnxRuntime) -> None:
    (shut,) = rivals(runtime, thresholds=[1e9], shares=[])
    first, second, *_ = pictures()
    kept = shut.process(frame(first, 0)).copy()
    later = shut.process(frame(second, 1))
    changed = np.abs(later - kept).max(axis=1) > 1e-6
    assert np.flatnonzero(changed).tolist() == [6]  # the patch itself still comes in beside the blocks


def test_a_gate_remembers_what_it_let_through_so_a_slow_fade_is_seen(runtime: OnnxRuntime) -> None:
    dark, bright = texture(1, (SIDE, SIDE)) // 2, texture(1, (SIDE, SIDE)) // 2 + 60
    fade = [(dark + (bright - dark) * (step / 60)).astype(np.uint8) for step in range(61)]
    (gated,) = rivals(runtime, thresholds=[0.5], shares=[])
    previous = PreviousFrameGate(runtime, EncodeCosts.of({1: 1.0, 16: 16.0}), 3.0)
    for index, image in enumerate(fade):
        seen, missed = gated.process(frame(image, index)), previous.process(frame(image, index))
    truth = full(runtime, fade[-1])
    assert np.abs(seen - truth).mean() < 0.5 * np.abs(missed - truth).mean()
    np.testing.assert_allclose(missed, full(runtime, fade[0]), atol=1e-4)


def test_a_motion_gate_encodes_what_moves_and_holds_what_does_not(runtime: OnnxRuntime) -> None:
    still = texture(3, (320, 200), grain=20)
    walker = still.copy()
    walker[80:140, 100:140] = 255 - walker[80:140, 100:140]
    gate = MotionGate(runtime, 30.0)
    held = gate.process(frame(still, 0))
    assert gate.process(frame(cv2.add(still, (2.0, 2.0, 2.0, 0.0)), 1)) is held
    moved = gate.process(frame(walker, 2))
    assert moved is not held
    np.testing.assert_array_equal(moved, full(runtime, walker))


def test_every_n_holds_a_result_until_the_next_and_costs_its_share() -> None:
    frames, seen = 24, np.ones(1, bool)
    turns = [np.array([[np.cos(0.1 * i), np.sin(0.1 * i)]], np.float32) for i in range(frames)]
    rival = EveryN(sampled=False)
    for index, truth in enumerate(turns):
        rival.take(index, truth)
        rival.compare(index, truth, seen)
    nearest, *others = rival.reports(frames, speedup=5.9)
    assert (nearest["setting"], nearest["equal_cost"], nearest["speedup"]) == ({"n": 6}, True, 6.0)
    assert nearest["fidelity"]["mean"] == pytest.approx(np.mean(np.cos(0.1 * (np.arange(frames) % 6))), abs=1e-6)
    assert [other["setting"]["n"] for other in others] == [2, 4, 8, 16]
    assert not any(other["equal_cost"] for other in others)


def test_sampled_frames_get_the_anchors_that_every_n_needs() -> None:
    rival = EveryN(sampled=True)
    wanted = [index for index in range(128) if rival.wants(index, lambda index: index == 77)]
    assert wanted == [64, 72, 76]


@given(st.lists(st.tuples(st.floats(0.5, 1), st.floats(1, 100)), min_size=1), st.floats(0.5, 1))
def test_a_rival_is_never_slower_than_a_setting_that_is_true_enough(
    points: list[tuple[float, float]], fidelity: float
) -> None:
    found = speedup_at(fidelity, points)
    enough = [speedup for true, speedup in points if true >= fidelity]
    assert max(enough, default=1.0) * (1 - 1e-9) <= found <= max(1.0, *(s for _, s in points)) * (1 + 1e-9)


def test_between_two_settings_a_rival_takes_turns() -> None:
    assert speedup_at(0.95, [(0.9, 4.0)]) == pytest.approx(1 / (0.5 / 4 + 0.5))
    assert speedup_at(0.8, [(0.9, 4.0), (0.95, 0.5)]) == 4
