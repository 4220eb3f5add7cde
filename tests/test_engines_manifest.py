"""Model folders: what is exported holds, and every fault of a folder is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from engines_checkpoint import Size, write_checkpoint
from typer.testing import CliRunner

from config.errors import ModelError
from engines.export import export_model
from engines.export.__main__ import app
from engines.manifest import MANIFEST, REFERENCE, find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime

PROMPT = "{image}{question}"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder)
    export_model(folder, name="random", domain="noise", prompt=PROMPT)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_an_exported_folder_loads_and_says_what_it_is(folder: Path) -> None:
    manifest = load_model(folder).manifest
    assert (manifest.grid, manifest.tokens, manifest.visual_tokens) == ((4, 4), 16, 4)
    assert manifest.cache_layout == (2, 2, 4, 16, 8)
    assert manifest.eos == ("<end_of_utterance>",)
    assert manifest.graphs["prefill"].inputs["keys_0_in"] == (2, "c", 12)
    assert manifest.dtype == "float16"


@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_pixels_are_normalised_as_the_processor_says(tmp_path: Path, file: str) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    content = settings if file.startswith("pre") else {"image_processor": settings}
    (tmp_path / file).write_text(json.dumps(content))
    manifest = export_model(tmp_path, name="random", domain="noise", prompt=PROMPT).manifest
    assert (manifest.mean, manifest.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_graphs_hold_no_weights_and_point_into_the_checkpoint(exported: Path) -> None:
    for file in sorted(exported.glob("*.onnx")):
        onnx.checker.check_model(str(file), full_check=True)
        stored = onnx.load(file, load_external_data=False).graph.initializer
        for tensor in stored:
            if tensor.external_data:
                assert {entry.key: entry.value for entry in tensor.external_data}["location"] == "model.safetensors"
            else:
                assert np.prod(tensor.dims) <= 64, f"{file.name}: {tensor.name}"


def test_the_runtime_folds_all_work_on_weights_when_it_loads(exported: Path, tmp_path: Path) -> None:
    """Half-precision storage costs nothing per frame: no cast and no concatenation of weights is left."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(exported / "encode_full.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "Gemm" in kinds
    assert not kinds & {"Cast", "Concat"}


def test_nothing_copies_the_cache(exported: Path, tmp_path: Path) -> None:
    """After the rows are written in place, attention reads keys and values where they lie."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(exported / "select_inplace.onnx"), options, providers=["CPUExecutionProvider"])
    for node in onnx.load(tmp_path / "optimized.onnx").graph.node:
        for value in node.input:
            if value.startswith(("keys_", "values_")):
                assert node.op_type in ({"ScatterND"} if value.endswith("_in") else {"MultiHeadAttention"})


def test_graphs_of_another_format_are_refused(folder: Path) -> None:
    graph = onnx.load(folder / "connect.onnx", load_external_data=False)
    graph.model_version = 0
    (folder / "connect.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ModelError, match=r"connect\.onnx: found a graph of format 0, expected \d+; write it anew"):
        OnnxRuntime(load_model(folder)).session("connect")


def test_the_same_checkpoint_gives_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    export_model(tmp_path, name="random", domain="noise", prompt=PROMPT)
    for file in exported.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_storage_in_single_precision_gives_the_same_features(tmp_path: Path) -> None:
    features = []
    picture = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    for dtype in ("F16", "F32"):
        write_checkpoint(tmp_path / dtype, Size(dtype=dtype))
        model = export_model(tmp_path / dtype, name=dtype, domain="noise", prompt=PROMPT)
        features.append(OnnxEncoder(OnnxRuntime(model, threads=1)).encode_full(picture))
    np.testing.assert_allclose(features[0], features[1], atol=0.02)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"model: found no such folder; expected"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), r"manifest\.json: not found; .*engines\.export"),
    "not JSON": (lambda f: (f / MANIFEST).write_text("{,"), r"manifest\.json: not JSON"),
    "not text": (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe"), r"manifest\.json: can't be read"),
    "missing key": (lambda f: edit(f / MANIFEST, lambda m: m.pop("dim")), r"manifest\.json: key `dim`: not there"),
    "unknown key": (lambda f: edit(f / MANIFEST, lambda m: m.update(depth=3)), r"key `depth`: unknown"),
    "wrong type": (lambda f: edit(f / MANIFEST, lambda m: m.update(heads="4")), r"key `heads`: found '4', expected"),
    "other family": (
        lambda f: edit(f / MANIFEST, lambda m: m.update(family="x")),
        r"key `family`: found 'x'.*idefics3",
    ),
    "inconsistent": (
        lambda f: edit(f / MANIFEST, lambda m: m.update(grid=[4, 5])),
        r"`grid`: found \(4, 5\).*\(4, 4\)",
    ),
    "no question": (lambda f: edit(f / MANIFEST, lambda m: m.update(prompt="{image}")), r"`prompt`: .*\{question\}"),
    "path outside": (
        lambda f: edit(f / MANIFEST, lambda m: m["graphs"]["connect"].update(file="../x.onnx")),
        r"key `graphs\.connect\.file`: found '\.\./x\.onnx'",
    ),
    "no graph": (lambda f: (f / "connect.onnx").unlink(), r"connect\.onnx: not found; expected the graph `connect`"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: not found; expected weights"),
    "damaged weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"\0" * 100),
        r"model\.safetensors: found SHA-256 cd00e292\w+, expected \w{64}: damaged",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_a_folder_is_named(folder: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    assert caught.value.exit_code == 78
    assert str(folder) in str(caught.value)


def test_a_graph_that_the_manifest_does_not_name_is_asked_for_by_name(folder: Path) -> None:
    edit(folder / MANIFEST, lambda m: m["graphs"].pop("connect"))
    with pytest.raises(ModelError, match=r"`graphs` holds decode_rows, .*; expected also `connect`"):
        load_model(folder).graph("connect")


def test_models_are_found_by_name_and_by_path(folder: Path) -> None:
    assert find_model("reference") == REFERENCE
    assert find_model(str(folder)) == folder
    with pytest.raises(ModelError, match=r"model `nowhere`: found neither a model of that name nor such a folder"):
        find_model("nowhere")


CHECKPOINT_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json: not found; expected a Hugging Face"),
    "other model": (
        lambda f: edit(f / "config.json", lambda c: c.update(model_type="qwen2_vl")),
        r"config\.json: key `model_type`: found 'qwen2_vl'.*Idefics3 or SmolVLM",
    ),
    "other rotary positions": (
        lambda f: edit(f / "config.json", lambda c: c["text_config"].update(rope_scaling={"rope_type": "yarn"})),
        r"config\.json: key `text_config\.rope_scaling\.rope_type`: found 'yarn'",
    ),
    "more layers than weights": (
        lambda f: edit(f / "config.json", lambda c: c["vision_config"].update(num_hidden_layers=3)),
        r"model\.safetensors: holds no parameter `model\.vision_model\.encoder\.layers\.2\.",
    ),
    "no safetensors": (lambda f: (f / "model.safetensors").write_bytes(b"\x7fELF"), r"not a safetensors file"),
    "unknown end token": (
        lambda f: edit(f / "config.json", lambda c: c.update(eos_token_id=99_999)),
        r"found end-of-sequence ids 99999, expected ids that tokenizer\.json knows",
    ),
}


@pytest.mark.parametrize("fault", CHECKPOINT_FAULTS)
def test_a_checkpoint_that_cannot_be_exported_leaves_the_folder_as_it_was(folder: Path, fault: str) -> None:
    damage, message = CHECKPOINT_FAULTS[fault]
    damage(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    result = CliRunner().invoke(app, [str(folder), "--name", "other"])
    assert result.exit_code == 78
    assert re.search(message, result.output.replace("\n", " "))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_the_command_exports(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    result = CliRunner().invoke(app, [str(tmp_path), "--name", "tiny", "--domain", "noise", "--prompt", PROMPT])
    assert result.exit_code == 0, result.output
    first = load_model(tmp_path).manifest
    assert (first.name, first.domain, first.prompt) == ("tiny", "noise", PROMPT)
    assert CliRunner().invoke(app, [str(tmp_path)]).exit_code == 0
    assert load_model(tmp_path).manifest == first
