"""The coherent path on the simulated Jetson: what it decides, beside the host, and what crosses between CPU and GPU."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from coherence_standin import PATCH, LinearEncoder, Stretch, costs, frame, texture
from numpy.typing import NDArray

from agent.coherence.pipeline import TemporalVLM
from agent.coherence.result import FrameResult
from agent.coherence.settings import CoherenceSettings
from agent.metrics import Metrics
from engines.plan import Mode
from vpi_ops.choice import host_ops
from vpi_ops.host import HostOps

Image = NDArray[np.uint8]
SIDE = 8 * PATCH
PATIENT = replace(CoherenceSettings(), flow_deadline_ms=60_000.0)


class Pictures(Stretch):
    """`Stretch` with the size and the `out` that the product's preprocessor has."""

    image_size = SIDE
    padding = (0, 0, 0)

    def picture(self, image: Image, out: Image | None = None, crop: Any = None) -> Image:
        made = super().picture(image, crop=crop)
        if out is None:
            return made
        out[...] = made
        return out


@pytest.fixture
def built(jetson: Any) -> Iterator[Callable[[], tuple[TemporalVLM, Any]]]:
    """Makes a coherent path on the Jetson, and its operations."""
    from vpi_ops.jetson import open_ops
    from vpi_ops.jetson_pictures import DevicePictures

    made: list[TemporalVLM] = []

    def build() -> tuple[TemporalVLM, Any]:
        ops = open_ops().ops
        pictures = DevicePictures(ops, Pictures(SIDE))
        made.append(TemporalVLM(pictures, LinearEncoder(), ops, PATIENT, costs=costs()))
        return made[-1], ops

    yield build
    for vlm in made:
        vlm.close()


def story() -> list[Image]:
    """A still scene, a block that walks through it, a change of exposure, a cut."""
    ground, block, other = texture(1), texture(2, (32, 32)), texture(3)
    images = [ground.copy() for _ in range(4)]
    for step in range(8):
        image = ground.copy()
        image[48:80, 40 + 8 * step : 72 + 8 * step] = block
        images.append(image)
    images += [np.clip(ground.astype(np.int16) + 6, 0, 255).astype(np.uint8)] * 2
    return images + [other] * 3


def test_it_decides_as_the_host_does(built: Callable[[], tuple[TemporalVLM, Any]]) -> None:
    here, _ = built()
    host = TemporalVLM(Stretch(SIDE), LinearEncoder(), HostOps(), PATIENT, costs=costs())
    modes: Counter[Mode] = Counter()
    for index, image in enumerate(story()):
        mine, theirs = here.process(frame(image, index)), host.process(frame(image, index))
        modes[mine.mode] += 1
        assert (mine.mode, mine.cut) == (theirs.mode, theirs.cut), index
        np.testing.assert_allclose(mine.residual, theirs.residual, atol=1.5)
        assert np.mean(mine.changed != theirs.changed) < 0.05
        cosine = (mine.tokens.features * theirs.tokens.features).sum(1)
        cosine /= np.linalg.norm(mine.tokens.features, axis=1) * np.linalg.norm(theirs.tokens.features, axis=1)
        assert cosine.min() > 0.99
    host.close()
    assert not here.faults and not host.faults
    assert len(modes) >= 3 and modes[Mode.REUSE]


def crossed(ops: Any, machine: Any, run: Callable[[], FrameResult]) -> tuple[Counter[str], Counter[str], FrameResult]:
    """By our count, and by the device's."""
    ours, theirs = Counter(ops.traffic), Counter(machine.counts)
    result = run()
    return ops.traffic - ours, machine.counts - theirs, result


def test_a_still_frame_costs_one_hand_over_one_wait_and_one_read_back(
    built: Callable[[], tuple[TemporalVLM, Any]], jetson: Any
) -> None:
    vlm, ops = built()
    noisy = [texture(1), texture(1) ^ np.uint8(1)]
    for index in range(3):
        vlm.process(frame(noisy[0], index))
    for index in range(3, 90):
        ours, device, result = crossed(ops, jetson, lambda: vlm.process(frame(noisy[index % 2].copy(), index)))  # noqa: B023
        assert result.mode is Mode.REUSE
        blended = int(ours["launches"] > 3)  # features that stand still are blended until they are the same
        assert ours == Counter(frames=1, launches=3 + blended, syncs=1 + blended, readbacks=1)
        # The frame is handed over, and that is all that is copied: results are in memory that is shared.
        assert device == Counter(upload=1, launch=6 + blended, sync=1 + blended)
    assert not blended
    ours, device, _ = crossed(
        ops, jetson, lambda: vlm.process(frame(noisy[index % 2].copy(), 90))
    )  # the very same picture
    assert ours == Counter(launches=1, syncs=1, readbacks=1) and not device["upload"]
    assert not vlm.faults


def walk(index: int) -> Image:
    """A block that stands, and from frame 4 on walks; too little for grid lock to be tried."""
    image, x = texture(1), 20 + 5 * max(0, index - 3)
    image[48:64, x : x + 16] = texture(2, (16, 16))
    return image


def test_a_frame_with_motion_waits_for_its_flow_as_well(
    built: Callable[[], tuple[TemporalVLM, Any]], jetson: Any
) -> None:
    vlm, ops = built()
    vlm.tune(replace(PATIENT, flow_rest_frames=0))
    counts = []
    for index in range(12):
        ours, device, result = crossed(ops, jetson, lambda: vlm.process(frame(walk(index), index)))  # noqa: B023
        if result.flow is not None:
            counts.append(ours)
            assert not device["readback"] and not ours["staged"]
            assert device["upload"] == ours["frames"] or len(counts) == 1, "how to sample is told once"
    assert counts[0]["frames"] == 2, "equal frames are not handed over before flow needs one"
    # Waits: for the grey image, the residual, the flow, and the blend.
    assert counts[1:] == [Counter(frames=1, launches=6, syncs=4, readbacks=2)] * len(counts[1:]) != []
    assert not vlm.faults


@pytest.mark.parametrize("rest", [0, 3])
def test_where_flow_is_expected_the_engine_begins_while_kernels_still_wait(
    built: Callable[[], tuple[TemporalVLM, Any]], monkeypatch: pytest.MonkeyPatch, rest: int
) -> None:
    import vpi

    vlm, ops = built()
    vlm.tune(replace(PATIENT, flow_rest_frames=rest))
    waiting: list[int] = []
    dense = vpi.optflow_dense

    def noting(*images: Any, **options: Any) -> Any:
        waiting.append(len(ops.gpu.stream._stream.queue))
        return dense(*images, **options)

    monkeypatch.setattr(vpi, "optflow_dense", noting)
    beside = []
    for index in range(4 + 6 * (rest + 1)):
        if vlm.process(frame(walk(index), index)).flow is not None:
            beside.append(waiting[-1] > 0)
    assert beside == [False, False] + [True] * 4, "how often flow is asked for shows at the second time"
    assert len(waiting) <= len(beside) + 1, "a flow that was begun isn't made again"
    made, last = len(waiting), walk(index)
    for number in range(1, 9):
        vlm.process(frame(last ^ np.uint8(number & 1), index))
    assert len(waiting) <= made + 1, "one may be begun in vain when motion ends"
    assert not vlm.faults


def test_pictures_that_are_kept_are_not_overwritten_and_the_others_are_used_again(
    built: Callable[[], tuple[TemporalVLM, Any]],
) -> None:
    vlm, _ = built()
    kept = [vlm.process(frame(texture(seed), seed)).picture for seed in range(5)]
    expected = [Stretch(SIDE).picture(texture(seed)) for seed in range(5)]
    for picture, truth in zip(kept, expected, strict=True):
        np.testing.assert_allclose(picture, truth.astype(int), atol=1)
    del kept, picture
    pool = vlm._pictures._pool  # type: ignore[attr-defined]
    made = pool.made
    for index in range(5, 12):
        vlm.process(frame(texture(1), index))
    assert pool.made == made


def test_memory_on_the_gpu_is_told_by_part_and_all_given_back(jetson: Any) -> None:
    from vpi_ops.jetson import open_ops
    from vpi_ops.jetson_pictures import DevicePictures

    gc.collect()
    used = jetson.used
    ops = open_ops().ops
    pictures = DevicePictures(ops, Pictures(SIDE))
    vlm = TemporalVLM(pictures, LinearEncoder(), ops, PATIENT, costs=costs())
    for index in range(8):
        vlm.process(frame(walk(index), index))
    held = ops.held()
    assert set(held) == {"frames", "tables", "pictures", "pyramids", "grey images", "flow", "tokens", "results"}
    assert held["frames"].allocated == held["frames"].peak == held["frames"].reserved == 2 * walk(0).size
    assert sum(part.allocated for part in held.values()) == jetson.used - used
    metrics = Metrics("1")
    metrics.watch_gpu("cam1", ops.held)
    labels = {"owner": "cam1", "part": "frames", "kind": "peak"}
    assert metrics.registry.get_sample_value("stillwatch_gpu_memory_bytes", labels) == 2 * walk(0).size
    vlm.close()
    assert ops.held()["frames"].allocated == ops.held()["tables"].allocated == 0
    gpu = ops.gpu
    del ops, vlm, pictures, metrics
    gc.collect()
    assert not any(part.allocated for part in gpu.parts().values()) and jetson.used == used
    assert not jetson.counts["leaked"]


def test_a_motion_leaves_no_event_behind_and_a_camera_no_stream_and_no_kernels(jetson: Any) -> None:
    from vpi_ops.jetson import open_ops
    from vpi_ops.jetson_pictures import DevicePictures

    gc.collect()
    leaked = jetson.counts["leaked"]
    ops = open_ops().ops
    pictures = DevicePictures(ops, Pictures(SIDE))
    vlm = TemporalVLM(pictures, LinearEncoder(), ops, PATIENT, costs=costs())
    begun = 0
    for index in range(24):
        vlm.process(frame(walk(index), index))
        begun += ops.greys._since_flow == 0
    assert begun > 3, "the engine has to begin ahead, which an event is waited for"
    assert jetson.counts["leaked"] == leaked
    vlm.close()
    del ops, vlm, pictures
    gc.collect()
    assert jetson.counts["leaked"] == leaked


def test_an_engine_that_fails_costs_flow_and_no_frame(
    built: Callable[[], tuple[TemporalVLM, Any]], behaviour: Any
) -> None:
    vlm, ops = built()
    behaviour.fails = 100
    for index, image in enumerate(story() * 3):
        assert vlm.process(frame(image, index)).mode is not Mode.ERROR
    assert not vlm.faults
    assert not ops.uses_ofa


def test_without_a_flow_engine_the_cpu_computes_flow_and_the_reason_is_told(jetson: Any, behaviour: Any) -> None:
    from agent.vision import choose_vision

    assert choose_vision().flow.startswith("OFA through VPI 3.2.4, RGB8 → Y8_ER_BL (CUDA)")
    behaviour.ofa = False
    chosen = choose_vision()
    assert chosen.on_gpu and "sm_87" in chosen.patches
    assert "DIS" in chosen.flow and "OFA is not available" in chosen.flow_why[0]


def test_memory_that_is_out_leaves_the_camera_to_the_cpu(jetson: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.vision import VisionChoice, choose_vision

    gc.collect()  # else memory of earlier cameras comes free meanwhile
    monkeypatch.setattr(jetson, "budget", jetson.used + 1000)
    ops, _ = VisionChoice("", "", on_gpu=True).camera(Pictures(SIDE))  # type: ignore[arg-type]
    assert type(ops) is type(host_ops())
    assert "can't be had: cuMemHostAlloc failed" in choose_vision().patches_why[0]


@pytest.mark.parametrize("left", [0, 500, 5_000, 50_000, 200_000])
def test_memory_that_runs_out_while_it_runs_costs_one_frame_its_coherence_and_then_the_cpu_does_the_work(
    jetson: Any, built: Callable[[], tuple[TemporalVLM, Any]], monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    vlm, ops = built()
    gc.collect()
    monkeypatch.setattr(jetson, "budget", jetson.used + left)
    results = [vlm.process(frame(image, index)) for index, image in enumerate(story() * 2)]
    assert all(result.mode is not Mode.ERROR for result in results)
    assert sum(vlm.faults.values()) <= 1 and {result.mode for result in results} >= {Mode.FULL, Mode.REUSE}
    assert left > 50_000 or ops.gpu.lost or not ops.held()["frames"].allocated


def test_without_any_memory_at_start_the_cpu_does_the_work(jetson: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vpi_ops.jetson import open_ops
    from vpi_ops.jetson_pictures import DevicePictures

    ops = open_ops().ops
    gc.collect()
    monkeypatch.setattr(jetson, "budget", jetson.used)
    vlm = TemporalVLM(DevicePictures(ops, Pictures(SIDE)), LinearEncoder(), ops, PATIENT, costs=costs())
    modes = [vlm.process(frame(image, index)).mode for index, image in enumerate(story())]
    assert Mode.REUSE in modes and not vlm.faults and "can't be had" in ops.gpu.lost
    vlm.close()


def test_a_gpu_that_fails_costs_one_frame_its_coherence_and_then_the_cpu_does_its_work(
    built: Callable[[], tuple[TemporalVLM, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pycuda import driver

    vlm, ops = built()
    for index in range(3):
        vlm.process(frame(texture(1), index))

    def dead(self: Any) -> None:
        raise driver.LaunchError("an illegal memory access was encountered")

    monkeypatch.setattr(driver.Stream, "synchronize", dead)
    modes = [vlm.process(frame(texture(1), index)).mode for index in range(3, 9)]
    assert modes == [Mode.FULL, Mode.FULL] + [Mode.REUSE] * 4
    assert sum(vlm.faults.values()) == 1
    assert "illegal memory access" in ops.gpu.lost
