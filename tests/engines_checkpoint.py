"""A random Idefics3 checkpoint in the Hugging Face layout, written with NumPy: what the engine tests export and run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

SPECIALS = ("<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>")
WORDS = ("the", " yes", " no", " red", " car", " person", " dog", " street", "User:", "Assistant:")


@dataclass(frozen=True)
class Size:
    """Sizes of a random checkpoint; the defaults are small enough for a unit test."""

    image: int = 56
    patch: int = 14
    dim: int = 32
    layers: int = 2
    heads: int = 4
    inner: int = 64
    merge: int = 2
    text_dim: int = 48
    text_layers: int = 2
    text_heads: int = 4
    kv_heads: int = 2
    text_inner: int = 80
    tied: bool = False
    dtype: str = "F16"
    kind: str = "idefics3"
    head_dim: int | None = None
    words: int = 0  # further ones in the vocabulary, which no text is made of
    rows: int | None = None  # of the embedding table, where it is longer than the vocabulary
    text: dict[str, Any] = field(default_factory=dict)  # further keys of text_config, such as those of rotary positions
    template: str | None = None  # chat template
    start: str | None = None  # token that the tokenizer puts before every text


REFERENCE_SIZE = Size(
    image=280, dim=192, layers=6, heads=3, inner=768, merge=4, text_dim=256, text_layers=4, text_inner=768, tied=True
)


def write_tokenizer(file: Path, start: str | None = None, words: int = 0) -> Tokenizer:
    """A byte-level tokenizer: 256 bytes, a few words, the special tokens of the family. start: put before any text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(alphabet)}
    merges = []
    for word in WORDS:
        pieces = list(word.replace(" ", "Ġ"))
        while len(pieces) > 1:
            merge = (pieces[0], pieces[1])
            pieces[:2] = ["".join(merge)]
            if merge not in merges:
                merges.append(merge)
                vocab.setdefault(pieces[0], len(vocab))
    vocab.update({f"word{i}": len(vocab) + i for i in range(words)})
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIALS])
    if start:
        tokenizer.add_special_tokens([AddedToken(start, normalized=False, special=True)])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", special_tokens=[(start, tokenizer.token_to_id(start))]
        )
    tokenizer.save(str(file))
    return tokenizer


def write_checkpoint(
    folder: Path, size: Size | None = None, *, zero: str | None = None
) -> dict[str, NDArray[np.float32]]:
    """Write config.json, preprocessor_config.json, tokenizer.json and model.safetensors with random weights; returns
    the weights as they are stored, in float32. zero: a parameter whose values are all 0."""
    s = size or Size()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder / "tokenizer.json", s.start, s.words)
    vocab = s.rows or tokenizer.get_vocab_size()
    if s.template:
        settings = {"chat_template": s.template, **({"bos_token": s.start} if s.start else {})}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {
        "model_type": s.kind,
        "architectures": [{"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[s.kind] + "ForConditionalGeneration"],
        "image_token_id": tokenizer.token_to_id("<image>"),
        "eos_token_id": tokenizer.token_to_id("<end_of_utterance>"),
        "scale_factor": s.merge,
        "tie_word_embeddings": s.tied,
        "vision_config": {
            "hidden_size": s.dim,
            "intermediate_size": s.inner,
            "num_hidden_layers": s.layers,
            "num_attention_heads": s.heads,
            "image_size": s.image,
            "patch_size": s.patch,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": vocab,
            "hidden_size": s.text_dim,
            "intermediate_size": s.text_inner,
            "num_hidden_layers": s.text_layers,
            "num_attention_heads": s.text_heads,
            "num_key_value_heads": s.kv_heads,
            "tie_word_embeddings": s.tied,
            **({"head_dim": s.head_dim} if s.head_dim else {}),
            **s.text,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return _write_safetensors(folder / "model.safetensors", _shapes(s, vocab), s.dtype, zero)


def _shapes(s: Size, vocab: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int, *, bias: bool) -> None:
        shapes[f"{name}.weight"] = (out, into)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def norm(name: str, dim: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (dim,)

    tower = "model.vision_model"
    shapes[f"{tower}.embeddings.patch_embedding.weight"] = (s.dim, 3, s.patch, s.patch)
    shapes[f"{tower}.embeddings.patch_embedding.bias"] = (s.dim,)
    shapes[f"{tower}.embeddings.position_embedding.weight"] = ((s.image // s.patch) ** 2, s.dim)
    for i in range(s.layers):
        layer = f"{tower}.encoder.layers.{i}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}.self_attn.{projection}", s.dim, s.dim, bias=True)
        norm(f"{layer}.layer_norm1", s.dim)
        norm(f"{layer}.layer_norm2", s.dim)
        linear(f"{layer}.mlp.fc1", s.inner, s.dim, bias=True)
        linear(f"{layer}.mlp.fc2", s.dim, s.inner, bias=True)
    norm(f"{tower}.post_layernorm", s.dim)
    linear("model.connector.modality_projection.proj", s.text_dim, s.dim * s.merge**2, bias=False)
    shapes["model.text_model.embed_tokens.weight"] = (vocab, s.text_dim)
    head = s.head_dim or s.text_dim // s.text_heads
    for i in range(s.text_layers):
        layer = f"model.text_model.layers.{i}"
        linear(f"{layer}.self_attn.q_proj", s.text_heads * head, s.text_dim, bias=False)
        linear(f"{layer}.self_attn.k_proj", s.kv_heads * head, s.text_dim, bias=False)
        linear(f"{layer}.self_attn.v_proj", s.kv_heads * head, s.text_dim, bias=False)
        linear(f"{layer}.self_attn.o_proj", s.text_dim, s.text_heads * head, bias=False)
        linear(f"{layer}.mlp.gate_proj", s.text_inner, s.text_dim, bias=False)
        linear(f"{layer}.mlp.up_proj", s.text_inner, s.text_dim, bias=False)
        linear(f"{layer}.mlp.down_proj", s.text_dim, s.text_inner, bias=False)
        shapes[f"{layer}.input_layernorm.weight"] = (s.text_dim,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (s.text_dim,)
    shapes["model.text_model.norm.weight"] = (s.text_dim,)
    if not s.tied:
        shapes["lm_head.weight"] = (vocab, s.text_dim)
    return shapes


def _write_safetensors(
    file: Path, shapes: dict[str, tuple[int, ...]], dtype: str, zero: str | None
) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    weights: dict[str, NDArray[np.float32]] = {}
    with file.open("wb") as out:
        out.write(safetensors_header({name: (dtype, shape) for name, shape in sorted(shapes.items())}))
        for name, shape in sorted(shapes.items()):
            fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 25
            scale = 0.05 if "embed_tokens" in name or "position" in name else 1 / np.sqrt(fan_in)
            array = rng.normal(0, scale, shape)
            if "norm" in name and name.endswith("weight"):
                array += 1
            array *= name != zero
            if dtype == "BF16":  # the upper half of a float32
                halves = (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
                out.write(halves.tobytes())
                weights[name] = (halves.astype(np.uint32) << 16).view(np.float32)
            else:
                stored = array.astype({"F16": np.float16, "F32": np.float32}[dtype])
                out.write(stored.tobytes())
                weights[name] = stored.astype(np.float32)
    return weights


def safetensors_header(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """What stands before the data of these tensors, name → (dtype, shape), in this order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + int(np.prod(shape)) * {"F16": 2, "BF16": 2, "F32": 4}[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def split_into_shards(folder: Path, count: int) -> None:
    """Replace model.safetensors by shards and their index, as `save_pretrained` does for a large model."""
    whole = folder / "model.safetensors"
    content = whole.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    header.pop("__metadata__")
    names, where = list(header), {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        mine = names[i::count]
        blobs = [data[slice(*header[name]["data_offsets"])] for name in mine]
        head = safetensors_header({name: (header[name]["dtype"], tuple(header[name]["shape"])) for name in mine})
        (folder / file).write_bytes(head + b"".join(blobs))
        where.update(dict.fromkeys(mine, file))
    index = {"metadata": {"total_size": len(data)}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole.unlink()
