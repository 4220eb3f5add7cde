"""Frames on their way to the simulated GPU: handed over once, from wherever they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from coherence_standin import texture
from test_jetson_pipeline import SIDE, Pictures

from agent.capture.jetson_camera import CameraOptions, RingCamera
from vpi_ops.host import HostOps


@pytest.fixture
def ops(make_ops: Callable[..., Any]) -> Iterator[Any]:
    made = make_ops()
    yield made
    made.close()


@pytest.fixture
def pictures(ops: Any) -> Any:
    from vpi_ops.jetson_pictures import DevicePictures

    return DevicePictures(ops, Pictures(SIDE))


def test_a_picture_in_the_camera_s_ring_reaches_the_gpu_without_the_host(jetson: Any, ops: Any, pictures: Any) -> None:
    camera = RingCamera(CameraOptions(uri="csi://0", name="cam", size=(224, 128), buffers=16))
    leased = []
    while len(leased) < 3:
        if (taken := camera.capture(2.0)) is not None:
            leased.append(taken.lease())
    for number, image in enumerate(leased):
        before = Counter(jetson.counts)
        picture = pictures.picture(image)
        assert (jetson.counts - before)["upload"] == (number == 0), "tables only"
        ops.gpu.settle()
        np.testing.assert_allclose(picture, Pictures(SIDE).picture(image).astype(int), atol=1)
    camera.close()


def test_a_frame_is_handed_over_once_and_kept_until_it_is_there(jetson: Any, ops: Any, pictures: Any) -> None:
    image = texture(1)
    expected = [HostOps().analysis(image), Pictures(SIDE).picture(image), Pictures(SIDE).picture(image[8:120, 16:208])]
    before = Counter(jetson.counts)
    made = [pictures.picture(image), pictures.picture(image, crop=(16, 8, 208, 120))]
    grey = ops.analysis(image)
    del image  # the copy is only queued; the device must not find other memory there
    assert ops.traffic["frames"] == 1 and (jetson.counts - before)["upload"] == 1 + 4, "and how to sample, four ways"
    for found, truth in zip((grey, *made), expected, strict=True):
        np.testing.assert_allclose(found, truth.astype(int), atol=2)


def test_frames_of_another_size_take_the_place_of_the_earlier(ops: Any, pictures: Any) -> None:
    for size in ((224, 128), (96, 160), (224, 128)):
        image = texture(4, size)
        picture = pictures.picture(image)
        ops.gpu.settle()
        np.testing.assert_allclose(picture, Pictures(SIDE).picture(image).astype(int), atol=2)
        assert ops.held()["frames"].allocated == 2 * image.nbytes


def test_without_memory_for_frames_the_host_makes_pictures(
    jetson: Any, ops: Any, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures.picture(texture(1, (112, 64)))
    ops.gpu.settle()
    monkeypatch.setattr(jetson, "budget", jetson.used + 60_000)
    image = texture(5)
    np.testing.assert_array_equal(pictures.picture(image), Pictures(SIDE).picture(image))
    np.testing.assert_array_equal(ops.analysis(image), HostOps().analysis(image))
    assert not ops.held()["frames"].allocated and not jetson.counts["leaked"]


@pytest.mark.parametrize("colour", [True, False], ids=["RGB8", "Y8_ER"])
def test_images_of_odd_sides_reach_the_flow_engine_without_the_host(
    jetson: Any, make_ops: Callable[..., Any], behaviour: Any, monkeypatch: pytest.MonkeyPatch, colour: bool
) -> None:
    from vpi_ops import jetson_flow

    if not colour:
        monkeypatch.setattr(jetson_flow, "ROUTES", jetson_flow.ROUTES[2:])
    ops = make_ops()
    copied = ops.traffic["staged"]  # images of the probe at start
    whole = texture(6, (260, 140), grain=12)
    before, after = (np.ascontiguousarray(whole[5:136, x : x + 225]) for x in (8, 5))
    greys = ops.analysis(before), ops.analysis(after)
    flow = ops.flow(*greys, (1.0, 1.0))
    assert np.median(flow.backward[20:-20, 20:-20], axis=(0, 1)) == pytest.approx([-3, 0], abs=0.3)
    assert flow.backward.shape == (131, 225, 2) and ops.traffic["staged"] == copied
    ops.close()
