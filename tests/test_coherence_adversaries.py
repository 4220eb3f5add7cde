"""What looks like change and is none, and change that hides in it: light, lamps, text, weather, codecs, noise.

Each through the whole path with the reference model: tokens are counted, and features held against a full encode."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from coherence_reference import Seen, slots_in, watch
from numpy.typing import NDArray

from agent.capture.scene import Scene
from agent.coherence.settings import CoherenceSettings
from engines.plan import Mode

Image = NDArray[np.uint8]

WIDTH, HEIGHT = 320, 180
FLOOR = CoherenceSettings().fidelity_floor
SLACK = 0.005
"""By so much may a clip end below its floor."""
QUIET = 4.0
"""Tokens a frame, on average, that a scene may cost in which nothing happens: a hundredth."""


@lru_cache(maxsize=16)
def _shot(frames: int, light: str, weather: str, noise: float) -> tuple[Image, ...]:
    empty = Scene("street", 4, width=WIDTH, height=HEIGHT, light=light, weather=weather, noise=noise, max_objects=0)
    return tuple(empty.render(index) for index in range(frames))


def street(frames: int = 12, *, light: str = "day", weather: str = "clear", noise: float = 1.5) -> list[Image]:
    """A street where nothing happens, with sensor noise."""
    return [image.copy() for image in _shot(frames, light, weather, noise)]


def lit(image: Image, gain: float, offset: float = 0) -> Image:
    return np.asarray(np.clip(image * np.float32(gain) + offset, 0, 255), np.uint8)


def after_first(seen: list[Seen]) -> list[int]:
    return [each.encoded for each in seen[1:]]


WALKER = (200, 90, 22, 56)
"""Where somebody stands in the street, [x, y, w, h]."""


def with_walker(image: Image, level: int) -> Image:
    x, y, w, h = WALKER
    image = image.copy()
    image[y : y + h, x : x + w] = np.clip(image[y : y + h, x : x + w].astype(int) // 3 + level, 0, 255)
    return image


def inside(seen: Seen) -> tuple[set[int], set[int]]:
    """Slots that were encoded, and those that the walker fills."""
    x, y, w, h = WALKER
    return set(seen.slots.tolist()), set(slots_in(seen, (x + 4, y + 4, w - 8, h - 8)).tolist())


def test_a_stopped_stream_costs_nothing() -> None:
    (image,) = street(1)
    seen = watch([image] * 80, judged=[79])
    assert after_first(seen) == [0] * 79
    assert {each.result.mode for each in seen[1:]} == {Mode.REUSE}
    assert not any(each.result.audited for each in seen)
    assert seen[-1].fidelity == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("gain", "offset"), [(1.15, 4), (0.82, 0), (1, -14), (1.5, 10), (0.5, 0)])
def test_an_exposure_step_costs_no_more_than_one_encode(gain: float, offset: float) -> None:
    images = [lit(image, gain, offset) if index >= 4 else image for index, image in enumerate(street())]
    seen = watch(images, judged=[4, 11])
    assert after_first(seen)[:3] == [0] * 3
    assert sum(after_first(seen)) <= 1.1 * 400
    assert min(seen[4].fidelity, seen[11].fidelity) > FLOOR


@pytest.mark.parametrize(("gain", "offset"), [(1.15, 4), (0.82, 0), (1, -14)])
def test_a_small_exposure_step_hides_nobody_and_wakes_nobody_else(gain: float, offset: float) -> None:
    images = [lit(image, gain, offset) if index >= 4 else image for index, image in enumerate(street(8))]
    images[4:] = [with_walker(image, 5) for image in images[4:]]
    seen = watch(images, judged=[4, 7])
    encoded, walker = inside(seen[4])
    assert walker <= encoded
    assert seen[4].changed.sum() < 40
    for each, least in ((seen[4], 0.88), (seen[7], 0.94)):  # at first among tokens of the old exposure
        assert each.cosines is not None and each.cosines[sorted(walker)].min() > least
        assert each.fidelity > FLOOR


def test_a_lamp_that_flickers_keeps_nobody_else_awake() -> None:
    lamp = (60, 30, 50, 28)
    x, y, w, h = lamp
    images = street(24)
    for index, image in enumerate(images):
        image[y : y + h, x : x + w] = lit(image[y : y + h, x : x + w], 1.7 if index % 2 else 0.6)
    seen = watch(images, judged=[8, 23])
    touched = set(slots_in(seen[0], lamp).tolist())
    for each in seen[1:]:
        assert each.encoded > 0
        assert set(np.flatnonzero(each.changed).tolist()) <= touched
    assert sum(after_first(seen)) <= 23 * (len(touched) + QUIET) + 400, "the lamp, and once what is around it"
    assert min(seen[8].fidelity, seen[23].fidelity) > 0.995


def test_light_that_beats_with_the_mains_costs_nothing() -> None:
    images = [lit(image, 1 + 0.1 * np.sin(2.1 * index)) for index, image in enumerate(street(16))]
    seen = watch(images, judged=[6, 15])
    assert np.mean(after_first(seen)) <= QUIET
    assert min(seen[6].fidelity, seen[15].fidelity) > FLOOR


def test_rolling_text_costs_its_lines_and_is_never_old() -> None:
    band = (0, 146, WIDTH, 22)
    strip = np.full((22, 1200, 3), (90, 20, 20), np.uint8)
    for x in range(0, 1200, 110):
        cv2.putText(strip, f"NEWS {x}", (x, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2, cv2.LINE_AA)
    images = street(16)
    for index, image in enumerate(images):
        image[146:168] = strip[:, 3 * index : 3 * index + WIDTH]
    seen = watch(images, judged=[0, 5, 10, 15])
    text = slots_in(seen[0], band)
    assert max(int(each.changed.sum()) for each in seen[1:]) <= len(text)
    assert np.mean(after_first(seen)) <= 2 * len(text)
    for each in (seen[5], seen[10], seen[15]):
        assert each.cosines is not None
        assert each.cosines[text].mean() > 0.985
        assert each.fidelity > 0.995


def snowing(images: list[Image]) -> list[Image]:
    rng = np.random.default_rng(1)
    flakes = rng.uniform(0, 1, (160, 2)) * [WIDTH, HEIGHT]
    for image in images:
        flakes = (flakes + rng.normal(0, 0.7, flakes.shape) + [1, 5]) % [WIDTH, HEIGHT]
        for x, y in flakes:
            cv2.circle(image, (int(x), int(y)), 1, (235, 235, 240), cv2.FILLED)
    return images


def test_rain_is_nearly_free_and_snow_cheaper_than_a_full_encode() -> None:
    rain = watch(street(16, weather="rain"), judged=[8, 15])
    assert np.mean(after_first(rain)) < 8
    snow = watch(snowing(street(16)), judged=[8, 15])
    assert np.mean(after_first(snow)) < 200
    assert min(each.fidelity for each in (rain[8], rain[15], snow[8], snow[15])) > FLOOR


def test_somebody_in_the_snow_is_seen() -> None:
    images = snowing(street())
    images[8:] = [with_walker(image, 5) for image in images[8:]]
    encoded, walker = inside(watch(images)[8])
    assert walker <= encoded


def compressed(images: list[Image], *, gop: int, kbps: int) -> tuple[list[Image], list[bool]]:
    """As a poor camera sends it, and which of the frames are I-frames."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=15)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        rate = f"bframes=0:scenecut=0:keyint={gop}:bitrate={kbps}:vbv-maxrate={kbps}:vbv-bufsize={kbps // 2}:threads=1"
        stream.options = {"preset": "veryfast", "x264-params": rate}
        for image in images:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as source:
        pictures = [(each.to_ndarray(format="rgb24"), bool(each.key_frame)) for each in source.decode(video=0)]
    return [image for image, _ in pictures], [key for _, key in pictures]


def test_pumping_at_key_frames_is_no_change() -> None:
    images, keys = compressed(street(36, noise=3), gop=12, kbps=24)
    steps = [float(cv2.absdiff(a, b).mean()) for a, b in pairwise(images)]
    at_keys = [index for index, key in enumerate(keys) if key and index]
    assert at_keys == [12, 24]
    assert min(steps[index - 1] for index in at_keys) > 3 * np.median(steps), "this clip does pump"
    seen = watch(images, judged=[11, 12, 24, 35])
    assert np.mean([seen[index].encoded for index in at_keys]) <= 40
    assert np.mean(after_first(seen)) <= 3 * QUIET
    assert min(seen[index].fidelity for index in (11, 12, 24, 35)) > FLOOR


@pytest.mark.parametrize("noise", [6.0, 14.0])
def test_a_noisy_night_costs_nothing_and_hides_nobody(noise: float) -> None:
    images = street(14, light="night", noise=noise)
    images[10:] = [with_walker(image, 130) for image in images[10:]]
    seen = watch(images, judged=[9, 10])
    assert np.mean([each.encoded for each in seen[1:10]]) <= QUIET
    encoded, walker = inside(seen[10])
    assert walker <= encoded and seen[10].changed.sum() < 40
    assert min(seen[9].fidelity, seen[10].fidelity) > FLOOR


def test_a_slow_fade_ends_at_the_floor() -> None:
    """Dusk: each frame differs from the one before by a grey level, and then it stays."""
    (image,) = street(1)
    fading = [lit(np.maximum(image, 60), 1, -min(step, 45)) for step in range(60)]
    seen = watch(fading, judged=[59])
    assert seen[59].fidelity > FLOOR - SLACK


def test_light_that_changes_its_colour_is_seen() -> None:
    (image,) = street(1)
    hue = np.array([1, 0.3, 0], np.float32)
    fading = [np.clip(np.maximum(image, 60) - hue * min(step, 45), 0, 255).astype(np.uint8) for step in range(54)]
    seen = watch(fading, judged=[53])
    assert np.unique(np.concatenate([each.slots for each in seen[1:]])).size > 350
    assert seen[53].fidelity > FLOOR - SLACK
