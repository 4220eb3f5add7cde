"""Selective encoding: what it must equal, and what a cache must never do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from engines_checkpoint import Size, write_checkpoint
from engines_rows import RowsEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tensorrt_world import poison_rows, simulated

from config.errors import EngineFault, ModelError
from engines.cost import encode_cost
from engines.export import export_model
from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.pair import OnnxPair
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode, cells_of
from engines.preprocess import Preprocessor
from engines.tensorrt.encoder import TensorRtEncoder
from engines.tensorrt.runtime import TensorRtRuntime

SIZE = Size(dim=64, heads=2)
SIDE = SIZE.image // SIZE.patch
TOKENS = SIDE**2
CELLS = cells_of((SIDE, SIDE))
NO_SLOTS: list[int] = []
FULL = EncodePlan(Mode.FULL, None)
Weights = Mapping[str, NDArray[np.float32]]
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Weights]:
    folder = tmp_path_factory.mktemp("model")
    weights = write_checkpoint(folder, SIZE)
    given = {"name": "random", "domain": "noise", "prompt": "{image}{question}"}
    return export_model(folder, **given, select_buckets=(4, 8, TOKENS)), weights


@pytest.fixture(scope="module")
def runtime(checkpoint: tuple[Model, Weights]) -> OnnxRuntime:
    return OnnxRuntime(checkpoint[0], threads=1, native=False)


@pytest.fixture(scope="module")
def native_runtime(checkpoint: tuple[Model, Weights]) -> OnnxRuntime:
    runtime = OnnxRuntime(checkpoint[0], threads=3)
    if isinstance(runtime.tower, str):
        pytest.skip(runtime.tower)
    return runtime


@pytest.fixture(scope="module")
def gpu_runtime(checkpoint: tuple[Model, Weights]) -> Iterator[TensorRtRuntime]:
    """TensorRT's stand-in, in float32, so that it must agree as ONNX Runtime does."""
    model = checkpoint[0]
    with simulated() as world:
        yield TensorRtRuntime(model, world.gpu, precision="fp32", folder=model.folder / "engines")


Form = OnnxEncoder | RowsEncoder | TensorRtEncoder
FORMS = ("in place", "in C", "rows", "rows in buckets", "TensorRT")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, runtime: OnnxRuntime) -> Callable[[], Form]:
    """Makes encoders of one of the exported forms."""
    if request.param == "TensorRT":
        gpu_runtime = request.getfixturevalue("gpu_runtime")
        return lambda: TensorRtEncoder(gpu_runtime, refresh=False)
    if request.param == "in C":
        native_runtime = request.getfixturevalue("native_runtime")
        return lambda: OnnxEncoder(native_runtime)
    made: dict[str, Callable[[], Form]] = {
        "in place": lambda: OnnxEncoder(runtime),
        "rows": lambda: RowsEncoder(runtime.model),
        "rows in buckets": lambda: RowsEncoder(runtime.model, buckets=(4, 8, TOKENS)),
    }
    return made[request.param]


@pytest.fixture
def encoder(form: Callable[[], Form]) -> Form:
    return form()


def poison(encoder: Form, slots: list[int]) -> None:
    """NaN in the cache rows of slots, before any renaming."""
    if isinstance(encoder, RowsEncoder):
        encoder.poison(slots)
    elif isinstance(encoder, TensorRtEncoder):
        poison_rows(encoder, slots)
    else:
        encoder.cache[:, :, :, slots] = np.nan


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (SIZE.image, SIZE.image, 3), dtype=np.uint8)


def select(*slots: int, coarse: list[int] = NO_SLOTS, fetch: NDArray[np.int64] | None = None) -> EncodePlan:
    cells = np.array(coarse, np.int64) if coarse else None
    return EncodePlan(Mode.WARPING, np.array(slots, np.int64), fetch, coarse=cells)


class PlainTower:
    """The tower spelled out in NumPy. Each slot has features, and keys and values per layer; a coarse cell's are those
    of its first slot, which the softmax counts four times; nothing looks at the other three."""

    def __init__(self, model: Model, weights: Weights) -> None:
        self._w = {name: w.astype(np.float64) for name, w in weights.items()}
        self._patches = Preprocessor(model.manifest).patches
        self.features = np.zeros((TOKENS, SIZE.dim))
        self.keys = np.zeros((SIZE.layers, TOKENS, SIZE.dim))
        self.values = np.zeros((SIZE.layers, TOKENS, SIZE.dim))
        self.count = np.ones(TOKENS)

    def fetch(self, fetch: NDArray[np.int64]) -> None:
        self.features, self.count = self.features[fetch], self.count[fetch]
        self.keys, self.values = self.keys[:, fetch], self.values[:, fetch]

    def encode(self, image: NDArray[np.uint8], slots: list[int], coarse: list[int] = NO_SLOTS) -> Floats:
        tower = "model.vision_model"
        four = CELLS[np.isin(CELLS[:, 0], coarse)]
        self.count[slots] = 1
        self.count[four] = [4, 0, 0, 0]
        kernel = self._w[f"{tower}.embeddings.patch_embedding.weight"].reshape(SIZE.dim, -1)
        table = self._w[f"{tower}.embeddings.position_embedding.weight"]
        half = image.reshape(SIZE.image // 2, 2, SIZE.image // 2, 2, 3).mean(axis=(1, 3))
        p = SIZE.patch
        areas = [half[y * p : y * p + p, x * p : x * p + p] for y, x in (divmod(c, SIDE) for c in four[:, 0] // 2)]
        area = np.array([((a / 255 - 0.5) / 0.5).transpose(2, 0, 1).ravel() for a in areas]).reshape(-1, 3 * p * p)
        x = np.concatenate([self._patches(image)[slots], area]) @ kernel.T
        x = x + self._w[f"{tower}.embeddings.patch_embedding.bias"]
        x = x + np.concatenate([table[slots], table[four].mean(axis=1)])
        rows = [*slots, *four[:, 0]]
        for i in range(SIZE.layers):
            layer = f"{tower}.encoder.layers.{i}"
            h = self._norm(x, f"{layer}.layer_norm1")
            self.keys[i, rows] = self._linear(h, f"{layer}.self_attn.k_proj")
            self.values[i, rows] = self._linear(h, f"{layer}.self_attn.v_proj")
            q = self._linear(h, f"{layer}.self_attn.q_proj")
            size = SIZE.dim // SIZE.heads
            heads = []
            for start in range(0, SIZE.dim, size):
                part = slice(start, start + size)
                scores = q[:, part] @ self.keys[i, :, part].T / np.sqrt(size)
                weights = self.count * np.exp(scores - scores.max(axis=1, keepdims=True))
                heads.append(weights / weights.sum(axis=1, keepdims=True) @ self.values[i, :, part])
            x = x + self._linear(np.concatenate(heads, axis=1), f"{layer}.self_attn.out_proj")
            h = self._linear(self._norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
            h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
            x = x + self._linear(h, f"{layer}.mlp.fc2")
        x = self._norm(x, f"{tower}.post_layernorm")
        self.features[slots] = x[: len(slots)]
        self.features[four] = x[len(slots) :, None]
        return self.features

    def _linear(self, x: Floats, module: str) -> Floats:
        return x @ self._w[f"{module}.weight"].T + self._w[f"{module}.bias"]

    def _norm(self, x: Floats, module: str) -> Floats:
        x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-6)
        return x * self._w[f"{module}.weight"] + self._w[f"{module}.bias"]


@st.composite
def plans(draw: st.DrawFn) -> list[EncodePlan]:
    """A run of plans that leave no cell partly coarse: coarse cells stay, go coarse or fine as a whole, and are fetched
    slot by slot by another cell; other slots fetch from fine ones."""
    frames, is_coarse = [], np.zeros(TOKENS, bool)
    for _ in range(draw(st.integers(1, 5))):
        fine = np.flatnonzero(~is_coarse)
        fetch = np.arange(TOKENS)
        for four in CELLS:
            if draw(st.integers(0, 3)) == 0:
                fetch[four] = CELLS[draw(st.integers(0, len(CELLS) - 1))]
            elif not is_coarse[four].any() and len(fine):
                fetch[four] = draw(st.lists(st.sampled_from(fine), min_size=4, max_size=4))
        coming, dirty, coarse = is_coarse[fetch], [], []
        for four in CELLS:
            kind = draw(st.sampled_from(["kept", "kept", "coarse", "fine"]))
            if kind == "coarse":
                coarse.append(four[0])
            elif kind == "fine" or (coming[four].any() and not coming[four].all()):
                dirty += list(four)
            elif not coming[four].any():
                dirty += draw(st.lists(st.sampled_from(four), unique=True))
        is_coarse = coming
        is_coarse[dirty] = False
        is_coarse[CELLS[np.isin(CELLS[:, 0], coarse)]] = True
        frames.append(select(*sorted(dirty), coarse=coarse, fetch=draw(st.sampled_from([fetch, fetch.copy()]))))
    return frames


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=plans())
def test_any_run_of_plans_equals_the_tower_spelled_out(
    checkpoint: tuple[Model, Weights], form: Callable[[], Form], frames: list[EncodePlan]
) -> None:
    """Dirty rows are right given the cache, clean rows keep their values, fetched rows are those of their source, and a
    coarse token counts for the four that it covers."""
    plain, ours = PlainTower(*checkpoint), form()
    ours.crossover = TOKENS + 1
    first = ours.encode(picture(0), FULL)
    np.testing.assert_allclose(first.features, plain.encode(picture(0), list(range(TOKENS))), atol=1e-4)
    for number, plan in enumerate(frames, start=1):
        assert plan.fetch is not None and plan.dirty is not None
        plain.fetch(plan.fetch)
        coarse = [] if plan.coarse is None else list(plan.coarse)
        tokens = ours.encode(picture(number), plan)
        assert tokens.encoded == len(plan.dirty) + len(coarse)
        np.testing.assert_allclose(tokens.features, plain.encode(picture(number), list(plan.dirty), coarse), atol=1e-4)
        np.testing.assert_array_equal(tokens.coarse, plain.count != 1)


@settings(deadline=None, max_examples=15)
@given(first=plans(), second=plans())
def test_two_cameras_together_are_two_cameras_one_by_one(
    runtime: OnnxRuntime, first: list[EncodePlan], second: list[EncodePlan]
) -> None:
    together, apart = ([OnnxEncoder(runtime), OnnxEncoder(runtime)] for _ in range(2))
    pair = OnnxPair(runtime, *together)
    for number, plan in enumerate(zip([FULL, *first], [FULL, *second], strict=False)):
        images = picture(number), picture(50 + number)
        expected = [encoder.encode(*work) for encoder, *work in zip(apart, images, plan, strict=True)]
        for ours, theirs in zip(pair.encode(images, plan), expected, strict=True):
            assert ours.encoded == theirs.encoded
            np.testing.assert_allclose(ours.features, theirs.features, atol=1e-5)
            np.testing.assert_array_equal(ours.coarse, theirs.coarse)
    for ours, theirs in zip(together, apart, strict=True):
        np.testing.assert_allclose(
            ours.cache[:, :, :, ours.slots.rows], theirs.cache[:, :, :, theirs.slots.rows], atol=1e-5
        )


def test_a_pair_refuses_a_bad_plan_and_changes_neither(runtime: OnnxRuntime) -> None:
    pair = OnnxPair(runtime, first := OnnxEncoder(runtime), second := OnnxEncoder(runtime))
    pair.encode((picture(1), picture(2)), (FULL, FULL))
    before = [encoder.cache.copy() for encoder in (first, second)]
    with pytest.raises(ValueError, match="both in"):
        pair.encode((picture(3), picture(4)), (select(1, coarse=[2]), select(0, coarse=[0])))
    for encoder, cache in zip((first, second), before, strict=True):
        np.testing.assert_array_equal(encoder.cache, cache)
        assert not encoder.slots.coarse.any()


def test_all_tokens_dirty_equals_a_full_encode(encoder: Form) -> None:
    encoder.crossover = TOKENS + 1
    encoder.encode(picture(1), FULL)
    selected = encoder.encode(picture(2), select(*range(TOKENS)))
    np.testing.assert_allclose(selected.features, encoder.encode_full(picture(2)), atol=1e-4)


def test_the_order_of_slots_is_irrelevant(form: Callable[[], Form]) -> None:
    results = []
    for slots in ([2, 5, 11, 12], [12, 2, 11, 5]):
        encoder = form()
        encoder.encode(picture(1), FULL)
        results.append(encoder.encode(picture(2), select(*slots)).features.copy())
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


def test_what_fills_a_bucket_changes_nothing(runtime: OnnxRuntime) -> None:
    results = []
    for buckets, filler in (((), 0.0), ((8, TOKENS), 0.0), ((8, TOKENS), 3.0)):
        encoder = RowsEncoder(runtime.model, buckets, filler)
        encoder.encode(picture(1), FULL)
        encoder.encode(picture(2), select(7, 15, coarse=[0]))
        results.append(encoder.encode(picture(3), select(2, 3)).features)
    np.testing.assert_allclose(results[1], results[0], atol=1e-5)
    np.testing.assert_array_equal(results[2], results[1])


def test_the_forms_agree_on_a_full_encode(runtime: OnnxRuntime) -> None:
    ours, theirs = OnnxEncoder(runtime), RowsEncoder(runtime.model)
    np.testing.assert_allclose(ours.encode_full(picture(1)), theirs.encode_full(picture(1)), atol=1e-5)


def test_nothing_dirty_runs_nothing(runtime: OnnxRuntime) -> None:
    encoder = OnnxEncoder(runtime)
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
    feeds |= {"position": np.repeat(slots[:, None], 4, axis=1), "source": np.arange(3)}
    state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in caches(runtime).items()}
    features, *copied = graph.run(["features", *state], feeds | {f"{name}_in": array for name, array in state.items()})

    binding = graph.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for name, array in state.items():
        binding.bind_input(f"{name}_in", "cpu", 0, np.float32, array.shape, array.ctypes.data)
        binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    binding.bind_output("features", "cpu")
    graph.run_with_iobinding(binding)
    for array, value in zip(state.values(), copied, strict=True):
        np.testing.assert_array_equal(array, value)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[-1], features)
    bound = {value.data_ptr() for value in binding.get_outputs()[:-1]}
    assert bound == {array.ctypes.data for array in state.values()}
    assert len(state) == 2 * manifest.layers


def caches(runtime: OnnxRuntime) -> dict[str, tuple[int, ...]]:
    graph = runtime.session("select_inplace")
    return {value.name: tuple(value.shape) for value in graph.get_outputs() if value.name != "features"}


def test_a_fine_token_has_its_own_position_to_the_bit(checkpoint: tuple[Model, Weights], tmp_path: Path) -> None:
    """The mean of four equal rows is that row: no rounding between selecting and a full encode."""
    table = checkpoint[1]["model.vision_model.embeddings.position_embedding.weight"]
    graph = onnx.load(checkpoint[0].folder / "select_inplace.onnx", load_external_data=False)
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info("positions"))
    shutil.copy(checkpoint[0].folder / "model.safetensors", tmp_path)
    onnx.save(graph, tmp_path / "select_inplace.onnx")
    session = ort.InferenceSession(tmp_path / "select_inplace.onnx", providers=["CPUExecutionProvider"])

    def positions(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        sizes = {"n": len(rows), "r": len(rows)}
        feeds = {i.name: np.zeros([sizes.get(d, d) for d in i.shape], kinds[i.type]) for i in session.get_inputs()}
        return np.asarray(session.run(["positions"], feeds | {"position": rows})[0], np.float32)

    np.testing.assert_array_equal(positions(np.repeat(np.arange(TOKENS)[:, None], 4, axis=1)), table)
    np.testing.assert_allclose(positions(CELLS), table[CELLS].mean(axis=1), atol=1e-7)


def test_a_full_encode_makes_every_token_fine(encoder: Form) -> None:
    encoder.encode(picture(1), FULL)
    assert encoder.encode(picture(2), select(7, coarse=[0, 10])).coarse.sum() == 8
    full = encoder.encode(picture(3), FULL)
    assert not full.coarse.any()
    np.testing.assert_array_equal(full.features, encoder.encode_full(picture(3)))
    after = encoder.encode(picture(4), select(1))
    assert after.encoded == 1


def test_what_rows_held_before_never_leaks(form: Callable[[], Form]) -> None:
    """NaN in the rows that are written, those of a coarse cell too, changes nothing, to the bit."""
    results = []
    for poisoned in ([], [0, 1, 4, 5, 10]):
        encoder = form()
        encoder.encode(picture(1), FULL)
        poison(encoder, poisoned)
        encoder.encode(picture(2), select(10, coarse=[0]))
        results.append(encoder.encode(picture(3), select(9, 14)).features.copy())
    assert np.isfinite(results[0]).all()
    np.testing.assert_array_equal(results[0], results[1])


BAD_PLANS = {
    "part of a coarse cell": (select(1, 4), r"the cell at slot 0 \(row 0, column 0\) would be partly coarse"),
    "both": (select(2, coarse=[2]), r"slot 2 \(row 0, column 2\) is both in `dirty` and in `coarse`"),
    "no cell": (select(coarse=[5]), r"`coarse` names the cell at slot 5 .*expected the top left"),
    "no slot": (select(TOKENS), rf"slots {TOKENS} to {TOKENS}, expected 0 to {TOKENS - 1}"),
    "half a coarse cell fetched": (
        select(fetch=np.array([0, 1, 0, 1, 4, 5, *range(6, TOKENS)])),
        r"slot 2 \(row 0, column 2\) would be partly coarse",
    ),
    "a coarse cell turned over": (
        select(fetch=np.array([0, 1, 1, 0, 4, 5, 4, 5, *range(8, TOKENS)])),
        r"slot 2 \(row 0, column 2\) fetches from parts of coarse cells",
    ),
}


@pytest.mark.parametrize("case", BAD_PLANS)
def test_a_plan_that_breaks_a_coarse_cell_is_refused_and_changes_nothing(form: Callable[[], Form], case: str) -> None:
    refused, left_alone = form(), form()
    for encoder in (refused, left_alone):
        encoder.encode(picture(1), FULL)
        encoder.encode(picture(2), select(coarse=[0]))
    plan, message = BAD_PLANS[case]
    with pytest.raises(ValueError, match=message):
        refused.encode(picture(3), plan)
    ours, theirs = (encoder.encode(picture(4), select(3, 8)) for encoder in (refused, left_alone))
    assert ours.encoded == 2
    np.testing.assert_array_equal(ours.features, theirs.features)


def test_a_full_plan_has_no_coarse_cells() -> None:
    with pytest.raises(ValueError, match="a full encode has no coarse cells"):
        EncodePlan(Mode.FULL, None, coarse=np.array([0]))


def test_a_slide_of_the_grid_moves_no_row_of_the_cache(runtime: OnnxRuntime) -> None:
    """One column to the left: tokens take their rows along, and only what is revealed is written."""
    encoder = OnnxEncoder(runtime)
    encoder.encode(picture(1), FULL)
    before = encoder.cache.copy()
    slots = np.arange(TOKENS).reshape(SIDE, SIDE)
    fetch = np.concatenate([slots[:, 1:], slots[:, -1:]], axis=1).ravel()
    encoder.encode(picture(2), select(*slots[:, -1], fetch=fetch))
    changed = (encoder.cache != before).any(axis=(0, 1, 2, 4))
    np.testing.assert_array_equal(np.flatnonzero(changed), slots[:, 0])


def test_past_the_crossover_a_plan_is_carried_out_in_full(encoder: Form) -> None:
    encoder.crossover = 5
    encoder.encode(picture(1), FULL)
    assert encoder.encode(picture(2), select(0, 1, 2, 3)).encoded == 4
    tokens = encoder.encode(picture(3), select(0, 1, 2, coarse=[8, 10]))
    assert tokens.encoded == TOKENS and not tokens.coarse.any()
    np.testing.assert_array_equal(tokens.features, encoder.encode_full(picture(3)))


def test_nothing_survives_a_reset(form: Callable[[], Form], encoder: Form) -> None:
    encoder.encode(picture(1), FULL)
    encoder.encode(picture(2), select(0, 7))
    encoder.reset()
    fresh = form()
    for image, plan in ((picture(3), select(4)), (picture(4), select(1, 2, 3))):
        ours, theirs = encoder.encode(image, plan), fresh.encode(image, plan)
        assert ours.encoded == theirs.encoded
        np.testing.assert_array_equal(ours.features, theirs.features)


def test_the_first_call_is_full_whatever_the_plan(encoder: Form) -> None:
    tokens = encoder.encode(picture(1), select(3))
    assert tokens.encoded == TOKENS
    np.testing.assert_array_equal(tokens.features, encoder.encode_full(picture(1)))


def failing(folder: Path, name: str) -> OnnxRuntime:
    """A graph is made to fail after it has written the rows of its first layer."""
    write_checkpoint(folder, SIZE)
    model = export_model(folder, name="random", domain="noise", prompt="{image}{question}")
    file = model.graph(name)
    graph = onnx.load(file, load_external_data=False)
    last = next(node for node in reversed(graph.graph.node) if node.op_type == "ScatterND")
    astray = onnx.helper.make_tensor("astray", onnx.TensorProto.INT64, [1], [TOKENS])
    graph.graph.initializer.append(astray)
    graph.graph.node.insert(0, onnx.helper.make_node("Add", [last.input[1], "astray"], ["beyond"]))
    last.input[1] = "beyond"
    for number, node in enumerate(graph.graph.node):
        if node is last:
            graph.graph.node.insert(number, graph.graph.node.pop(0))
            break
    file.write_bytes(graph.SerializeToString())
    return OnnxRuntime(model, threads=1, native=False)


def test_after_a_failure_the_next_call_is_full(tmp_path: Path) -> None:
    encoder = OnnxEncoder(failing(tmp_path, "select_inplace"))
    encoder.encode(picture(1), FULL)
    before = encoder.cache.copy()
    with pytest.raises(EngineFault, match="invalid indice"):
        encoder.encode(picture(2), select(1, 2))
    assert (encoder.cache != before).any(), "nothing was half-written"
    after = encoder.encode(picture(3), select(5))
    assert after.encoded == TOKENS
    np.testing.assert_array_equal(after.features, encoder.encode_full(picture(3)))


def test_after_a_pass_for_two_has_failed_both_are_full(tmp_path: Path) -> None:
    runtime = failing(tmp_path, "select_pair")
    pair = OnnxPair(runtime, *(both := (OnnxEncoder(runtime), OnnxEncoder(runtime))))
    pair.encode((picture(1), picture(2)), (FULL, FULL))
    with pytest.raises(EngineFault, match="invalid indice"):
        pair.encode((picture(3), picture(4)), (select(1, 2), select(5)))
    after = pair.encode((picture(5), picture(6)), (select(1), select(2)))
    for seed, encoder, tokens in zip((5, 6), both, after, strict=True):
        assert tokens.encoded == TOKENS
        np.testing.assert_array_equal(tokens.features, encoder.encode_full(picture(seed)))


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


def test_costs_are_measured_for_few_tokens_up_to_all(runtime: OnnxRuntime) -> None:
    encoder = OnnxEncoder(runtime)
    cost = encode_cost(encoder, budget_s=0.02)
    assert min(cost) == 1 and max(cost) == TOKENS
    assert all(ms > 0 for ms in cost.values())
    assert encoder.encode(picture(1), select(0)).encoded == TOKENS


def test_a_graph_that_does_not_load_is_a_fault_of_the_model(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SIZE)
    model = export_model(tmp_path, name="random", domain="noise", prompt="{image}{question}")
    (tmp_path / "encode_full_fused.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"encode_full_fused\.onnx.*engines\.export"):
        OnnxEncoder(OnnxRuntime(model, threads=1))
