"""Importing a checkpoint folder, as a user does it: the command, the store, and every fault that has a name."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines_checkpoint import Size, split_into_shards, write_checkpoint

from config.errors import ModelError, StorageError
from engines import store
from engines.export import export_model
from engines.importing import import_model
from engines.manifest import find_model, load_model, read_manifest
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.verification import own_checks

ROOT = Path(__file__).parents[1]
TEMPLATE = (  # of every SmolVLM and SmolVLM2
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from agent.cli import command; command()"
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "Tiny-VLM"
    write_checkpoint(folder, Size(dtype="BF16", template=TEMPLATE))
    return folder


@pytest.fixture
def checkpoint(written: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(written, tmp_path / "Tiny-VLM"))


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store."""
    monkeypatch.setenv("STILLWATCH_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def command(*arguments: object, code: str = WITHOUT_TORCH, **options: Any) -> subprocess.CompletedProcess[str]:
    """`stillwatch model …` in a process of its own; without torch, whose import takes longer than all the rest."""
    call = [sys.executable, "-c", code, "model", *map(str, arguments)]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False, **options)


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def nothing_in(models: Path) -> bool:
    return not models.exists() or not list(models.iterdir())


def test_from_checkpoint_to_a_model_with_a_name(checkpoint: Path, models: Path) -> None:
    done = command("import", checkpoint, "--select-buckets", "4,16")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "checking the checkpoint",
        "writing weights",
        "writing graphs",
        "comparing full and selective encoding",
        "measuring level of detail",
    ]
    assert "level of detail, cosine to a full encode: coarse tokens 0." in done.stdout
    assert (
        "not compared with transformers: torch and transformers not installed (pip install 'stillwatch[train]')"
        in done.stdout
    )
    folder = find_model("Tiny-VLM")
    manifest = load_model(folder).manifest
    assert (folder, manifest.name, manifest.dtype) == (models / "Tiny-VLM", "Tiny-VLM", "bfloat16")
    assert manifest.select_buckets == (4, 16)
    assert manifest.prompt == "<|im_start|>User:{image}{question}<end_of_utterance>\nAssistant:"
    hashed = {*manifest.weights, *manifest.files, "manifest.json"}
    assert hashed == {file.name for file in folder.iterdir()}

    listed = command("list").stdout.splitlines()
    assert [line.split()[:4] for line in listed] == [
        ["name", "family", "tokens", "dtype"],
        ["reference", "idefics3", "400", "float16"],
        ["Tiny-VLM", "idefics3", "16", "bfloat16"],
    ]
    assert json.loads(command("list", "--json").stdout)[1]["folder"] == str(folder)
    assert f"imported from: {checkpoint}" in command("show", "Tiny-VLM").stdout
    shown = json.loads(command("show", "Tiny-VLM", "--json").stdout)
    assert shown["verification"]["transformers"] == {
        "compared": False,
        "reason": "torch and transformers not installed (pip install 'stillwatch[train]')",
    }
    assert all(check["passed"] for check in shown["verification"]["checks"])
    detail = shown["verification"]["level_of_detail"]
    assert -1 < detail["coarse_p5"] <= detail["coarse_mean"] < detail["fine_mean"] < 1
    verified = command("verify", "Tiny-VLM")
    assert (verified.returncode, verified.stdout.count("as expected")) == (0, 3), verified.stderr

    assert command("remove", "Tiny-VLM").returncode == 0
    assert nothing_in(models)
    again = command("remove", "Tiny-VLM")
    assert (again.returncode, again.stderr.startswith("model `Tiny-VLM`: found none of that name")) == (78, True)


def test_only_an_import_needs_the_packages_of_an_import(checkpoint: Path, models: Path) -> None:
    import_model(str(checkpoint), verify=False)
    code = WITHOUT_TORCH.replace("torch", "onnx").replace("transformers", "jinja2")
    for arguments in (["list"], ["show", "Tiny-VLM"], ["verify", "Tiny-VLM"]):
        assert command(*arguments, code=code).returncode == 0
    done = command("import", checkpoint, "--name=other", code=code)
    assert (done.returncode, "pip install 'stillwatch[import]'" in done.stderr) == (78, True)


def test_an_unknown_name_is_answered_with_the_nearest_one(checkpoint: Path, models: Path) -> None:
    import_model(str(checkpoint), verify=False)
    with pytest.raises(ModelError, match=r"`tiny_vlm`: .* did you mean `Tiny-VLM`\?.*expected reference, Tiny-VLM"):
        find_model("tiny_vlm")
    done = command("show", "tiny_vlm")
    assert (done.returncode, "did you mean `Tiny-VLM`?" in done.stderr) == (78, True)


def test_a_name_wins_over_a_folder_of_the_working_directory(
    checkpoint: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_model(str(checkpoint), verify=False)
    monkeypatch.chdir(checkpoint.parent)
    assert find_model("Tiny-VLM") == models / "Tiny-VLM"
    assert find_model("./Tiny-VLM") == Path("Tiny-VLM")


def test_the_reference_model_is_always_there_and_stays(models: Path) -> None:
    assert "reference" in command("list").stdout
    done = command("remove", "reference")
    assert (done.returncode, done.stderr) == (78, "model `reference`: comes with Stillwatch and can't be removed\n")


@pytest.mark.parametrize(
    ("stored", "dtype", "expected"),
    [("F32", None, "float32"), ("BF16", "fp32", "float32"), ("BF16", "fp16", "float16"), ("F32", "fp16", "float16")],
)
def test_weights_are_stored_as_asked(tmp_path: Path, models: Path, stored: str, dtype: Any, expected: str) -> None:
    write_checkpoint(tmp_path / "checkpoint", Size(dtype=stored))
    imported = import_model(str(tmp_path / "checkpoint"), name="x", dtype=dtype, verify=False)
    assert imported.model.manifest.dtype == expected
    picture = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    ours = OnnxEncoder(OnnxRuntime(imported.model, threads=1)).encode_full(picture)
    write_checkpoint(tmp_path / "exact", Size(dtype=stored))
    exact = import_model(str(tmp_path / "exact"), name="exact", verify=False)
    theirs = OnnxEncoder(OnnxRuntime(exact.model, threads=1)).encode_full(picture)
    np.testing.assert_allclose(ours, theirs, atol=0.02 if dtype == "fp16" else 1e-6)
    assert (imported.report["rounding"] > 0) == (dtype == "fp16")
    assert imported.report["rounding"] < 2**-11


def test_a_cache_of_half_the_size(checkpoint: Path, models: Path) -> None:
    done = command("import", checkpoint, "--cache", "fp16", "--dtype", "int8", "--json")
    assert done.returncode == 0, done.stderr
    assert all(check["passed"] for check in json.loads(done.stdout)["checks"])
    model = load_model(models / "Tiny-VLM")
    encoder = OnnxEncoder(OnnxRuntime(model, threads=1))
    assert encoder.cache.dtype == np.float16
    assert model.manifest.cache_bytes == encoder.cache_bytes == 2 * 2 * 16 * 32 * 2
    assert "float16, 0.0 MB a camera" in command("show", "Tiny-VLM").stdout


def test_shards_become_one_file(checkpoint: Path, models: Path) -> None:
    whole = import_model(str(checkpoint), name="whole", verify=False)
    split_into_shards(checkpoint, 3)
    sharded = import_model(str(checkpoint), name="sharded", verify=False)
    assert sharded.model.manifest.weights == whole.model.manifest.weights
    assert not list(sharded.model.folder.glob("*-of-*"))


@pytest.mark.parametrize("same", [True, False])
def test_an_output_matrix_is_dropped_only_where_it_repeats_the_embeddings(
    checkpoint: Path, models: Path, same: bool
) -> None:
    """A tied model may bring its output matrix all the same; one that differs counts, as in transformers."""
    edit(checkpoint / "config.json", lambda c: c.update(tie_word_embeddings=True))
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    size = int.from_bytes(content[:8], "little")
    offsets = {name: entry.get("data_offsets") for name, entry in json.loads(content[8 : 8 + size]).items()}
    words, head = (
        slice(*(8 + size + at for at in offsets[name]))
        for name in ("model.text_model.embed_tokens.weight", "lm_head.weight")
    )
    if same:
        content[head] = content[words]
    file.write_bytes(content)
    folder = import_model(str(checkpoint), verify=False).model.folder
    assert (b'"lm_head.weight"' in (folder / "model.safetensors").read_bytes()) == (not same)


def test_a_value_too_large_for_half_precision_is_refused(tmp_path: Path, models: Path) -> None:
    write_checkpoint(tmp_path / "x", Size(dtype="F32"))
    file = tmp_path / "x" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-4:] = np.float32(1e6).tobytes()
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"parameter `.*` reaches 1e\+06, expected at most 65504 .* --dtype fp32"):
        import_model(str(tmp_path / "x"), dtype="fp16")
    assert nothing_in(models)
    import_model(str(tmp_path / "x"), dtype="fp32", verify=False)


def change(file: Path, edits: dict[str, Callable[[np.ndarray[Any, Any]], object]]) -> None:
    """Change parameters of a file of float32 values where they lie."""
    size = int.from_bytes(file.read_bytes()[:8], "little")
    head = json.loads(file.read_bytes()[8 : 8 + size])
    for name, edit_values in edits.items():
        begin, _ = head[name]["data_offsets"]
        edit_values(np.memmap(file, np.float32, "r+", 8 + size + begin, tuple(head[name]["shape"])))


def test_eight_bits_are_measured_against_the_model_before(tmp_path: Path, models: Path) -> None:
    write_checkpoint(tmp_path / "x", Size(dtype="F32"))
    imported = import_model(str(tmp_path / "x"), dtype="int8", verify=False)
    assert imported.model.manifest.dtype == "int8"
    (check,) = imported.report["checks"]
    assert check["name"] == "features in 8 bits against those before" and 0.995 <= check["cosine"] < 1
    verified = command("verify", "x")
    assert (verified.returncode, verified.stdout.count("as expected")) == (0, 3), verified.stderr


def test_eight_bits_that_lose_too_much_are_refused_with_the_figure(tmp_path: Path, models: Path) -> None:
    """A weight that is never used, but a thousand times larger than the others, takes all the steps of its row."""
    write_checkpoint(tmp_path / "x", Size(dtype="F32"))

    def silence(values: np.ndarray[Any, Any]) -> None:
        values[0] = 0

    def swell(values: np.ndarray[Any, Any]) -> None:
        values[:, 0] = 1000

    tower, edits = "model.vision_model.encoder.layers", {}
    for i in range(2):
        for norm, parts in (("layer_norm1", ["self_attn.v_proj"]), ("layer_norm2", ["mlp.fc1"])):
            edits |= {f"{tower}.{i}.{norm}.{kind}": silence for kind in ("weight", "bias")}
            edits |= {f"{tower}.{i}.{part}.weight": swell for part in parts}
    change(tmp_path / "x" / "model.safetensors", edits)
    with pytest.raises(ModelError, match=r"in 8 bits against those before: cosine 0\.\d+, NOT cosine ≥ 0\.995"):
        import_model(str(tmp_path / "x"), dtype="int8", verify=False)
    assert nothing_in(models)
    import_model(str(tmp_path / "x"), verify=False)


def test_a_selective_graph_that_differs_from_the_full_one_is_found(tmp_path: Path) -> None:
    for name, epsilon in (("right", 1e-6), ("wrong", 0.5)):
        write_checkpoint(tmp_path / name, Size(dtype="F32"))
        edit(tmp_path / name / "config.json", lambda c, e=epsilon: c["vision_config"].update(layer_norm_eps=e))
        export_model(tmp_path / name, name=name, domain="noise")
    assert all(check.passed for check in own_checks(load_model(tmp_path / "right")))
    shutil.copyfile(tmp_path / "wrong" / "select_inplace.onnx", tmp_path / "right" / "select_inplace.onnx")
    assert [check.passed for check in own_checks(load_model(tmp_path / "right"))] == [False, False, True]


TEMPLATES: dict[str, tuple[Callable[[Path], object], str]] = {
    "jinja": (lambda f: (f / "chat_template.jinja").write_text(TEMPLATE.replace("Assistant", "Helper")), "Helper:"),
    "processor": (
        lambda f: (f / "chat_template.json").write_text(
            json.dumps({"chat_template": TEMPLATE.replace("Assistant", "Robot")})
        ),
        "Robot:",
    ),
    "one of several": (
        lambda f: edit(
            f / "tokenizer_config.json",
            lambda c: c.update(
                chat_template=[
                    {"name": "tools", "template": "{{ raise_exception('no') }}"},
                    {"name": "default", "template": TEMPLATE},
                ]
            ),
        ),
        "Assistant:",
    ),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_prompt_comes_from_the_chat_template(checkpoint: Path, models: Path, kind: str) -> None:
    place, ending = TEMPLATES[kind]
    place(checkpoint)
    manifest = import_model(str(checkpoint), verify=False).model.manifest
    assert manifest.prompt == "<|im_start|>User:{image}{question}<end_of_utterance>\n" + ending


def test_a_start_token_that_the_tokenizer_adds_by_itself_is_not_read_twice(tmp_path: Path, models: Path) -> None:
    size = Size(start="<|begin|>", template="{{ bos_token }}" + TEMPLATE)
    write_checkpoint(tmp_path / "llama3", size)
    manifest = import_model(str(tmp_path / "llama3"), verify=False).model.manifest
    assert manifest.prompt.startswith("<|im_start|>User:")


def test_without_a_chat_template_smolvlms_is_taken_and_the_report_says_so(checkpoint: Path, models: Path) -> None:
    (checkpoint / "tokenizer_config.json").unlink()
    report = import_model(str(checkpoint), verify=False).report
    assert report["prompt"] == "none in the checkpoint: SmolVLM's was taken"


@pytest.mark.parametrize(
    ("settings", "mean", "said"),
    [
        (None, (0.5, 0.5, 0.5), "none in the checkpoint: mean and deviation 0.5 were taken"),
        ({"image_mean": [0.4, 0.5, 0.6], "image_std": [1, 1, 1]}, (0.4, 0.5, 0.6), "preprocessor_config.json"),
        ({"image_mean": None, "image_std": None}, (0.5, 0.5, 0.5), "preprocessor_config.json"),
        ({"do_normalize": False, "image_mean": [0.4, 0.5, 0.6]}, (0.0, 0.0, 0.0), "preprocessor_config.json"),
    ],
)
def test_pixels_are_those_of_the_image_processor(
    checkpoint: Path, models: Path, settings: dict[str, Any] | None, mean: tuple[float, ...], said: str
) -> None:
    file = checkpoint / "preprocessor_config.json"
    file.unlink()
    if settings is not None:
        file.write_text(json.dumps(settings))
    imported = import_model(str(checkpoint), verify=False)
    assert (imported.model.manifest.mean, imported.report["pixels"]) == (mean, said)


def cut(file: Path, length: int) -> None:
    os.truncate(file, file.stat().st_size + length if length < 0 else length)


def header(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header of a safetensors file and leave its data as it is."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    change(head)
    text = json.dumps(head).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def move(head: dict[str, Any], by: int) -> None:
    entry = head["model.text_model.norm.weight"]
    entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]


def resize(head: dict[str, Any]) -> None:
    head["model.text_model.norm.weight"]["shape"] = [24]


NORM = r"`model\.text_model\.norm\.weight`"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "data cut short": (
        lambda f: cut(f / "model.safetensors", -100),
        r"model\.safetensors: holds \d+ bytes of data, .*cut",
    ),
    "header cut short": (
        lambda f: cut(f / "model.safetensors", 500),
        r"not a safetensors file.*a header of \d+ bytes in",
    ),
    "empty": (lambda f: cut(f / "model.safetensors", 0), r"model\.safetensors: not a safetensors file"),
    "too long": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes() + b"x"),
        "something follows the last tensor",
    ),
    "overlap": (lambda f: header(f / "model.safetensors", lambda h: move(h, -2)), f"{NORM} begins at .* it overlaps"),
    "gap": (lambda f: header(f / "model.safetensors", lambda h: move(h, 2)), f"{NORM} begins at .* leaves a gap"),
    "wrong size": (lambda f: header(f / "model.safetensors", resize), f"{NORM}: found 96 bytes, expected 48"),
    "quantised by another tool": (
        lambda f: header(f / "model.safetensors", lambda h: h["model.text_model.norm.weight"].update(dtype="U16")),
        f"parameter {NORM} is stored as U16; expected one of F16, BF16, F32",
    ),
    "pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        r"found pytorch_model\.bin, which can run code when loaded; expected model\.safetensors",
    ),
    "other size": (
        lambda f: edit(f / "config.json", lambda c: c["vision_config"].update(intermediate_size=96)),
        r"fc1\.weight`: found shape \[64, 32\], expected \[96, 32\] by config\.json",
    ),
    "other architecture": (
        lambda f: edit(f / "config.json", lambda c: c.update(model_type="llava", architectures=["Llava"])),
        r"found 'llava' \(Llava\); expected .*SmolVLM, SmolVLM2, Idefics3",
    ),
    "other language model": (
        lambda f: edit(f / "config.json", lambda c: c["text_config"].update(model_type="mistral")),
        r"key `text_config\.model_type`: found 'mistral'",
    ),
    "resampler": (
        lambda f: edit(f / "config.json", lambda c: c["text_config"].update(use_resampler=True)),
        r"key `text_config\.use_resampler`: found True",
    ),
    "incomplete rotary scaling": (
        lambda f: edit(f / "config.json", lambda c: c["text_config"].update(rope_scaling={"type": "linear"})),
        r"rope_type `linear` also needs factor",
    ),
    "tokenizer with fewer words": (
        lambda f: edit(f / "config.json", lambda c: c["text_config"].update(vocab_size=32_000)),
        r"tokenizer\.json: found \d+ tokens, expected 30976 to 32000 .* of another model",
    ),
    "tokenizer with more words": (
        lambda f: edit(f / "config.json", lambda c: c["text_config"].update(vocab_size=100)),
        r"tokenizer\.json: found \d+ tokens, expected 0 to 100",
    ),
    "tokenizer with other ids": (
        lambda f: edit(f / "config.json", lambda c: c.update(image_token_id=7)),
        r"token `<image>` has the id \d+, expected config\.json's `image_token_id` 7",
    ),
    "tokenizer without pictures": (
        lambda f: (f / "tokenizer.json").write_text((f / "tokenizer.json").read_text().replace("<image>", "<picture>")),
        r"tokenizer\.json: holds no token `<image>`",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json: not found"),
    "unknown end token": (
        lambda f: edit(f / "config.json", lambda c: c.update(eos_token_id=99_999)),
        r"Tiny-VLM: found end-of-sequence ids 99999",
    ),
    "template without picture": (
        lambda f: (f / "chat_template.jinja").write_text("{{ messages[0].content[1].text }}"),
        r"chat_template\.jinja: the chat template turns .* expected `<image>` once",
    ),
    "template that refuses": (
        lambda f: (f / "chat_template.jinja").write_text("{{ raise_exception('no pictures') }}"),
        r"chat_template\.jinja: the chat template fails: no pictures",
    ),
    "template that escapes": (
        lambda f: (f / "chat_template.jinja").write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}"),
        r"chat_template\.jinja: the chat template fails: .*unsafe",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_and_leaves_nothing(checkpoint: Path, models: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    damage(checkpoint)
    with pytest.raises(ModelError, match=message) as caught:
        import_model(str(checkpoint), verify=False)
    assert ".import-" not in str(caught.value)
    assert nothing_in(models)


SHARD = "model-00002-of-00003.safetensors"
SHARD_FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: (f / SHARD).unlink(), f"{SHARD}: not found"),
    "cut short": (lambda f: cut(f / SHARD, -10), f"{SHARD}: holds .* cut short"),
    "of another model": (
        lambda f: shutil.copyfile(f / SHARD.replace("2-", "3-", 1), f / SHARD),
        rf"{SHARD}: holds no parameter `.*`; expected it by model\.safetensors\.index\.json",
    ),
    "elsewhere": (
        lambda f: edit(f / "model.safetensors.index.json", lambda c: c["weight_map"].update(x="../../etc/passwd")),
        r"parameter `x`: found '\.\./\.\./etc/passwd', expected the name of a file here",
    ),
}


@pytest.mark.parametrize("fault", SHARD_FAULTS)
def test_every_fault_of_a_shard_is_named(checkpoint: Path, models: Path, fault: str) -> None:
    split_into_shards(checkpoint, 3)
    damage, message = SHARD_FAULTS[fault]
    damage(checkpoint)
    with pytest.raises(ModelError, match=message):
        import_model(str(checkpoint), verify=False)
    assert nothing_in(models)


@pytest.mark.parametrize("buckets", ["16,4", "4,4", "0,4", "4,17"])
def test_buckets_that_the_encoder_can_not_have_are_refused(checkpoint: Path, models: Path, buckets: str) -> None:
    with pytest.raises(ModelError, match="expected ascending numbers of rows from 1 to 16"):
        import_model(str(checkpoint), select_buckets=[int(rows) for rows in buckets.split(",")], verify=False)
    assert nothing_in(models)


@pytest.mark.parametrize("name", ["reference", "../x", ".x", "", "a b", "x" * 65])
def test_names_that_could_be_mistaken_are_refused(checkpoint: Path, models: Path, name: str) -> None:
    done = command("import", checkpoint, f"--name={name}") if name == "../x" else None
    assert done is None or done.returncode == 78
    with pytest.raises(ModelError, match="expected 1 to 64 letters"):
        store.check_name(name)
    assert nothing_in(models)


def test_a_name_that_is_taken_is_refused_and_the_model_stays(checkpoint: Path, models: Path) -> None:
    import_model(str(checkpoint), verify=False)
    with pytest.raises(ModelError, match="model `Tiny-VLM`: found one of that name"):
        import_model(str(checkpoint), dtype="fp16", verify=False)
    assert load_model(find_model("Tiny-VLM")).manifest.dtype == "bfloat16"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "encode_full.onnx", "config.json"])
def test_a_file_that_changed_is_found(checkpoint: Path, models: Path, file: str) -> None:
    folder = import_model(str(checkpoint), verify=False).model.folder
    content = bytearray((folder / file).read_bytes())
    content[-2] ^= 1
    (folder / file).write_bytes(content)
    done = command("verify", "Tiny-VLM")
    assert done.returncode == 78
    assert f"{folder / file}: found SHA-256" in done.stderr
    assert f"stillwatch model import {checkpoint} --name Tiny-VLM" in done.stderr


def test_graphs_can_be_written_anew_in_the_store(checkpoint: Path, models: Path) -> None:
    """As after an update that changes their format."""
    model = import_model(str(checkpoint), select_buckets=[4, 16], verify=False).model
    (model.folder / "connect.onnx").unlink()
    call = [sys.executable, "-m", "engines.export", str(model.folder)]
    subprocess.run(call, cwd=ROOT, capture_output=True, check=True)
    assert load_model(model.folder).manifest == model.manifest


def test_a_model_that_can_not_be_read_is_listed_with_the_reason(checkpoint: Path, models: Path) -> None:
    folder = import_model(str(checkpoint), verify=False).model.folder
    (folder / "manifest.json").write_text("{")
    done = command("list")
    assert (done.returncode, "can't be used" in done.stdout) == (0, True)
    assert command("remove", "Tiny-VLM").returncode == 0


def start_import(checkpoint: Path, until: Path) -> subprocess.Popen[str]:
    """An import that has come as far as this file."""
    call = [sys.executable, "-c", WITHOUT_TORCH, "model", "import", str(checkpoint)]
    process = subprocess.Popen(call, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not until.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    return process


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "encode_full.onnx", "manifest.json"])
def test_a_killed_import_leaves_no_model_and_the_next_one_sweeps_up(checkpoint: Path, models: Path, file: str) -> None:
    process = start_import(checkpoint, models / ".import-Tiny-VLM" / file)
    process.kill()
    process.communicate()
    assert store.names() == []
    assert (models / ".import-Tiny-VLM").is_dir()
    import_model(str(checkpoint), name="other", verify=False)
    assert [folder.name for folder in models.iterdir()] == ["other"]


def test_a_terminated_import_takes_its_traces_away(checkpoint: Path, models: Path) -> None:
    process = start_import(checkpoint, models / ".import-Tiny-VLM" / "manifest.json")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert nothing_in(models)


def test_two_imports_of_one_name_do_not_meet(checkpoint: Path, models: Path) -> None:
    with store.building("Tiny-VLM") as folder:
        (folder / "x").touch()
        done = command("import", checkpoint)
        assert (done.returncode, "another import of that name is under way" in done.stderr) == (78, True)
        import_model(str(checkpoint), name="other", verify=False)  # sweeps, but not what is held
        assert (folder / "x").exists()
    assert store.names() == ["Tiny-VLM", "other"]


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_named_and_leaves_nothing(checkpoint: Path, models: Path) -> None:
    """The system refuses to let any file grow beyond a limit, as a full disk does, in the middle of the weights."""
    size = (checkpoint / "model.safetensors").stat().st_size

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    done = command("import", checkpoint, preexec_fn=limit)
    assert done.returncode == StorageError.exit_code, done.stderr
    assert "the disk is full, or a limit on file size is reached" in done.stderr
    assert nothing_in(models)


def test_a_disk_that_fills_up_meanwhile_is_named_and_leaves_nothing(checkpoint: Path, models: Path) -> None:
    """There was room when it began; then somebody else takes it."""
    with small_disk(models, "40m"):

        def fill(step: str, done: float | None) -> None:
            if step == "writing graphs" and not (models / "other").exists():
                with pytest.raises(OSError), (models / "other").open("wb") as other:
                    while True:
                        other.write(bytes(1 << 20))
                        other.flush()

        with pytest.raises(StorageError, match="the disk is full"):
            import_model(str(checkpoint), verify=False, progress=fill)
        assert [file.name for file in models.iterdir()] == ["other"]


def test_a_disk_without_room_is_refused_before_anything_is_written(checkpoint: Path, models: Path) -> None:
    with small_disk(models, "1m"):
        with pytest.raises(StorageError, match=r"\d MB are free, expected \d+ MB for this model"):
            import_model(str(checkpoint), verify=False)
        assert nothing_in(models)


def test_a_store_that_can_not_be_written_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STILLWATCH_MODELS", str(tmp_path / "file"))
    done = command("import", checkpoint)
    assert done.returncode == StorageError.exit_code
    assert f"{tmp_path / 'file'}: can't be written" in done.stderr


def test_where_models_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("STILLWATCH_MODELS", "STATE_DIRECTORY", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    assert store.places() == (Path("/home/me/.local/share/stillwatch/models"), store.SYSTEM)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert store.places()[0] == Path("/data/stillwatch/models")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert store.places() == (store.SYSTEM,)
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/stillwatch")
    assert store.places() == (store.SYSTEM,)
    monkeypatch.setenv("STILLWATCH_MODELS", "/elsewhere")
    assert store.places() == (Path("/elsewhere"),)


def test_the_domain_of_a_model_folder_is_kept(checkpoint: Path, models: Path) -> None:
    first = import_model(str(checkpoint), name="first", verify=False).model.folder
    edit(first / "manifest.json", lambda m: m.update(domain="noise"))
    assert import_model(str(first), name="second", verify=False).model.manifest.domain == "noise"
    assert read_manifest(first).domain == "noise"
