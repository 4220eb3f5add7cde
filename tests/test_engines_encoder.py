"""Selective encoding: what it must equal, and what a cache must never do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from engines_checkpoint import Size, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from config.errors import EngineFault, ModelError
from engines.cost import encode_cost
from engines.export import export_model
from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode
from engines.preprocess import Preprocessor

SIZE = Size()
TOKENS = (SIZE.image // SIZE.patch) ** 2
FULL = EncodePlan(Mode.FULL, None)
Weights = Mapping[str, NDArray[np.float32]]
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Weights]:
    folder = tmp_path_factory.mktemp("model")
    weights = write_checkpoint(folder, SIZE)
    return export_model(folder, name="random", domain="noise", prompt="{image}{question}"), weights


@pytest.fixture(scope="module")
def runtime(checkpoint: tuple[Model, Weights]) -> OnnxRuntime:
    return OnnxRuntime(checkpoint[0], threads=1)


@pytest.fixture
def encoder(runtime: OnnxRuntime) -> OnnxEncoder:
    return OnnxEncoder(runtime)


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE.image, SIZE.image, 3), dtype=np.uint8)


def select(*slots: int, fetch: NDArray[np.int64] | None = None) -> EncodePlan:
    return EncodePlan(Mode.WARPING, np.array(slots, np.int64), fetch)


class PlainTower:
    """The tower spelled out in NumPy, with a list of (keys, values) per layer as its cache."""

    def __init__(self, model: Model, weights: Weights) -> None:
        self._w = {name: w.astype(np.float64) for name, w in weights.items()}
        self._patches = Preprocessor(model.manifest).patches
        self.features = np.zeros((TOKENS, SIZE.dim))
        self.keys = np.zeros((SIZE.layers, TOKENS, SIZE.dim))
        self.values = np.zeros((SIZE.layers, TOKENS, SIZE.dim))

    def encode(self, image: NDArray[np.uint8], slots: list[int]) -> Floats:
        tower = "model.vision_model"
        kernel = self._w[f"{tower}.embeddings.patch_embedding.weight"].reshape(SIZE.dim, -1)
        x = self._patches(image)[slots] @ kernel.T + self._w[f"{tower}.embeddings.patch_embedding.bias"]
        x = x + self._w[f"{tower}.embeddings.position_embedding.weight"][slots]
        for i in range(SIZE.layers):
            layer = f"{tower}.encoder.layers.{i}"
            h = self._norm(x, f"{layer}.layer_norm1")
            self.keys[i, slots] = self._linear(h, f"{layer}.self_attn.k_proj")
            self.values[i, slots] = self._linear(h, f"{layer}.self_attn.v_proj")
            q = self._linear(h, f"{layer}.self_attn.q_proj")
            size = SIZE.dim // SIZE.heads
            heads = []
            for start in range(0, SIZE.dim, size):
                part = slice(start, start + size)
                scores = q[:, part] @ self.keys[i, :, part].T / np.sqrt(size)
                weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                heads.append(weights / weights.sum(axis=1, keepdims=True) @ self.values[i, :, part])
            x = x + self._linear(np.concatenate(heads, axis=1), f"{layer}.self_attn.out_proj")
            h = self._linear(self._norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
            h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
            x = x + self._linear(h, f"{layer}.mlp.fc2")
        self.features[slots] = self._norm(x, f"{tower}.post_layernorm")
        return self.features

    def _linear(self, x: Floats, module: str) -> Floats:
        return x @ self._w[f"{module}.weight"].T + self._w[f"{module}.bias"]

    def _norm(self, x: Floats, module: str) -> Floats:
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-6)
        return x * self._w[f"{module}.weight"] + self._w[f"{module}.bias"]


@settings(deadline=None, max_examples=25)
@given(
    frames=st.lists(st.lists(st.integers(0, TOKENS - 1), unique=True, max_size=TOKENS), min_size=1, max_size=4),
    data=st.data(),
)
def test_any_run_of_plans_equals_the_tower_spelled_out(
    checkpoint: tuple[Model, Weights], runtime: OnnxRuntime, frames: list[list[int]], data: st.DataObject
) -> None:
    """Dirty rows are right given the cache, clean rows keep their values, fetched rows are those of their source."""
    plain, ours = PlainTower(*checkpoint), OnnxEncoder(runtime)
    first = ours.encode(picture(0), FULL)
    np.testing.assert_allclose(first.features, plain.encode(picture(0), list(range(TOKENS))), atol=1e-4)
    for number, dirty in enumerate(frames, start=1):
        fetch = np.array(data.draw(st.lists(st.integers(0, TOKENS - 1), min_size=TOKENS, max_size=TOKENS)))
        plain.features = plain.features[fetch]
        plain.keys, plain.values = plain.keys[:, fetch], plain.values[:, fetch]
        tokens = ours.encode(picture(number), select(*dirty, fetch=fetch))
        assert tokens.encoded == len(dirty)
        np.testing.assert_allclose(tokens.features, plain.encode(picture(number), dirty), atol=1e-4)


def test_all_tokens_dirty_equals_a_full_encode(encoder: OnnxEncoder) -> None:
    encoder.encode(picture(1), FULL)
    selected = encoder.encode(picture(2), select(*range(TOKENS)))
    assert selected.encoded == TOKENS
    np.testing.assert_allclose(selected.features, encoder.encode_full(picture(2)), atol=1e-4)


def test_the_order_of_slots_is_irrelevant(runtime: OnnxRuntime) -> None:
    results = []
    for slots in ([2, 5, 11, 12], [12, 2, 11, 5]):
        encoder = OnnxEncoder(runtime)
        encoder.encode(picture(1), FULL)
        results.append(encoder.encode(picture(2), select(*slots)).features.copy())
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


def test_nothing_dirty_runs_nothing(encoder: OnnxEncoder) -> None:
    before = encoder.encode(picture(1), FULL).features.copy()
    after = encoder.encode(picture(2), select())
    assert after.encoded == 0
    np.testing.assert_array_equal(after.features, before)


def test_one_buffer_as_input_and_output_gives_the_bits_of_two(runtime: OnnxRuntime) -> None:
    """The encoder's caches are written in place; the same graph with outputs of its own makes a copy first."""
    manifest, graph = runtime.model.manifest, runtime.session("select_inplace")
    rng = np.random.default_rng(5)
    slots = np.array([0, 3, 9], np.int64)
    feeds = {"patches": rng.normal(size=(3, 588)).astype(np.float32), "index": slots}
    feeds["key_bias"] = np.zeros(TOKENS, np.float32)
    state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in outputs(runtime).items()}
    copied = graph.run(None, feeds | {f"{name}_in": array for name, array in state.items()})

    binding = graph.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for name, array in state.items():
        binding.bind_input(f"{name}_in", "cpu", 0, np.float32, array.shape, array.ctypes.data)
        binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    graph.run_with_iobinding(binding)
    for output, name, value in zip(graph.get_outputs(), outputs(runtime), copied, strict=True):
        assert output.name == name
        np.testing.assert_array_equal(state[name], value)
    bound = {value.data_ptr() for value in binding.get_outputs()}
    assert bound == {array.ctypes.data for array in state.values()}
    assert len(state) == 2 * manifest.layers + 1


def outputs(runtime: OnnxRuntime) -> dict[str, tuple[int, ...]]:
    graph = runtime.session("select_inplace")
    return {value.name: tuple(value.shape) for value in graph.get_outputs()}


def test_nothing_survives_a_reset(runtime: OnnxRuntime, encoder: OnnxEncoder) -> None:
    encoder.encode(picture(1), FULL)
    encoder.encode(picture(2), select(0, 7))
    encoder.reset()
    fresh = OnnxEncoder(runtime)
    for image, plan in ((picture(3), select(4)), (picture(4), select(1, 2, 3))):
        ours, theirs = encoder.encode(image, plan), fresh.encode(image, plan)
        assert ours.encoded == theirs.encoded
        np.testing.assert_array_equal(ours.features, theirs.features)


def test_the_first_call_is_full_whatever_the_plan(encoder: OnnxEncoder) -> None:
    tokens = encoder.encode(picture(1), select(3))
    assert tokens.encoded == TOKENS
    np.testing.assert_array_equal(tokens.features, encoder.encode_full(picture(1)))


def test_after_a_failure_the_next_call_is_full(encoder: OnnxEncoder) -> None:
    encoder.encode(picture(1), FULL)
    wrong_type = EncodePlan(Mode.WARPING, np.array([1, 2], np.int32))  # type: ignore[arg-type]
    with pytest.raises(EngineFault, match="data type"):
        encoder.encode(picture(2), wrong_type)
    after = encoder.encode(picture(3), select(5))
    assert after.encoded == TOKENS
    np.testing.assert_array_equal(after.features, encoder.encode_full(picture(3)))


def test_an_audit_leaves_the_cache_alone(runtime: OnnxRuntime) -> None:
    audited, left_alone = OnnxEncoder(runtime), OnnxEncoder(runtime)
    for encoder in (audited, left_alone):
        encoder.encode(picture(1), FULL)
    audit = audited.encode_full(picture(9))
    kept = audit.copy()
    ours, theirs = (e.encode(picture(2), select(0, 1)).features for e in (audited, left_alone))
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(audit, kept)


def test_cameras_that_share_weights_share_nothing_else(runtime: OnnxRuntime) -> None:
    front, back, alone = OnnxEncoder(runtime), OnnxEncoder(runtime), OnnxEncoder(runtime)
    for number in range(3):
        plan = FULL if number == 0 else select(number, 10)
        ours = front.encode(picture(number), plan).features
        back.encode(picture(50 + number), plan)
        np.testing.assert_array_equal(ours, alone.encode(picture(number), plan).features)


def test_costs_are_measured_for_few_tokens_up_to_all(encoder: OnnxEncoder) -> None:
    cost = encode_cost(encoder, budget_s=0.02)
    assert min(cost) == 1 and max(cost) == TOKENS
    assert all(ms > 0 for ms in cost.values())
    assert encoder.encode(picture(1), select(0)).encoded == TOKENS


def test_a_graph_that_does_not_load_is_a_fault_of_the_model(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SIZE)
    model = export_model(tmp_path, name="random", domain="noise", prompt="{image}{question}")
    (tmp_path / "encode_full.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"encode_full\.onnx.*engines\.export"):
        OnnxEncoder(OnnxRuntime(model, threads=1))
