"""The language model as graphs. `embed` turns token ids into vectors; reading comes in two forms that compute the same.

For ONNX Runtime: `decode`, prefill and step in one, whose caches go in and out in one buffer.
For TensorRT: `decode_rows`, which gives the new rows alone. Before 10.15 TensorRT promises in-place caches to plugins
only, and the layer that came then (IKVCacheUpdateLayer) is no ONNX operator; so our own kernel writes the rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from engines.checkpoint import Checkpoint, TextConfig
from engines.export.graph import Graph
from engines.export.rope import frequencies
from engines.manifest import Shape

TEXT = "model.text_model"
_LEAST = 2.0**-10
Kept = Callable[[str, str], str]


def embed(checkpoint: Checkpoint) -> Graph:
    """ids (s,) → embeds (s, D). Rows are gathered before they are cast, so the table stays as it is stored."""
    g = Graph("embed", checkpoint)
    ids = g.input("ids", ("s",), TensorProto.INT64)
    rows = g.op("Gather", g.stored(f"{TEXT}.embed_tokens.weight"), ids, axis=0)
    g.output(g.op("Cast", rows, name="embeds", to=TensorProto.FLOAT), ("s", checkpoint.config.text_config.hidden_size))
    return g


def decode(checkpoint: Checkpoint) -> Graph:
    """embeds (s, D), position (s,), slot (s,), mask (s, c) added to the scores, answer (a,), keys_N_in and values_N_in
    (Hkv, c, dh) → keys_N and values_N with the new rows in their slots, logits (a, vocab) of the rows in `answer`.
    Llama: RMS norm, rotary positions, grouped queries, SwiGLU. One graph for prefill, step, and rows side by side that
    see only what the mask lets them."""
    g = Graph("decode", checkpoint)
    c = checkpoint.config.text_config
    x, position = _entry(g, c)
    slots = _cache_rows(g, g.input("slot", ("s",), TensorProto.INT64), c.kv_heads)
    mask = g.input("mask", ("s", "c"))

    def kept(name: str, rows: str) -> str:
        return _into_cache(g, name, slots, rows, (c.kv_heads, "c", c.head_size))

    _read(g, x, position, mask, c, kept)
    return g


def decode_rows(checkpoint: Checkpoint) -> Graph:
    """embeds (s, D), position (s,), mask (s, c + s) added to the scores, answer (a,), keys_N_in and values_N_in
    (Hkv, c, dh) → keys_N and values_N (Hkv, s, dh): the new rows only; logits (a, vocab) of the rows in `answer`.

    Rows see the cache, then each other: the mask has a column for each slot and then one for each row. A row that only
    fills a count must see itself, and what is masked must hold numbers: −∞ added to NaN is NaN. The RMS norm divides by
    the largest value before it squares, because in half precision 256² is infinite; queries are scaled before they meet
    keys.
    """
    g = Graph("decode_rows", checkpoint)
    c = checkpoint.config.text_config
    x, position = _entry(g, c)
    mask = g.input("mask", ("s", "t"))

    def kept(name: str, rows: str) -> str:
        g.output(g.op("Identity", rows, name=name), (c.kv_heads, "s", c.head_size))
        return g.op("Concat", g.input(f"{name}_in", (c.kv_heads, "c", c.head_size)), rows, axis=1)

    _read(g, x, position, mask, c, kept, half=True)
    return g


def _entry(g: Graph, c: TextConfig) -> tuple[str, str]:
    return g.input("embeds", ("s", c.hidden_size)), g.input("position", ("s",), TensorProto.INT64)


def _read(g: Graph, x: str, position: str, mask: str, c: TextConfig, kept: Kept, *, half: bool = False) -> None:
    """All layers, from rows x (s, D) to the output `logits`. kept: name of keys or values, new rows (Hkv, s, dh) →
    what attention reads, (Hkv, columns of the mask, dh). half: norms that half precision can hold."""
    checkpoint = g.checkpoint
    rotation = _rotation(g, position, c)
    for i in range(c.num_hidden_layers):
        layer = f"{TEXT}.layers.{i}"
        h = _rms_norm(g, x, f"{layer}.input_layernorm", c.rms_norm_eps, half)
        h = _attend(g, h, i, mask, kept, rotation, c, half)
        x = g.op("Add", x, g.linear(h, f"{layer}.self_attn.o_proj"))
        h = _rms_norm(g, x, f"{layer}.post_attention_layernorm", c.rms_norm_eps, half)
        gate = g.linear(h, f"{layer}.mlp.gate_proj")
        h = g.op("Mul", g.op("Mul", gate, g.op("Sigmoid", gate)), g.linear(h, f"{layer}.mlp.up_proj"))
        x = g.op("Add", x, g.linear(h, f"{layer}.mlp.down_proj"))
    asked = g.op("Gather", x, g.input("answer", ("a",), TensorProto.INT64), axis=0)
    asked = _rms_norm(g, asked, f"{TEXT}.norm", c.rms_norm_eps, half)
    head = f"{TEXT}.embed_tokens" if _tied(checkpoint) else "lm_head"
    vocabulary = checkpoint.tensor(f"{head}.weight").shape[0]
    g.output(g.linear(asked, head, name="logits"), ("a", vocabulary))


def _tied(checkpoint: Checkpoint) -> bool:
    """Words are also judged by the table that embeds them: where there is no other, as `transformers` does it."""
    return "lm_head.weight" not in checkpoint


def _attend(
    g: Graph, h: str, i: int, mask: str, kept: Kept, rotation: tuple[str, str], c: TextConfig, half: bool
) -> str:
    heads, kv_heads, size = c.num_attention_heads, c.kv_heads, c.head_size
    qkv = g.linear(h, *(f"{TEXT}.layers.{i}.self_attn.{part}_proj" for part in "qkv"))
    qkv = g.op("Transpose", g.op("Reshape", qkv, g.constant([-1, heads + 2 * kv_heads, size])), perm=[1, 0, 2])
    qk, v = g.split(qkv, [heads + kv_heads, kv_heads])
    q, k = g.split(_rotate(g, qk, rotation, size), [heads, kv_heads])
    k, v = kept(f"keys_{i}", k), kept(f"values_{i}", v)
    # (Hkv, 1, c, dh) against queries (Hkv, group, s, dh): each key head serves its group without being repeated.
    k, v = (g.op("Unsqueeze", x, g.constant([1])) for x in (k, v))
    q = g.op("Reshape", q, g.constant([kv_heads, heads // kv_heads, -1, size]))
    if half:  # products of what is scaled first stay smaller
        scores = g.op("MatMul", g.op("Mul", q, g.constant(size**-0.5)), g.op("Transpose", k, perm=[0, 1, 3, 2]))
    else:
        scores = g.op("Mul", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2])), g.constant(size**-0.5))
    x = g.op("MatMul", g.op("Softmax", g.op("Add", scores, mask), axis=-1), v)
    x = g.op("Transpose", g.op("Reshape", x, g.constant([heads, -1, size])), perm=[1, 0, 2])
    return g.op("Reshape", x, g.constant([-1, heads * size]))


def _into_cache(g: Graph, name: str, slots: str, rows: str, shape: Shape) -> str:
    """The cache with new rows in their slots. With one buffer as input and output, the runtime writes nothing else."""
    cache = g.op("ScatterND", g.input(f"{name}_in", shape), slots, rows, name=name)
    g.output(cache, shape)
    return cache


def _cache_rows(g: Graph, slot: str, kv_heads: int) -> str:
    """ScatterND indices (Hkv, s, 2) of the slots' rows in keys or values (Hkv, c, dh)."""
    shape = g.op("Concat", g.constant([kv_heads]), g.op("Shape", slot), g.constant([1]), axis=0)
    head = g.op("Expand", g.constant(np.arange(kv_heads)[:, None, None]), shape)
    return g.op("Concat", head, g.op("Expand", g.op("Unsqueeze", slot, g.constant([0, 2])), shape), axis=2)


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


def _rms_norm(g: Graph, x: str, module: str, epsilon: float, half: bool) -> str:
    """x / √(mean x² + ε). half: the same of x / max |x|, with ε divided by the square of that. The square is a product
    then: where it is a power, ONNX Runtime takes the whole for a norm of its own, with the ε that it is used to."""
    if half:
        peak = g.op("Max", g.op("ReduceMax", g.op("Abs", x), axes=[-1], keepdims=1), g.constant(_LEAST))
        x = g.op("Div", x, peak)
        square, added = g.op("Mul", x, x), g.op("Div", g.op("Div", g.constant(epsilon), peak), peak)
        root = g.op("Sqrt", g.op("Add", g.op("ReduceMean", square, axes=[-1], keepdims=1), added))
    else:
        square = g.op("ReduceMean", g.op("Pow", x, g.constant(2.0)), axes=[-1], keepdims=1)
        root = g.op("Sqrt", g.op("Add", square, g.constant(epsilon)))
    return g.op("Mul", g.op("Div", x, root), g.weight(f"{module}.weight"))
