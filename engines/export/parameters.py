"""Every parameter that a checkpoint of the family must hold, with the shape that its configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator

from config.errors import ModelError
from engines.checkpoint import INT8, WEIGHTS, Checkpoint, ModelConfig

Shape = tuple[int, ...]
TOWER, TEXT, CONNECTOR = "model.vision_model", "model.text_model", "model.connector.modality_projection.proj"
HEAD = "lm_head.weight"


def parameters(config: ModelConfig, *, head: bool) -> dict[str, Shape]:
    """Shape of each parameter by its name in `transformers`. head: with an output matrix of its own."""
    found = dict([*_tower(config), *_text(config)])
    text, vision = config.text_config, config.vision_config
    found[f"{CONNECTOR}.weight"] = (text.hidden_size, vision.hidden_size * config.scale_factor**2)
    if head:
        found[HEAD] = (text.vocab_size, text.hidden_size)
    return found


def needed(checkpoint: Checkpoint) -> dict[str, Shape]:
    """The parameters of a checkpoint that its graphs read. Raises ModelError when one is absent or of another shape."""
    config = checkpoint.config
    wanted = parameters(config, head=HEAD in checkpoint or not config.tie_word_embeddings)
    for name, shape in wanted.items():
        if checkpoint.is_int8(name):
            found = tuple(reversed(checkpoint.tensors[name + INT8].shape))
        else:
            found = checkpoint.tensor(name).shape
        if found != shape:
            raise ModelError(
                f"{checkpoint.folder / WEIGHTS}: parameter `{name}`: found shape {list(found)}, expected {list(shape)} "
                "by config.json: weights and configuration are of different models"
            )
    return wanted


def _linear(name: str, into: int, out: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, into)
    if bias:
        yield f"{name}.bias", (out,)


def _norm(name: str, dim: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (dim,)
    yield f"{name}.bias", (dim,)


def _tower(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    c = config.vision_config
    dim, embeddings = c.hidden_size, f"{TOWER}.embeddings"
    yield f"{embeddings}.patch_embedding.weight", (dim, c.num_channels, c.patch_size, c.patch_size)
    yield f"{embeddings}.patch_embedding.bias", (dim,)
    yield f"{embeddings}.position_embedding.weight", ((c.image_size // c.patch_size) ** 2, dim)
    for i in range(c.num_hidden_layers):
        layer = f"{TOWER}.encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{part}", dim, dim, True)
        yield from _linear(f"{layer}.mlp.fc1", dim, c.intermediate_size, True)
        yield from _linear(f"{layer}.mlp.fc2", c.intermediate_size, dim, True)
        yield from _norm(f"{layer}.layer_norm1", dim)
        yield from _norm(f"{layer}.layer_norm2", dim)
    yield from _norm(f"{TOWER}.post_layernorm", dim)


def _text(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    c = config.text_config
    dim, inner, queries, keys = c.hidden_size, c.intermediate_size, c.num_attention_heads, c.kv_heads
    yield f"{TEXT}.embed_tokens.weight", (c.vocab_size, dim)
    for i in range(c.num_hidden_layers):
        layer = f"{TEXT}.layers.{i}"
        yield from _linear(f"{layer}.self_attn.q_proj", dim, queries * c.head_size, c.attention_bias)
        yield from _linear(f"{layer}.self_attn.k_proj", dim, keys * c.head_size, c.attention_bias)
        yield from _linear(f"{layer}.self_attn.v_proj", dim, keys * c.head_size, c.attention_bias)
        yield from _linear(f"{layer}.self_attn.o_proj", queries * c.head_size, dim, c.attention_bias)
        yield from _linear(f"{layer}.mlp.gate_proj", dim, inner, c.mlp_bias)
        yield from _linear(f"{layer}.mlp.up_proj", dim, inner, c.mlp_bias)
        yield from _linear(f"{layer}.mlp.down_proj", inner, dim, c.mlp_bias)
        yield f"{layer}.input_layernorm.weight", (dim,)
        yield f"{layer}.post_attention_layernorm.weight", (dim,)
    yield f"{TEXT}.norm.weight", (dim,)
