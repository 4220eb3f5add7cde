"""The language model as graphs: `embed` turns token ids into vectors, `decode` is prefill and step in one."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from engines.export.checkpoint import Checkpoint, TextConfig
from engines.export.graph import Graph
from engines.export.rope import frequencies

TEXT = "model.text_model"
_END = np.iinfo(np.int64).max


def embed(checkpoint: Checkpoint) -> Graph:
    """ids (s,) → embeds (s, D). Rows are gathered before they are cast, so the table stays as it is stored."""
    g = Graph("embed", checkpoint)
    ids = g.input("ids", ("s",), TensorProto.INT64)
    rows = g.op("Gather", g.stored(f"{TEXT}.embed_tokens.weight"), ids, axis=0)
    g.output(g.op("Cast", rows, name="embeds", to=TensorProto.FLOAT), ("s", checkpoint.config.text_config.hidden_size))
    return g


def decode(checkpoint: Checkpoint) -> Graph:
    """embeds (s, D), position (s,), mask (s, t = p + s) added to the scores, past_keys_N and past_values_N (Hkv, p, dh)
    → logits (1, vocab) of the last row, keys_N and values_N (Hkv, t, dh). Llama: RMS norm, rotary positions, grouped
    queries, SwiGLU. With p = 0 it is the prefill, with s = 1 the step."""
    g = Graph("decode", checkpoint)
    c = checkpoint.config.text_config
    x = g.input("embeds", ("s", c.hidden_size))
    position = g.input("position", ("s",), TensorProto.INT64)
    mask = g.input("mask", ("s", "t"))
    rotation = _rotation(g, position, c)
    for i in range(c.num_hidden_layers):
        layer = f"{TEXT}.layers.{i}"
        h = _rms_norm(g, x, f"{layer}.input_layernorm", c.rms_norm_eps)
        h = _attend(g, h, i, mask, rotation, c)
        x = g.op("Add", x, g.linear(h, f"{layer}.self_attn.o_proj"))
        h = _rms_norm(g, x, f"{layer}.post_attention_layernorm", c.rms_norm_eps)
        gate = g.linear(h, f"{layer}.mlp.gate_proj")
        h = g.op("Mul", g.op("Mul", gate, g.op("Sigmoid", gate)), g.linear(h, f"{layer}.mlp.up_proj"))
        x = g.op("Add", x, g.linear(h, f"{layer}.mlp.down_proj"))
    last = g.op("Slice", x, g.constant([-1]), g.constant([_END]), g.constant([0]))
    last = _rms_norm(g, last, f"{TEXT}.norm", c.rms_norm_eps)
    head = f"{TEXT}.embed_tokens" if _tied(checkpoint) else "lm_head"
    vocabulary = checkpoint.tensor(f"{head}.weight").shape[0]
    g.output(g.linear(last, head, name="logits"), (1, vocabulary))
    return g


def _tied(checkpoint: Checkpoint) -> bool:
    """Words are also judged by the table that embeds them: where there is no other, as `transformers` does it."""
    return "lm_head.weight" not in checkpoint


def _attend(g: Graph, h: str, i: int, mask: str, rotation: tuple[str, str], c: TextConfig) -> str:
    heads, kv_heads, size = c.num_attention_heads, c.kv_heads, c.head_size
    qkv = g.linear(h, *(f"{TEXT}.layers.{i}.self_attn.{part}_proj" for part in "qkv"))
    qkv = g.op("Transpose", g.op("Reshape", qkv, g.constant([-1, heads + 2 * kv_heads, size])), perm=[1, 0, 2])
    qk, v = g.split(qkv, [heads + kv_heads, kv_heads])
    q, k = g.split(_rotate(g, qk, rotation, size), [heads, kv_heads])
    k = g.op("Concat", g.input(f"past_keys_{i}", (kv_heads, "p", size)), k, name=f"keys_{i}", axis=1)
    v = g.op("Concat", g.input(f"past_values_{i}", (kv_heads, "p", size)), v, name=f"values_{i}", axis=1)
    g.output(k, (kv_heads, "t", size))
    g.output(v, (kv_heads, "t", size))
    # (Hkv, 1, t, dh) against queries (Hkv, group, s, dh): each key head serves its group without being repeated.
    k, v = (g.op("Unsqueeze", x, g.constant([1])) for x in (k, v))
    q = g.op("Reshape", q, g.constant([kv_heads, heads // kv_heads, -1, size]))
    scores = g.op("Mul", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2])), g.constant(size**-0.5))
    x = g.op("MatMul", g.op("Softmax", g.op("Add", scores, mask), axis=-1), v)
    x = g.op("Transpose", g.op("Reshape", x, g.constant([heads, -1, size])), perm=[1, 0, 2])
    return g.op("Reshape", x, g.constant([-1, heads * size]))


def _rotation(g: Graph, position: str, c: TextConfig) -> tuple[str, str]:
    """Cosine and sine (s, dh) of the rotary embedding."""
    frequency = frequencies(c.rope, c.head_size)
    steps = g.op("Unsqueeze", g.op("Cast", position, to=TensorProto.FLOAT), g.constant([1]))
    angle = g.op("Mul", steps, g.constant(np.concatenate([frequency, frequency])[None, :]))
    return g.op("Cos", angle), g.op("Sin", angle)


def _rotate(g: Graph, x: str, rotation: tuple[str, str], size: int) -> str:
    """x·cos + rotate_half(x)·sin on (heads, s, dh)."""
    left, right = g.split(x, [size // 2, size // 2], axis=-1)
    turned = g.op("Concat", g.op("Neg", right), left, axis=-1)
    return g.op("Add", g.op("Mul", x, rotation[0]), g.op("Mul", turned, rotation[1]))


def _rms_norm(g: Graph, x: str, module: str, epsilon: float) -> str:
    square = g.op("ReduceMean", g.op("Pow", x, g.constant(2.0)), axes=[-1], keepdims=1)
    root = g.op("Sqrt", g.op("Add", square, g.constant(epsilon)))
    return g.op("Mul", g.op("Div", x, root), g.weight(f"{module}.weight"))
