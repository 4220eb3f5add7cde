"""Every family of checkpoints against `transformers`: imported, then asked the same as theirs.

The shapes are the true ones where they decide anything (picture, patch, grid, merge, ratio of heads, rotary positions,
tying, vocabulary padding, dtype); width and depth are small. One test has the full shape of SmolVLM-256M.
They are those of the config.json of HuggingFaceTB/SmolVLM-256M-Instruct, SmolVLM-500M-Instruct, SmolVLM-Instruct,
SmolVLM2-500M-Video-Instruct, SmolVLM2-2.2B-Instruct and HuggingFaceM4/Idefics3-8B-Llama3.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines_checkpoint import Size, split_into_shards, write_checkpoint
from test_model_import import TEMPLATE

from engines.checkpoint import read_config
from engines.decoder import Decoder
from engines.export.parameters import parameters
from engines.importing import import_model, parity
from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.verification import EXACT

pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]
torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'stillwatch[train]'")
transformers = pytest.importorskip("transformers", reason="needs the train extra: pip install 'stillwatch[train]'")

QUESTION = "Is a red car on the street?"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,  # so that the prompt goes far beyond it
}
SMOLLM2 = {"rope_theta": 100_000, "rms_norm_eps": 1e-5, "max_position_embeddings": 8192}
OLD_KEYS = {  # that the published configurations carry from training
    "_flash_attn_2_enabled": True,
    "is_llama_config": True,
    "perceiver_config": {"model_type": "vllama3", "resampler_depth": 6},
    "pixel_shuffle_factor": 4,
    "qk_layer_norms": False,
    "rope_interleaved": False,
    "use_resampler": False,
}
LLAMA_TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}{{message['role'].capitalize()}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
BASE = Size(image=512, patch=16, merge=4, dim=48, heads=3, inner=96, template=TEMPLATE, dtype="F32")
SO400M = Size(image=384, patch=14, merge=3, dim=48, heads=4, inner=100, template=TEMPLATE, dtype="F32")
FAMILIES = {
    "SmolVLM-256M": replace(
        BASE, text_dim=72, text_heads=9, kv_heads=3, head_dim=8, rows=320, text={**SMOLLM2, **OLD_KEYS}, dtype="BF16"
    ),
    "SmolVLM-500M": replace(BASE, text_dim=120, text_heads=15, kv_heads=5, head_dim=8, text={**SMOLLM2, **OLD_KEYS}),
    "SmolVLM-2.2B": replace(
        SO400M, text_dim=64, text_heads=4, kv_heads=4, text={**SMOLLM2, "rope_theta": 273_768.0}, dtype="BF16"
    ),
    "SmolVLM2-500M": replace(
        BASE, kind="smolvlm", text_dim=120, text_heads=15, kv_heads=5, head_dim=8, text={**SMOLLM2, **OLD_KEYS}
    ),
    "SmolVLM2-2.2B": replace(
        SO400M, kind="smolvlm", text_dim=64, text_heads=4, kv_heads=4, text={**SMOLLM2, "rope_theta": 130_000.0}
    ),
    "SmolVLM2 tied, as transformers 5 writes it": replace(
        BASE,
        kind="smolvlm",
        tied=True,
        text={"rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}, "rms_norm_eps": 1e-5},
    ),
    "Idefics3-8B-Llama3": replace(
        SO400M,
        image=364,
        merge=2,
        text_dim=64,
        text_heads=8,
        kv_heads=2,
        text={"rope_theta": 500_000.0, "rope_scaling": None, "rms_norm_eps": 1e-5},
        start="<|begin_of_text|>",
        template=LLAMA_TEMPLATE,
        dtype="BF16",
    ),
    "Idefics3 on Llama 3.1": replace(
        SO400M,
        image=364,
        merge=2,
        text_dim=64,
        text_heads=8,
        kv_heads=2,
        head_dim=16,
        text={"rope_theta": 500_000.0, "rope_scaling": LLAMA3},
        start="<|begin_of_text|>",
        template=LLAMA_TEMPLATE,
    ),
    "linear rotary scaling": Size(
        text={"rope_scaling": {"type": "linear", "factor": 4.0}}, template=TEMPLATE, tied=True
    ),
}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLWATCH_MODELS", str(tmp_path / "models"))
    torch.set_num_threads(2)
    return tmp_path / "models"


def their_answer(folder: Path, picture: np.ndarray[Any, Any], tokens: int) -> tuple[list[int], str]:
    """Ids of the prompt, and the answer, by nothing but transformers: its processor, its template, its generation."""
    pytest.importorskip("PIL", reason="the processor of transformers needs it: pip install pillow")
    config = json.loads((folder / "config.json").read_text())
    vision, edge = config["vision_config"], {"longest_edge": config["vision_config"]["image_size"]}
    images = transformers.Idefics3ImageProcessorPil(do_image_splitting=False, size=edge, max_image_size=edge)
    template = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token=template.get("bos_token")
    )
    length = (vision["image_size"] // vision["patch_size"]) ** 2 // config["scale_factor"] ** 2
    processor = transformers.Idefics3Processor(
        images, tokenizer, image_seq_len=length, chat_template=template["chat_template"]
    )
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    started = tokenizer.bos_token and text.startswith(tokenizer.bos_token)
    inputs = processor(
        text=[text], images=[[picture]], return_tensors="pt", text_kwargs={"add_special_tokens": not started}
    )
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    ).eval()
    settings = transformers.GenerationConfig(
        max_new_tokens=tokens, do_sample=False, eos_token_id=config["eos_token_id"], pad_token_id=0
    )
    with torch.no_grad():
        out = theirs.generate(**inputs, generation_config=settings)[0]
    ids = inputs["input_ids"][0].tolist()
    return ids, tokenizer.decode(out[len(ids) :], skip_special_tokens=True)


def our_answer(model: Model, picture: np.ndarray[Any, Any], tokens: int) -> str:
    features = OnnxEncoder(OnnxRuntime(model, threads=2, spin=False)).encode_full(picture)
    return "".join(Decoder(model, threads=2, spin=False).generate(features, QUESTION, max_tokens=tokens))


def assert_equal_but_for_rounding(report: dict[str, Any]) -> None:
    assert report["transformers"]["compared"], report["transformers"]
    checks = {check["name"]: check for check in report["checks"]}
    assert len(checks) == 8 and all(check["passed"] for check in checks.values())
    for name in ("vision features", "visual tokens", "logits after the picture"):
        assert checks[f"{name} = transformers"]["relative_error"] <= EXACT, name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_what_transformers_gives(tmp_path: Path, models: Path, family: str) -> None:
    write_checkpoint(tmp_path / "checkpoint", FAMILIES[family])
    theirs = tmp_path / "checkpoint"
    if family.endswith("2.2B"):
        split_into_shards(theirs, 3)
    imported = import_model(str(theirs), name="x")
    assert_equal_but_for_rounding(imported.report)
    size = FAMILIES[family].image
    picture = np.random.default_rng(3).integers(0, 256, (size, size, 3), dtype=np.uint8)
    ids, answer = their_answer(theirs, picture, 12)
    assert answer and our_answer(imported.model, picture, 12) == answer
    assert ids.count(json.loads((theirs / "config.json").read_text())["image_token_id"]) == (
        imported.model.manifest.visual_tokens
    )


def test_weights_rounded_to_half_precision_point_the_same_way(tmp_path: Path, models: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", replace(FAMILIES["SmolVLM2-500M"], dtype="F32"))
    report = import_model(str(tmp_path / "checkpoint"), name="x", dtype="fp16").report
    cosines = {check["name"]: check["cosine"] for check in report["checks"] if check["limit"].startswith("cosine")}
    assert len(cosines) == 3 and min(cosines.values()) > 0.9999


def test_another_checkpoint_is_told_apart(tmp_path: Path, models: Path) -> None:
    """The comparison can fail: one parameter less is enough."""
    write_checkpoint(tmp_path / "one", Size(dtype="F32"))
    model = import_model(str(tmp_path / "one"), verify=False).model
    for changed, wrong in (
        ("model.vision_model.encoder.layers.1.mlp.fc1.bias", "vision features"),
        ("model.text_model.layers.1.self_attn.v_proj.weight", "logits after the picture"),
    ):
        write_checkpoint(tmp_path / "other", Size(dtype="F32"), zero=changed)
        checks, _ = parity.against_transformers(tmp_path / "other", model, exact=True, say=lambda step: None)
        assert f"{wrong} = transformers" in {check.name for check in checks if not check.passed}


def published(**text: Any) -> dict[str, Any]:
    """A configuration as published: what has its default is not in it."""
    base = {"hidden_size": 768, "image_size": 512, "max_image_size": {"longest_edge": 512}, "patch_size": 16}
    return {
        "model_type": "idefics3",
        "image_token_id": 49_190,
        "scale_factor": 4,
        "tie_word_embeddings": False,
        "vision_config": {**base, "num_attention_heads": 12, "use_base_siglip": False},
        "text_config": {"model_type": "llama", "vocab_size": 49_280, **SMOLLM2, **OLD_KEYS, **text},
    }


def large(image: int, factor: int, **text: Any) -> dict[str, Any]:
    """With the tower of 400 million parameters."""
    tower = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    vision = {**tower, "image_size": image, "patch_size": 14}
    return {**published(**text), "scale_factor": factor, "vision_config": vision}


def sizes(hidden: int, inner: int, layers: int, heads: int, kv: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
    }


LLAMA_8B = {**sizes(4096, 14_336, 32, 32, 8), "vocab_size": 128_259, "rope_theta": 500_000.0, "rope_scaling": None}
PUBLISHED = {
    "SmolVLM-256M": published(**sizes(576, 1536, 30, 9, 3)),
    "SmolVLM-500M": published(**sizes(960, 2560, 32, 15, 5), head_dim=64),
    "SmolVLM-2.2B": large(384, 3, **sizes(2048, 8192, 24, 32, 32), rope_theta=273_768.0, vocab_size=49_155),
    "SmolVLM2-2.2B": {**large(384, 3, **sizes(2048, 8192, 24, 32, 32), rope_theta=130_000.0), "model_type": "smolvlm"},
    "Idefics3-8B-Llama3": large(364, 2, **LLAMA_8B),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_a_published_configuration(tmp_path: Path, name: str) -> None:
    """At full size, without weights: transformers makes the parameters that we ask for, of the same shapes."""
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    settings = transformers.AutoConfig.from_pretrained(tmp_path)
    with torch.device("meta"):
        theirs = transformers.AutoModelForImageTextToText.from_config(settings)
    shapes = {parameter: tuple(tensor.shape) for parameter, tensor in theirs.named_parameters()}
    assert parameters(read_config(tmp_path / "config.json"), head=True) == shapes


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_full_shape_of_smolvlm_256m(tmp_path: Path, models: Path) -> None:
    """12 × 768 at 512/16, 30 × 576 with 9 heads and 3 of keys, vocabulary 49,280; random weights."""
    size = replace(
        FAMILIES["SmolVLM-256M"],
        dim=768,
        heads=12,
        layers=12,
        inner=3072,
        text_dim=576,
        text_inner=1536,
        text_layers=30,
        head_dim=None,
        words=48_950,
        rows=49_280,
        dtype="F32",
    )
    folder = tmp_path / "SmolVLM-256M"
    write_checkpoint(folder, size)
    imported = import_model(str(folder))
    assert_equal_but_for_rounding(imported.report)
    picture = np.random.default_rng(3).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    answer = their_answer(folder, picture, 12)[1]
    assert answer and our_answer(imported.model, picture, 12) == answer
