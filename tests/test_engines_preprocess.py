"""Geometry, resizing and patches of the model image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.manifest import GraphFile, Manifest
from engines.preprocess import Placement, Preprocessor

RESIZES = ("stretch", "letterbox", "crop")
sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


def manifest(resize: str, image_size: int = 56, patch_size: int = 14) -> Manifest:
    side = image_size // patch_size
    graph = GraphFile(file="g.onnx", inputs={}, outputs={})
    return Manifest(
        name="test",
        family="idefics3",
        domain="noise",
        image_size=image_size,
        patch_size=patch_size,
        grid=(side, side),
        resize=resize,  # type: ignore[arg-type]
        mean=(0.5, 0.4, 0.3),
        std=(0.5, 0.25, 0.2),
        layers=1,
        heads=1,
        dim=8,
        merge=2,
        position="absolute",
        dtype="float16",
        cache_layout=(1, 2, 1, side * side, 8),
        graphs={"encode_full": graph},
        weights={"w": "0" * 64},
        prompt="{image}{question}",
        eos=("</s>",),
    )


@given(resize=st.sampled_from(RESIZES), size=sizes, box=st.tuples(*[st.floats(-5000, 5000)] * 4))
def test_boxes_return_from_the_picture_to_the_source(
    resize: str, size: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    place = Placement.of(resize, size, 280)
    assert place.to_source(place.to_picture(box)) == pytest.approx(box, abs=1e-6)


@given(resize=st.sampled_from(RESIZES), size=sizes)
def test_the_shown_part_of_the_frame_is_the_seen_part_of_the_picture(resize: str, size: tuple[int, int]) -> None:
    place = Placement.of(resize, size, 280)
    x0, y0, x1, y1 = place.crop
    left, top, right, bottom = place.seen
    assert place.to_picture((x0, y0, x1 - x0, y1 - y0)) == pytest.approx(
        (left, top, right - left, bottom - top), abs=1e-6
    )
    assert 0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]
    assert 0 <= left < right <= 280 and 0 <= top < bottom <= 280
    if resize == "crop":
        assert place.scale[0] == place.scale[1]
    if resize == "letterbox":
        fit = 280 / max(size)
        assert right - left == pytest.approx(size[0] * fit, abs=1)
        assert bottom - top == pytest.approx(size[1] * fit, abs=1)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(640, 360), (361, 641), (1280, 720), (1920, 1080), (100, 90)])
def test_a_mark_in_the_source_shows_where_the_mapping_says(resize: str, size: tuple[int, int]) -> None:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    box = (width * 0.4, height * 0.45, width * 0.12, height * 0.12)
    x, y, w, h = (round(v) for v in box)
    image[y : y + h, x : x + w] = 255
    picture = Preprocessor(manifest(resize, 280)).picture(image)[..., 0] / 255.0
    if resize == "letterbox":
        place = Placement.of(resize, size, 280)
        picture[~_inside(place.seen)] = 0
    ys, xs = np.mgrid[0:280, 0:280] + 0.5
    found = ((picture * xs).sum() / picture.sum(), (picture * ys).sum() / picture.sum())
    px, py, pw, ph = Placement.of(resize, size, 280).to_picture((x, y, w, h))
    assert found == pytest.approx((px + pw / 2, py + ph / 2), abs=0.15)


@pytest.mark.parametrize("size", [(640, 360), (641, 361), (1920, 1080)])
def test_shrinking_averages_instead_of_dropping_pixels(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    ours = Preprocessor(manifest("stretch", 280)).picture(noise).astype(np.float64)
    area = cv2.resize(noise, (280, 280), interpolation=cv2.INTER_AREA).astype(np.float64)
    dropping = cv2.resize(noise, (280, 280), interpolation=cv2.INTER_NEAREST).astype(np.float64)
    assert ours.std() < 0.7 * dropping.std()
    assert ours.std() < 1.3 * area.std()


def test_a_picture_goes_into_the_buffer_it_is_given() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (90, 160, 3), dtype=np.uint8)
    for resize in RESIZES:
        pre = Preprocessor(manifest(resize))
        buffer = np.full((56, 56, 3), 77, np.uint8)
        assert pre.picture(image, buffer) is buffer
        np.testing.assert_array_equal(buffer, pre.picture(image))


def test_letterbox_pads_with_the_mean_and_its_tokens_see_nothing() -> None:
    pre = Preprocessor(manifest("letterbox"))
    picture = pre.picture(np.full((20, 200, 3), 255, np.uint8))
    place = pre.placement((200, 20))
    assert place.seen == (0, 25, 56, 31)
    np.testing.assert_array_equal(picture[0, 0], [128, 102, 76])
    assert (picture[25:31] == 255).all()
    np.testing.assert_array_equal(place.valid(14).reshape(4, 4).any(axis=1), [False, True, True, False])
    assert Placement.of("stretch", (200, 20), 56).valid(14).all()
    padding = pre.patches(picture)[~place.valid(14)]
    assert np.abs(padding).max() < 0.02


@given(slots=st.lists(st.integers(0, 15), min_size=0, max_size=16, unique=True))
def test_patches_are_what_the_convolution_would_see(slots: list[int]) -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (56, 56, 3), dtype=np.uint8)
    pre = Preprocessor(manifest("stretch"))
    planes = ((picture / 255.0 - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.2]).transpose(2, 0, 1)
    windows = [planes[:, y : y + 14, x : x + 14].ravel() for y in range(0, 56, 14) for x in range(0, 56, 14)]
    every = pre.patches(picture)
    np.testing.assert_allclose(every, np.stack(windows), atol=1e-5)
    chosen = pre.patches(picture, np.array(slots, np.int64), out=np.empty((16, 588), np.float32))
    np.testing.assert_array_equal(chosen, every[slots])


def _inside(seen: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((280, 280), bool)
    mask[seen[1] : seen[3], seen[0] : seen[2]] = True
    return mask
