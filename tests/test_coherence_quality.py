"""What the measures of quality call coherent, a ghost, flicker and consistent, and what they don't."""

from __future__ import annotations

import numpy as np
import pytest
from coherence_standin import PATCH, LinearEncoder, Stretch, costs, frame, texture
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.coherence.accumulator import Accumulator
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.quality import (
    Coherence,
    FeatureConsistency,
    Flicker,
    FlickerDetector,
    GhostDetector,
    TextConsistency,
    correlation,
    warp_error,
    word_cosine,
)
from agent.coherence.settings import CoherenceSettings
from agent.metrics import Metrics
from vpi_ops.host import HostOps

GRID = (6, 8)
TOKENS, DIM = 48, 32
Floats = NDArray[np.float32]
ALL = np.ones(TOKENS, bool)
NONE = np.zeros(TOKENS, bool)


def features(seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(TOKENS, DIM)).astype(np.float32)


def level(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image[:96, :128]).reshape(TOKENS, -1, 3)


# Coherence ------------------------------------------------------------------------------------------------------------


def test_correlation_is_that_of_numpy_and_blind_to_exposure() -> None:
    a, b = level(texture(1)), level(texture(2))
    expected = np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1]
    assert correlation(a, b) == pytest.approx(expected, abs=0.01)
    darker = (a * 0.6 + 10).astype(np.uint8)
    assert correlation(a, a) == pytest.approx(1)
    assert correlation(darker, a) > 0.995
    assert correlation(255 - a, a) == pytest.approx(-1, abs=0.01)


def test_the_noise_of_two_dark_pictures_is_no_incoherence_and_padding_does_not_count() -> None:
    rng = np.random.default_rng(0)
    dark = [rng.integers(5, 8, (TOKENS, 16, 3), dtype=np.uint8) for _ in range(2)]
    assert Coherence.of(correlation(*dark)) is Coherence.HIGH
    a, b, seen = level(texture(1)), level(texture(2)), ALL.copy()
    seen[24:] = False
    half = correlation(a, b, seen)
    a[24:], b[24:] = 0, 0
    assert correlation(a, b, seen) == half != pytest.approx(correlation(a, b), abs=0.05)
    assert correlation(a, b, NONE) == 1


def test_classes_have_the_bounds_of_the_field() -> None:
    values = (1.0, 0.81, 0.8, 0.5, 0.49, -1.0)
    assert [Coherence.of(value).value for value in values] == ["high", "high", "medium", "medium", "low", "low"]


def test_warp_error_is_a_share_of_what_sees_picture() -> None:
    wrong = np.arange(TOKENS) < 12
    assert warp_error(wrong, ALL) == 0.25
    assert warp_error(wrong, wrong) == 1
    assert warp_error(ALL, NONE) == 0


# Ghosting -------------------------------------------------------------------------------------------------------------


def test_a_blend_that_keeps_what_is_gone_is_found_and_ends() -> None:
    accumulator, detector = Accumulator(HostOps(), GRID, static=0.95), GhostDetector(TOKENS, DIM, frames=5)
    before, after = features(1), features(1)
    after[10:14] = features(2)[10:14]
    accumulator.process(before, np.zeros(TOKENS, np.float32), NONE)
    found = []
    for index in range(12):
        blended = accumulator.process(after, np.zeros(TOKENS, np.float32), NONE)  # nobody says what was replaced
        ghosts = detector.process(blended, after, (np.arange(TOKENS) < 20) & (index == 0))
        blended[ghosts] = after[ghosts]
        found += [(index, slot) for slot in ghosts.tolist()]
    assert found == [(5, slot) for slot in range(10, 14)]
    assert detector.found == 4
    np.testing.assert_allclose(blended, after, atol=1e-5)


def test_what_was_replaced_at_once_or_swings_or_was_not_touched_is_no_ghost() -> None:
    accumulator, detector = Accumulator(HostOps(), GRID, static=0.95), GhostDetector(TOKENS, DIM)
    still = np.zeros(TOKENS, np.float32)
    a, b = features(1), features(2)
    accumulator.process(a, still, NONE)
    for index in range(30):
        now = a.copy()
        now[:8] = b[:8]  # replaced, and the accumulator is told so
        now[8:16] = (a, b)[index // 2 % 2][8:16]  # to and fro every two frames
        now[16:24] = b[16:24]  # lags, but nobody saw it change
        blended = accumulator.process(now, still, np.arange(TOKENS) < (8 if index == 0 else 0))
        touched = (np.arange(TOKENS) < 16) & ((index == 0) | (np.arange(TOKENS) >= 8))
        assert not len(detector.process(blended, now, touched))


def test_a_ghost_is_found_where_its_token_has_gone() -> None:
    detector = GhostDetector(TOKENS, DIM, frames=3)
    current, kept = features(1), features(1)
    kept[5] = features(2)[5]
    step = np.roll(np.arange(TOKENS), 1)
    detector.process(kept, current, np.arange(TOKENS) == 5)
    detector.fetch(step)
    current, kept = current[step], kept[step]
    found = [detector.process(kept, current, NONE).tolist() for _ in range(3)]
    assert found == [[], [], [6]]
    detector.process(kept, current, np.arange(TOKENS) == 6)
    detector.reset()
    assert all(not len(detector.process(kept, current, NONE)) for _ in range(6))


# Flicker --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [12.5, 30.0])
@settings(max_examples=25)
@given(hz=st.floats(1.0, 5.0), jitter=st.floats(0, 0.2), seed=st.integers(0, 9))
def test_flicker_has_its_true_frequency_at_any_frame_rate(fps: float, hz: float, jitter: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    detector = FlickerDetector(TOKENS, DIM)
    base = features(3)
    swing = np.zeros_like(base)
    swing[10:20] = 0.4 * features(4)[10:20]
    noise = 0.01
    # A cycle of 5 s does not fit into two seconds of 30 frames each: at least 3 are asked for.
    hz = max(hz, 4 * fps / 64)
    for index in range(64):
        now_s = (index + rng.uniform(-jitter, jitter)) / fps
        wave = np.sin(2 * np.pi * hz * now_s)
        shaken = base + wave * swing + noise * rng.normal(size=base.shape)
        report = detector.process(shaken.astype(np.float32), now_s)
    assert report is not None and report is detector.latest
    assert (report.hz[:10] == 0).all() and (report.hz[20:] == 0).all()
    found = report.hz[10:20]
    assert (found > 0).sum() >= 7, "a projection may happen to lie across a token's swing"
    assert found[found > 0] == pytest.approx(hz, abs=0.6 * fps / 64)
    assert report.share == pytest.approx((found > 0).sum() / TOKENS)


@pytest.mark.parametrize("kind", ["still", "step", "drift", "passing", "noise", "squats"])
def test_what_does_not_come_back_at_a_frequency_is_no_flicker(kind: str) -> None:
    detector = FlickerDetector(TOKENS, DIM)
    rng = np.random.default_rng(5)
    base, other = features(3), features(4)
    reports = []
    for index in range(128):
        share = {
            "still": 0.0,
            "step": float(index >= 40),
            "drift": index / 128,
            "passing": float(30 <= index < 45),
            "noise": 0.3 * rng.normal(),
            "squats": 0.5 * np.sin(2 * np.pi * 0.3 * index / 5),
        }[kind]
        report = detector.process(base + np.float32(share) * other, index / (5 if kind == "squats" else 25))
        reports += [report] if report is not None else []
    assert len(reports) == 3
    assert all(report.share <= 0.05 for report in reports)


def test_a_video_that_begins_anew_is_another() -> None:
    detector = FlickerDetector(TOKENS, DIM, frames=16)
    found = []
    for index in range(40):
        found.append(detector.process((1 + 0.5 * (-1) ** (index // 2)) * features(1), (index % 20) / 25))
    assert [index for index, each in enumerate(found) if each is not None] == [15, 35]
    assert found[15] is not None and found[15].median_hz == pytest.approx(25 / 4, abs=1)


# Consistency ----------------------------------------------------------------------------------------------------------


def test_consistency_does_not_hang_on_the_frame_rate_and_tells_unrest_from_change() -> None:
    reports = []
    for fps in (10, 40):
        measure = FeatureConsistency(lag_s=0.2)
        for index in range(4 * fps + 1):
            seconds = index // (fps // 10) / 10  # the picture has ten states a second, however often it is taken
            turned = features(1).copy()
            turned[:8] = np.cos(seconds) * features(1)[:8] + np.sin(seconds) * features(2)[:8]
            turned[8:16] = features(3 + int(seconds * 10) % 2)[8:16]
            measure.process(turned, np.arange(TOKENS) < 8, index / fps)
        reports.append(measure.report)
    slow, fast = reports
    assert slow.pairs == fast.pairs == 20
    assert slow.every == pytest.approx(fast.every) and slow.still == pytest.approx(fast.still)
    assert slow.every is not None and slow.still is not None and slow.every < slow.still <= 1


def test_nothing_is_compared_across_a_cut() -> None:
    measure = FeatureConsistency(lag_s=0.1)
    for index in range(20):
        if index == 10:
            measure.reset()
        measure.process(features(index // 10), NONE, index / 10)
    assert measure.report.every == measure.report.still == pytest.approx(1)
    assert measure.report.pairs == 18


@settings(max_examples=25)
@given(fps=st.integers(4, 60), period_s=st.sampled_from([1.0, 2.0, 4.0]))
def test_text_flickers_as_often_as_it_comes_back(fps: int, period_s: float) -> None:
    measure = TextConsistency()
    seconds = 40
    for index in range(seconds * fps + 1):
        second_half = (index / fps) % period_s >= period_s / 2
        measure.process("A car on the left." if second_half else "Nothing is there.", index / fps)
    report = measure.report
    assert report.seconds == pytest.approx(seconds)
    assert report.flicker_hz == pytest.approx(1 / period_s, abs=1.5 / seconds)
    assert report.changes == pytest.approx(2 * seconds / period_s, abs=1)


def test_changes_that_stay_are_no_flicker_however_many() -> None:
    measure = TextConsistency()
    for second in range(40):
        measure.process(f"Person {second // 2} stands there.", float(second))
    assert (measure.report.returns, measure.report.flicker_hz) == (0, 0)
    assert measure.report.changes == 19


def test_what_comes_back_late_or_after_a_cut_has_not_flickered() -> None:
    late, cut = TextConsistency(within_s=10), TextConsistency(within_s=10)
    for now_s, text in ((0.0, "a car"), (5.0, "a dog"), (16.0, "a car")):
        late.process(text, now_s)
        cut.process(text, now_s / 4)
        cut.reset()
    assert (late.report.changes, late.report.returns) == (2, 0)
    assert (cut.report.changes, cut.report.returns) == (0, 0)


def test_consistency_of_text_is_the_share_of_time_that_it_holds() -> None:
    for fps in (2, 25):
        measure = TextConsistency(lag_s=1)
        for index in range(10 * fps + 1):
            measure.process("one two" if index < 5 * fps else "three four", index / fps)
        assert measure.report.consistency == pytest.approx(8 / 9)  # of 9 s that can be compared, one differs wholly


def test_words_are_compared_whatever_their_order_and_case() -> None:
    assert word_cosine("A red car.", "a CAR, red") == pytest.approx(1)
    assert word_cosine("", "") == 1 and word_cosine("", "a") == 0
    assert 0.5 < word_cosine("a red car", "a blue car") < 0.9


# In the coherent path and the metrics --------------------------------------------------------------------------------


def test_every_frame_says_how_alike_it_is_to_the_one_before() -> None:
    patient = CoherenceSettings(flow_deadline_ms=60_000)
    vlm = TemporalVLM(Stretch(8 * PATCH), LinearEncoder(), HostOps(), patient, costs=costs())
    wide = texture(8, (700, 300), grain=14)
    moments = [wide[:180, :240]] * 5 + [wide[:180, 240 + 4 * i : 480 + 4 * i] for i in range(20)]
    found = [vlm.process(frame(image, i)) for i, image in enumerate(moments)]
    vlm.close()
    values = [result.coherence for result in found]
    assert values[0] is None and values[1:5] == [pytest.approx(1)] * 4
    assert values[5] is not None and Coherence.of(values[5]) is Coherence.LOW, "another picture"
    locked = [value for result, value in zip(found, values, strict=True) if value and result.camera_px[0] < -3.5]
    assert len(locked) > 5 and min(locked) > 0.95, "where the grid follows the camera, frames are alike"
    assert not sum(len(result.quality.ghosts) for result in found)


def test_a_prometheus_server_reads_quality_and_words() -> None:
    metrics, said = Metrics("0"), TextConsistency()
    for now_s, text in enumerate(("a car", "nothing", "a car", "a car")):
        said.process(text, float(now_s))
    metrics.watch_text("front", said)
    metrics.quality("front", 0.99, 0.7, 3, Flicker(np.array([0, 4], np.float32), np.ones(2, np.float32), 2.0))
    metrics.quality("front", None, None, 5, None)
    expected = {
        "fidelity_ratio": 0.99,
        "coherence_ratio": 0.7,
        "ghosts": 5,
        "flicker_ratio": 0.5,
        "flicker_hertz": 4,
        "text_changes_total": 2,
        "text_returns_total": 1,
        "text_consistency_ratio": 0,
    }
    read = metrics.registry.get_sample_value
    assert {name: read(f"stillwatch_{name}", {"camera": "front"}) for name in expected} == pytest.approx(expected)
