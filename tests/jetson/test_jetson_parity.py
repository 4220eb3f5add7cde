"""The same street through both: the coherent path with the reference model on the simulated Jetson, TensorRT in half
precision, beside OpenCV and ONNX Runtime. Nothing of the frame path is the host's."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from coherence_standin import frame
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.capture.scene.source import parse_scene
from agent.coherence.costs import EncodeCosts
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.result import FrameResult
from agent.coherence.settings import CoherenceSettings
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from vpi_ops.host import HostOps

PATIENT = replace(CoherenceSettings(), flow_deadline_ms=60_000.0)
COSTS = ((1, 40, 200, 399, 400), (2.0, 4.0, 12.0, 22.0, 16.0))
"""Of encoding. Time is counted and not measured, so both plan by the same costs however busy the machine is."""
SCENE = "scene:street?seed=2&camera=cut&fps=5&width=320&height=180&seconds=9"


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)))


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    scene, _ = parse_scene(SCENE)
    return [frame(scene.render(index), index) for index in range(22, 40)]


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(find_model("reference"))


@pytest.fixture(scope="module")
def here(jetson: Any, model: Any, frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What came of each frame on the Jetson: results, features of their own, counts of the device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLWATCH_ENGINES", str(tmp_path_factory.mktemp("engines")))
        patch.setenv("STILLWATCH_SIM_TENSORRT", "10.3.0")
        from agent.runtimes import choose_encoder
        from agent.vision import choose_vision

        choice = choose_encoder(model)
        assert choice.runtime is not None and choice.runtime.precision.value == "fp16", choice.not_taken
        ops, pictures = choose_vision().camera(Preprocessor(model.manifest))
        encoder = choice.encoder(lambda: pytest.fail("the host's encoder was asked for"))
        yield run(pictures, encoder, ops, frames, jetson.counts)


def run(
    pictures: Any, encoder: Any, ops: Any, frames: list[Frame], counts: Counter[str]
) -> list[tuple[FrameResult, NDArray[np.float32], Counter[str]]]:
    ticks = itertools.count()
    vlm = TemporalVLM(pictures, encoder, ops, PATIENT, costs=EncodeCosts(*COSTS), clock=lambda: next(ticks) / 1e3)
    seen = []
    for each in frames:
        before = Counter(counts)
        result = vlm.process(each)
        seen.append((result, result.tokens.features.copy(), counts - before))
    vlm.close()
    assert not vlm.faults
    return seen


@pytest.fixture(scope="module")
def there(model: Any, frames: list[Frame]) -> Any:
    encoder = OnnxEncoder(OnnxRuntime(model, threads=1))
    return run(Preprocessor(model.manifest), encoder, HostOps(), frames, Counter())


def test_scenes_begin_and_tokens_move_in_the_same_frames(here: Any, there: Any) -> None:
    assert [mine.cut for mine, *_ in here] == [theirs.cut for theirs, *_ in there]
    assert sum(mine.cut for mine, *_ in here) == 1
    assert np.mean([mine.mode is theirs.mode for (mine, *_), (theirs, *_) in zip(here, there, strict=True)]) >= 0.7


def test_token_features_agree_within_half_precision(here: Any, there: Any) -> None:
    for (mine, ours, _), (theirs, expected, _) in zip(here, there, strict=True):
        found = cosines(ours, expected)
        if mine.dirty is None and theirs.dirty is None:
            assert found.min() > 0.999, mine.frame_index
        assert found.mean() > 0.99, mine.frame_index


def test_features_are_as_true_as_the_host_s(here: Any, there: Any, model: Any, frames: list[Frame]) -> None:
    truth, preprocessor = OnnxEncoder(OnnxRuntime(model, threads=1)), Preprocessor(model.manifest)
    lost = []
    for each, (mine, ours, _), (theirs, expected, _) in zip(frames, here, there, strict=True):
        fresh = [truth.encode_full(preprocessor.picture(each.image, crop=one.placement.crop)) for one in (mine, theirs)]
        lost.append(cosines(expected, fresh[1]).mean() - cosines(ours, fresh[0]).mean())
    assert np.mean(lost) < 0.002


def test_no_pixel_crosses_twice(here: Any) -> None:
    """Of a frame the device is given its pixels and, when something is encoded, which tokens; it gives new features."""
    for number, (result, _, crossed) in enumerate(here):
        told = int(result.tokens_encoded not in (0, 400))
        looks = crossed["upload"] - told
        assert looks == 1 or number < 4, "tables are uploaded with the first frames that need them"
        assert crossed["readback"] == (result.tokens_encoded > 0) + result.audited
