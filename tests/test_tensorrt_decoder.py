"""The language model on TensorRT's stand-in: the words of ONNX Runtime, and none lost when a GPU fails."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engines_checkpoint import Size, write_checkpoint
from numpy.typing import NDArray
from tensorrt_world import World, left_clean, simulated

from agent.runtimes import choose_decoder
from config.errors import EngineFault
from engines.decoder import Decoder
from engines.export import export_model
from engines.fallback import PATIENCE, FallbackLanguage
from engines.manifest import Model
from engines.onnx.language import LanguageModel
from engines.onnx.runtime import OnnxRuntime
from engines.tensorrt.language import NoRoom, TensorRtLanguage
from engines.tensorrt.purpose import DECODER
from engines.tensorrt.recipe import ANSWERS, READ_AT_ONCE
from engines.tensorrt.runtime import TensorRtRuntime
from engines.tensorrt.seat import lowered, raised

pytestmark = pytest.mark.jetson

SIZE = Size()
QUESTION = "what is on the street"
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, SIZE)
    return export_model(folder, name="random", domain="noise", prompt="User:{image}{question}Assistant:")


@pytest.fixture(scope="module")
def host(model: Model) -> OnnxRuntime:
    return OnnxRuntime(model, threads=1)


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    with simulated() as made:
        yield made


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    with left_clean(shared):
        yield shared


@pytest.fixture
def runtime(world: World, model: Model, tmp_path_factory: pytest.TempPathFactory) -> TensorRtRuntime:
    folder = tmp_path_factory.getbasetemp() / "decoder-engines"
    return TensorRtRuntime(model, world.gpu, purpose=DECODER, precision="fp32", folder=folder)


@pytest.fixture
def language(runtime: TensorRtRuntime, host: OnnxRuntime) -> Iterator[TensorRtLanguage]:
    made = TensorRtLanguage(runtime, host)
    yield made
    made.close()


def features(seed: int) -> Floats:
    tokens = (SIZE.image // SIZE.patch) ** 2
    return np.random.default_rng(seed).standard_normal((tokens, SIZE.dim), np.float32)


def rows(seed: int, count: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, SIZE.text_dim), np.float32)


@pytest.mark.parametrize("release", ["8.6.2", "10.3.0", "11.4.0"])
def test_every_release_says_what_onnx_runtime_says(
    model: Model, host: OnnxRuntime, tmp_path: Path, release: str
) -> None:
    with simulated(release) as world:
        runtime = TensorRtRuntime(model, world.gpu, purpose=DECODER, folder=tmp_path)
        assert runtime.precision.value == ("fp32" if release.startswith("11") else "fp16")
        assert [check["passed"] for check in runtime.checks] == [True] * len(READ_AT_ONCE)
        language = TensorRtLanguage(runtime, host)
        ours, theirs = Decoder(model, language=language), Decoder(model)
        for seed in range(2):
            for picture in (features(seed), ours.look(features(seed), before=features(9))):
                before = picture if isinstance(picture, np.ndarray) else theirs.look(features(seed), before=features(9))
                assert ours.yes_no(picture, QUESTION) == pytest.approx(theirs.yes_no(before, QUESTION), abs=0.01)
        language.close()
        del language, ours, runtime


def test_words_and_odds_are_those_of_onnx_runtime_in_single_precision(language: TensorRtLanguage, model: Model) -> None:
    ours, theirs = Decoder(model, language=language), Decoder(model)
    for seed in range(3):
        said = ["".join(each.generate(features(seed), QUESTION, key="cam", max_tokens=20)) for each in (ours, theirs)]
        assert said[0] == said[1]
    questions = [f"{QUESTION} {number} " + "red car " * number for number in range(24)]
    found, expected = (each.yes_no_many(features(1), questions, key="cam") for each in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert ours.tokens_read == theirs.tokens_read


def test_a_word_costs_one_copy_in_two_back_and_one_wait(language: TensorRtLanguage, world: World) -> None:
    reading = language.read_on(language.nothing, 64)
    reading.read(rows(1, 40))
    before = world.machine.counts.copy()
    reading.read(rows(2, 1))
    assert dict(world.machine.counts - before) == {"upload": 1, "graph": 1, "launch": 1, "readback": 2, "sync": 1}


def test_any_number_of_rows_and_answers_is_read_in_as_many_runs_as_it_takes(
    language: TensorRtLanguage, host: OnnxRuntime
) -> None:
    plain = LanguageModel(host)
    count, asked = READ_AT_ONCE[-1] + 3, [*range(0, 60, 2), -1, 5]
    both = [each.read_on(each.nothing, 8) for each in (language, plain)]
    found, expected = (each.read(rows(3, count), answer=asked) for each in both)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(both[0].past, both[1].past, atol=1e-4)
    parents = [-1, *(max(-1, i - 1 - i % 7) for i in range(1, 2 * count))]  # many texts that begin alike
    every = range(2 * count)
    seen = [i for i in every if i % 3 == 0][: 3 * ANSWERS]
    found, expected = (each.read(rows(4, 2 * count), parents, seen) for each in both)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert both[0].length == both[1].length == count


def test_texts_in_several_threads_keep_apart(language: TensorRtLanguage, host: OnnxRuntime) -> None:
    plain, found = LanguageModel(host), {}

    def read(seed: int) -> None:
        reading = language.read_on(language.nothing, 4)
        found[seed] = [reading.read(rows(seed * 100 + step, 1 + step % 3)) for step in range(12)]

    threads = [threading.Thread(target=read, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, logits in found.items():
        reading = plain.read_on(plain.nothing, 40)
        for step in range(12):
            np.testing.assert_allclose(logits[step], reading.read(rows(seed * 100 + step, 1 + step % 3)), atol=1e-4)


def test_a_text_that_is_too_long_goes_to_the_host_and_is_no_failure(
    language: TensorRtLanguage, host: OnnxRuntime, runtime: TensorRtRuntime
) -> None:
    both = FallbackLanguage(language, lambda: LanguageModel(host), pytest.fail, NoRoom)
    reading, expected = both.read_on(both.nothing, 4), LanguageModel(host).read_on(both.nothing, 4)
    for step in range(runtime.slots // 256 + 1):
        np.testing.assert_allclose(reading.read(rows(step, 256)), expected.read(rows(step, 256)), atol=1e-4)
    assert (both.passed_on, both.degraded) == (1, None)
    assert reading.length == runtime.slots + 256 and both.read_on(reading.past, 4).length == reading.length
    with pytest.raises(NoRoom, match=f"text of {reading.length} rows; the engine's cache holds {runtime.slots}"):
        language.read_on(reading.past, 1)
    with pytest.raises(NoRoom, match="question of 300 rows; 256 are read at once"):
        language.read_on(language.nothing, 0).read(rows(1, 300), list(range(-1, 299)))


def test_when_the_gpu_fails_the_answer_goes_on_and_at_last_it_is_given_up_and_told(
    language: TensorRtLanguage, host: OnnxRuntime, model: Model, world: World
) -> None:
    told: list[str] = []
    both = FallbackLanguage(language, lambda: LanguageModel(host), told.append, NoRoom)
    decoder, plain = Decoder(model, language=both, prefix_bytes=0), Decoder(model, prefix_bytes=0)
    expected = "".join(plain.generate(features(1), QUESTION, max_tokens=12))
    answer = decoder.generate(features(1), QUESTION, max_tokens=12)
    words = [next(answer)]
    world.libcuda.launches = 1
    assert "".join([*words, *answer]) == expected and not told
    assert "".join(decoder.generate(features(1), QUESTION, max_tokens=12)) == expected and both._failed == 0
    world.libcuda.launches = 99
    for _ in range(PATIENCE):
        assert "".join(decoder.generate(features(1), QUESTION, max_tokens=12)) == expected
    assert told == [both.degraded] and "the decoder failed 3 times in a row" in told[0] and "719" in told[0]
    before = world.machine.counts["upload"]
    assert "".join(decoder.generate(features(1), QUESTION, max_tokens=12)) == expected
    assert world.machine.counts["upload"] == before
    with pytest.raises(EngineFault, match="has been closed"):
        language.read_on(language.nothing, 4).read(rows(1, 1))


def test_what_pycuda_raises_costs_no_answer_either(
    language: TensorRtLanguage, host: OnnxRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pycuda import driver

    def gone(_: object) -> None:
        raise driver.LogicError("cuCtxPushCurrent failed: context is destroyed")

    told: list[str] = []
    both, plain = FallbackLanguage(language, lambda: LanguageModel(host), told.append, NoRoom), LanguageModel(host)
    gc.collect()  # what earlier tests left could not be let go of meanwhile
    with monkeypatch.context() as patch:
        patch.setattr(driver.Context, "push", gone)
        for number in range(PATIENCE):
            expected = plain.read_on(plain.nothing, 4).read(rows(number, 3))
            np.testing.assert_allclose(both.read_on(both.nothing, 4).read(rows(number, 3)), expected, atol=1e-4)
        assert told == [both.degraded] and "context is destroyed" in told[0]
    language.close()


def test_logits_that_are_not_finite_are_a_failure_and_nothing_of_them_stays(
    language: TensorRtLanguage, host: OnnxRuntime
) -> None:
    reading, plain = language.read_on(language.nothing, 4), LanguageModel(host).read_on(language.nothing, 4)
    for each in (reading, plain):
        each.read(rows(1, 5))
    with pytest.raises(EngineFault, match="aren't finite"):
        reading.read(np.full((2, SIZE.text_dim), np.nan, np.float32))
    assert reading.length == 5
    np.testing.assert_allclose(reading.read(rows(2, 3)), plain.read(rows(2, 3)), atol=1e-4)


def test_without_cuda_graphs_the_words_are_the_same(world: World, runtime: TensorRtRuntime, host: OnnxRuntime) -> None:
    world.libcuda.refuse = 900
    language = TensorRtLanguage(runtime, host)
    assert "CUDA graphs can't be used" in runtime.notes[-1]
    reading, plain = language.read_on(language.nothing, 4), LanguageModel(host).read_on(language.nothing, 4)
    np.testing.assert_allclose(reading.read(rows(1, 9)), plain.read(rows(1, 9)), atol=1e-4)
    language.close()


def test_memory_is_told_by_part_and_given_back(world: World, runtime: TensorRtRuntime, host: OnnxRuntime) -> None:
    language = TensorRtLanguage(runtime, host)
    parts = runtime.memory.parts()
    heads, size = SIZE.kv_heads, SIZE.text_dim // SIZE.text_heads
    assert parts["cache"].allocated == 2 * SIZE.text_layers * heads * runtime.slots * size * 4
    language.close()
    assert all(usage.allocated == 0 for part, usage in runtime.memory.parts().items() if part != "weights")
    del language
    gc.collect()  # page-locked memory goes with its arrays
    before = world.machine.used
    world.machine.budget = before + 100_000
    with pytest.raises(EngineFault, match="GPU memory"):
        TensorRtLanguage(runtime, host)
    gc.collect()
    assert world.machine.used == before


def test_each_reason_is_told_with_what_helps(
    world: World, model: Model, host: OnnxRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWATCH_ENGINES", str(tmp_path))
    assert "python3-libnvinfer" in choose_decoder(model, has=lambda name: False).not_taken[0]
    unbuilt = choose_decoder(model, has=lambda name: True, may_build=False)
    assert unbuilt.used.startswith("ONNX Runtime") and "`stillwatch model build random`" in unbuilt.not_taken[0]
    assert isinstance(unbuilt.language(host), LanguageModel)
    world.faults.stray = 1.0
    strayed = choose_decoder(model, has=lambda name: True)
    assert "fp32: outputs stray from ONNX Runtime's: reading 256 rows" in strayed.not_taken[0]
    world.faults.reset()
    older = model.manifest.model_copy(
        update={"graphs": {name: graph for name, graph in model.manifest.graphs.items() if name != "decode_rows"}}
    )
    old = choose_decoder(Model(model.folder, older), has=lambda name: True)
    assert "lacks the graphs decode_rows; import the model again" in old.not_taken[0]
    monkeypatch.setenv("STILLWATCH_ENGINES", str(tmp_path / "anew"))
    taken = choose_decoder(model, has=lambda name: True)
    assert taken.used == "TensorRT 10.3.0 (fp16) on Orin (simulated)" and taken.runtime is not None
    assert isinstance(taken.language(host), FallbackLanguage)


def test_bfloat16_goes_there_and_back() -> None:
    kept = np.dtype(np.uint16)
    values = np.array([0, 1, -2.5, 3.14159, 1e30, 1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    found = raised(lowered(values, kept))
    assert found.tolist() == [0, 1, -2.5, 3.140625, pytest.approx(1e30, rel=2**-8), 1, 1 + 2**-6]
    np.testing.assert_array_equal(raised(lowered(found, kept)), found)


def test_an_answer_that_is_guessed_is_read_in_one_run(language: TensorRtLanguage, model: Model, world: World) -> None:
    decoder, plain = Decoder(model, language=language), Decoder(model)
    first = "".join(decoder.generate(features(1), QUESTION, key="cam", max_tokens=20, again=True))
    before = world.machine.counts["graph"]
    again = "".join(decoder.generate(features(1), QUESTION, key="cam", max_tokens=20, again=True))
    assert first == again == "".join(plain.generate(features(1), QUESTION, max_tokens=20))
    assert world.machine.counts["graph"] - before <= 2


def test_bfloat16_is_kept_in_half_the_memory(world: World, model: Model, host: OnnxRuntime, tmp_path: Path) -> None:
    unchecked = replace(DECODER, compare=lambda runtime: [])  # eight bits are few for a model this small
    runtime = TensorRtRuntime(model, world.gpu, purpose=unchecked, precision="bf16", folder=tmp_path)
    language, plain = TensorRtLanguage(runtime, host), LanguageModel(host)
    both = [each.read_on(each.nothing, 4) for each in (language, plain)]
    for step in range(3):
        found, expected = (each.read(rows(step, 5)) for each in both)
        cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
        assert cosine > 0.99
    assert runtime.memory.parts()["cache"].allocated == both[0].past.nbytes // both[0].length * runtime.slots // 2
    language.close()
