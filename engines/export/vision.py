"""The vision tower and the connector as graphs.

`encode_full`: every patch. `select_inplace`: only n patches run; their keys and values replace rows of the cache, and
they attend to all T. Both are one function, so with every patch selected they agree.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from engines.export.checkpoint import Checkpoint
from engines.export.graph import Graph

TOWER = "model.vision_model"


def encode_full(checkpoint: Checkpoint) -> Graph:
    """patches (T, 3·p·p) → features (T, D), keys_N and values_N (H, T, dh) of each layer N."""
    return _tower(Graph("encode_full", checkpoint), select=False)


def select_inplace(checkpoint: Checkpoint) -> Graph:
    """patches (n, 3·p·p), index (n,), position (n, 4), key_bias (T,), keys_N_in and values_N_in (H, T, dh) →
    features (n, D), keys_N and values_N with the rows `index` replaced. A token's position is the mean of four rows of
    the position table: four times its own for a fine token, those of its cell for a coarse one. One buffer may be bound
    as input and output: ScatterND then writes rows only. Keys and values are tensors of their own, because cutting one
    tensor in two would copy the cache."""
    return _tower(Graph("select_inplace", checkpoint), select=True)


def connect(checkpoint: Checkpoint) -> Graph:
    """features (T, D) → visual (T / merge², text dim): pixel shuffle, then one projection."""
    g = Graph("connect", checkpoint)
    config, merge = checkpoint.config.vision_config, checkpoint.config.scale_factor
    side = config.image_size // config.patch_size
    cells = side // merge
    x = g.input("features", (side * side, config.hidden_size))
    x = g.op("Reshape", x, g.constant([cells, merge, cells, merge * config.hidden_size]))
    x = g.op("Transpose", x, perm=[0, 2, 1, 3])
    x = g.op("Reshape", x, g.constant([cells * cells, merge * merge * config.hidden_size]))
    x = g.linear(x, "model.connector.modality_projection.proj", name="visual")
    g.output(x, (cells * cells, checkpoint.config.text_config.hidden_size))
    return g


def _tower(g: Graph, *, select: bool) -> Graph:
    config = g.checkpoint.config.vision_config
    side = config.image_size // config.patch_size
    tokens, dim, heads = side * side, config.hidden_size, config.num_attention_heads
    pixels = 3 * config.patch_size**2
    cache_shape = (heads, tokens, dim // heads)

    patches = g.input("patches", ("n" if select else tokens, pixels))
    index = g.input("index", ("n",), TensorProto.INT64) if select else None
    position = g.input("position", ("n", 4), TensorProto.INT64) if select else None
    key_bias = g.input("key_bias", (tokens,)) if select else None
    cache_rows = _cache_rows(g, index, heads) if index else ""

    kernel = g.weight(f"{TOWER}.embeddings.patch_embedding.weight", (dim, pixels))
    x = g.op("Gemm", patches, kernel, g.weight(f"{TOWER}.embeddings.patch_embedding.bias"), transB=1)
    x = g.op("Add", x, _positions(g, position))
    for i in range(config.num_hidden_layers):
        layer = f"{TOWER}.encoder.layers.{i}"
        h = g.layer_norm(x, f"{layer}.layer_norm1", config.layer_norm_eps)
        qkv = g.linear(h, *(f"{layer}.self_attn.{part}_proj" for part in "qkv"))
        qkv = g.op("Transpose", g.op("Reshape", qkv, g.constant([-1, 3 * heads, dim // heads])), perm=[1, 0, 2])
        if index:
            q, *new = g.split(qkv, [heads] * 3)
            k, v = (
                g.op("ScatterND", g.input(f"{part}_{i}_in", cache_shape), cache_rows, rows, name=f"{part}_{i}")
                for part, rows in zip(("keys", "values"), new, strict=True)
            )
        else:
            q, k, v = g.split(qkv, [heads] * 3, names=(f"queries_{i}", f"keys_{i}", f"values_{i}"))
        g.output(k, cache_shape)
        g.output(v, cache_shape)
        h = _attend(g, q, k, v, key_bias, dim, heads)
        x = g.op("Add", x, g.linear(h, f"{layer}.self_attn.out_proj"))
        h = g.layer_norm(x, f"{layer}.layer_norm2", config.layer_norm_eps)
        h = gelu(g, g.linear(h, f"{layer}.mlp.fc1"), config.hidden_act)
        x = g.op("Add", x, g.linear(h, f"{layer}.mlp.fc2"))
    g.layer_norm(x, f"{TOWER}.post_layernorm", config.layer_norm_eps, name="features")
    g.output("features", ("n" if select else tokens, dim))
    return g


def _positions(g: Graph, position: str | None) -> str:
    """Position embeddings of all tokens, (T, D), or for `position` (n, 4) the means of four rows, (n, D). Row i of the
    table belongs to slot i.

    Sums of two, then of two again: the mean of four equal numbers is that number, bit for bit.
    transformers gets to a slot's row through fractions in float32, and on a few grids (19×19, 25×25, 29×29, …)
    rounding, which differs between processors, puts a patch into its neighbour's row; on those grids we differ on
    purpose.
    """
    table = g.weight(f"{TOWER}.embeddings.position_embedding.weight")
    if not position:
        return table
    dim = g.checkpoint.config.vision_config.hidden_size
    x = g.op("Gather", g.op("Mul", table, g.constant(0.25)), position, axis=0)
    x = g.op("ReduceSum", g.op("Reshape", x, g.constant([-1, 2, 2 * dim])), g.constant([1]), keepdims=0)
    x = g.op("Reshape", x, g.constant([-1, 2, dim]))
    return g.op("ReduceSum", x, g.constant([1]), name="positions", keepdims=0)


def _cache_rows(g: Graph, index: str, heads: int) -> str:
    """ScatterND indices (H, n, 2) of the selected tokens' rows in keys or values (H, T, dh)."""
    shape = g.op("Concat", g.constant([heads]), g.op("Shape", index), g.constant([1]), axis=0)
    head = g.op("Expand", g.constant(np.arange(heads)[:, None, None]), shape)
    return g.op("Concat", head, g.op("Expand", g.op("Unsqueeze", index, g.constant([0, 2])), shape), axis=2)


def _attend(g: Graph, q: str, k: str, v: str, key_bias: str | None, dim: int, heads: int) -> str:
    """q (H, n, dh) over keys and values (H, T, dh) → (n, D). The scale is left to the runtime to fuse."""
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1]))
    scores = g.op("Mul", scores, g.constant((dim // heads) ** -0.5))
    if key_bias:
        scores = g.op("Add", scores, key_bias)
    x = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
    return g.op("Reshape", g.op("Transpose", x, perm=[1, 0, 2]), g.constant([-1, dim]))


def gelu(g: Graph, x: str, kind: str) -> str:
    """Both kinds in the spelling that ONNX Runtime and TensorRT recognise and fuse."""
    half = g.op("Mul", x, g.constant(0.5))
    if kind == "gelu":
        gate = g.op("Erf", g.op("Div", x, g.constant(math.sqrt(2))))
    else:
        cubic = g.op("Mul", g.op("Pow", x, g.constant(3.0)), g.constant(0.044715))
        gate = g.op("Tanh", g.op("Mul", g.op("Add", x, cubic), g.constant(math.sqrt(2 / math.pi))))
    return g.op("Mul", half, g.op("Add", gate, g.constant(1.0)))
