"""From a frame to features on the simulated Jetson: patches come straight from the frame on the GPU, and are what the
host would have sent."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from coherence_standin import texture
from engines_checkpoint import Size, write_checkpoint
from numpy.typing import NDArray
from tensorrt_world import World, simulated

from config.errors import EngineFault
from engines.export import export_model
from engines.fallback import PATIENCE, FallbackEncoder
from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode
from engines.preprocess import Preprocessor, on_device
from engines.tensorrt.encoder import TensorRtEncoder
from engines.tensorrt.runtime import TensorRtRuntime

FULL = EncodePlan(Mode.FULL, None)
SOME = EncodePlan(Mode.WARPING, np.array([0, 1, 6]))
COARSE = EncodePlan(Mode.WARPING, np.array([0, 1]), coarse=np.array([2, 8]))
NOTHING = EncodePlan(Mode.REUSE, np.array([], np.int64))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, Size())
    return export_model(folder, name="random", domain="noise", prompt="{image}{question}", select_buckets=(4, 8))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with simulated() as made:
        yield made


@pytest.fixture(scope="module")
def runtime(world: World, model: Model, tmp_path_factory: pytest.TempPathFactory) -> TensorRtRuntime:
    return TensorRtRuntime(model, world.gpu, precision="fp16", folder=tmp_path_factory.mktemp("engines"))


@pytest.fixture
def pictures(world: World, model: Model) -> Iterator[Any]:
    from vpi_ops.jetson import open_ops
    from vpi_ops.jetson_pictures import DevicePictures

    ops = open_ops().ops
    yield DevicePictures(ops, Preprocessor(model.manifest))
    ops.close()
    assert not world.machine.stack


def frame(seed: int) -> NDArray[np.uint8]:
    return texture(seed, (150, 90))


def test_features_are_those_of_the_picture_sent_by_the_host(runtime: TensorRtRuntime, pictures: Any) -> None:
    here, there = TensorRtEncoder(runtime), TensorRtEncoder(runtime)
    assert runtime.engines["select_rows"].dtype("patches") == np.float16  # the kernel writes what the engine reads
    for seed, plan in enumerate((FULL, SOME, SOME, COARSE, FULL, NOTHING)):
        crop = (3, 2, 83, 82) if seed == 2 else None
        image = frame(seed)
        picture = pictures.picture(image, crop=crop)
        mine = here.encode(picture, plan)
        theirs = there.encode(picture.copy(), plan)
        assert mine.encoded == theirs.encoded
        np.testing.assert_allclose(mine.features, theirs.features, atol=2e-3)
    np.testing.assert_allclose(here.encode_full(picture), there.encode_full(picture.copy()), atol=2e-3)
    here.close()
    there.close()


@pytest.mark.parametrize(
    ("plan", "wanted"),
    [
        (FULL, {"launch": 1, "graph": 1, "readback": 1, "sync": 1}),
        (SOME, {"upload": 1, "launch": 3, "graph": 1, "readback": 1, "sync": 1}),
        (NOTHING, {}),
    ],
    ids=["full", "selective", "nothing"],
)
def test_pixels_are_never_sent_to_the_encoder(
    world: World, runtime: TensorRtRuntime, pictures: Any, plan: EncodePlan, wanted: dict[str, int]
) -> None:
    encoder = TensorRtEncoder(runtime)
    encoder.encode(pictures.picture(frame(1)), FULL)
    image = frame(2)
    picture = pictures.picture(image)
    before = Counter(world.machine.counts)
    encoder.encode(picture, plan)
    assert dict(world.machine.counts - before) == wanted
    encoder.close()


def test_a_picture_whose_frame_has_left_the_gpu_is_encoded_all_the_same(
    runtime: TensorRtRuntime, pictures: Any
) -> None:
    images = [frame(seed) for seed in range(4)]
    first, *later = [pictures.picture(image) for image in images]
    assert [on_device(picture).there for picture in (first, *later)] == [False, False, True, True]  # type: ignore[union-attr]
    encoder = TensorRtEncoder(runtime)
    np.testing.assert_allclose(encoder.encode_full(first), encoder.encode_full(first.copy()), atol=1e-6)
    encoder.close()


def test_an_encoder_on_the_cpu_waits_for_the_picture(world: World, model: Model, pictures: Any) -> None:
    """The simulated device runs nothing before somebody waits."""
    host = OnnxEncoder(OnnxRuntime(model, threads=1))
    image = frame(5)
    expected = host.encode_full(Preprocessor(model.manifest).picture(image))
    found = host.encode_full(pictures.picture(image))
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999


def test_memory_is_given_back_by_whatever_thread_closes_and_when_an_encoder_is_given_up(
    world: World, model: Model, runtime: TensorRtRuntime
) -> None:
    closed = FallbackEncoder(TensorRtEncoder(runtime), lambda: OnnxEncoder(OnnxRuntime(model, threads=1)), print)
    closed.encode(frame(1)[:56, :56], FULL)
    thread = threading.Thread(target=closed.close)
    thread.start()
    thread.join()
    given_up = FallbackEncoder(TensorRtEncoder(runtime), lambda: OnnxEncoder(OnnxRuntime(model, threads=1)), print)
    world.libcuda.launches = PATIENCE
    for _ in range(PATIENCE - 1):
        with pytest.raises(EngineFault):
            given_up.encode(frame(1)[:56, :56], FULL)
    given_up.encode(frame(1)[:56, :56], FULL)
    assert given_up.degraded
    assert all(usage.allocated == 0 for part, usage in runtime.memory.parts().items() if part != "weights")
    del closed, given_up
    gc.collect()
    assert not world.machine.counts["leaked"], "page-locked memory, too, goes while the context is current"
