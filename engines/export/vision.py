"""The vision tower and the connector as graphs. The tower comes in two forms that compute the same.

For ONNX Runtime: `encode_full_fused` and `select_inplace`. Attention is its MultiHeadAttention, which works block by
block within the processor's own cache.
For TensorRT: `encode_full` and `select_rows`, of standard operators alone.
Keys and values lie as (H, T, dh) in both, as attention reads them: of (T, D) it would first copy them all.

Selecting runs only n tokens; they attend to all T. With every token selected it agrees with a full encode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from onnx import TensorProto

from engines.checkpoint import Checkpoint, VisionConfig
from engines.export.graph import MICROSOFT, Graph

TOWER = "model.vision_model"
CacheType = Literal["float32", "float16"]
_STORED = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
Attend = Callable[[int, str], str]


def graphs(checkpoint: Checkpoint, cache: CacheType = "float32") -> list[Graph]:
    """All graphs of this module."""
    return [*for_onnx_runtime(checkpoint, cache), encode_full(checkpoint), select_rows(checkpoint), connect(checkpoint)]


def for_onnx_runtime(checkpoint: Checkpoint, cache: CacheType = "float32") -> list[Graph]:
    """The tower as `OnnxEncoder` takes it."""
    return [build(checkpoint, cache) for build in (encode_full_fused, select_inplace, select_pair)]


def encode_full(checkpoint: Checkpoint) -> Graph:
    """patches (T, 3·p·p) → features (T, D), keys_N and values_N (H, T, dh) of each layer N."""
    tower = _Tower(Graph("encode_full", checkpoint))
    g = tower.g

    def attend(layer: int, h: str) -> str:
        q, k, v = tower.heads_of(layer, h)
        for part in (k, v):
            g.output(part, (tower.heads, tower.tokens, tower.size))
        return tower.attention(q, k, v)

    tower.run(tower.embedded(tower.tokens), attend, tower.tokens)
    return g


def encode_full_fused(checkpoint: Checkpoint, cache: CacheType = "float32") -> Graph:
    """patches (T, 3·p·p) → features (T, D), keys_N and values_N (1, H, T, dh) of each layer N."""
    tower = _Tower(Graph("encode_full_fused", checkpoint, integer=True))
    g, half = tower.g, cache == "float16"

    def attend(layer: int, h: str) -> str:
        names = [f"{part}_{layer}" for part in ("queries", "keys", "values")]
        q, *kept = (g.linear(h, tower.projection(layer, part)) for part in "qkv")
        by_head = [
            g.op("Transpose", tower.by_head(rows), name=f"{name}_float" if half else name, perm=[0, 2, 1, 3])
            for name, rows in zip(names[1:], kept, strict=True)
        ]
        for name, rows in zip(names[1:], by_head, strict=True):
            stored = g.op("Cast", rows, name=name, to=_STORED[cache]) if half else rows
            g.output(stored, (1, tower.heads, tower.tokens, tower.size), _STORED[cache])
        return tower.fused_attention(g.op("Unsqueeze", q, g.constant([0]), name=names[0]), *by_head)

    tower.run(tower.embedded(tower.tokens), attend, tower.tokens)
    return g


def select_inplace(checkpoint: Checkpoint, cache: CacheType = "float32") -> Graph:
    """patches (n, 3·p·p), position (n, 4), index (r,), source (r,), keys_N_in and values_N_in (1, H, T, dh) → features
    (n, D), keys_N and values_N with the rows `index` replaced by the keys and values of tokens `source`.

    position: a token's position is the mean of four rows of the position table: four times its own for a fine token,
    those of its cell for a coarse one. source: a coarse token writes four rows, and so weighs as much as the four that
    it stands for; that is a bias of log 4 on its key, but the attention that takes a bias is a slower one.
    One buffer may be bound as input and output: ScatterND then writes rows only. Keys and values are tensors of their
    own, because cutting one tensor in two would copy the cache.
    """
    return _selecting("select_inplace", checkpoint, cache, ("",))


def select_pair(checkpoint: Checkpoint, cache: CacheType = "float32") -> Graph:
    """`select_inplace` for two cameras, whose tokens go through the linear layers together, so that weights are read
    once. patches and position hold the tokens of camera a, then those of b; counts (2,): how many each. index, source
    (in the common order), keys and values are there for each, and end in _a or _b."""
    return _selecting("select_pair", checkpoint, cache, ("_a", "_b"))


def _selecting(name: str, checkpoint: Checkpoint, cache: CacheType, cameras: Sequence[str]) -> Graph:
    tower = _Tower(Graph(name, checkpoint, integer=True))
    g, half = tower.g, cache == "float16"
    x = tower.embedded("n", positioned=True)
    counts = g.input_int("counts", (len(cameras),)) if len(cameras) > 1 else None
    heads = g.constant(np.array([[[0, head, 0] for head in range(tower.heads)]]))
    written = []
    for camera in cameras:
        index = g.op("Unsqueeze", g.input_int(f"index{camera}", (f"r{camera}",)), g.constant([1, 2]))
        index = g.op("Add", g.op("Mul", index, g.constant([0, 0, 1])), heads)  # (r, H, 3): batch, head, row
        first = g.op("Mul", g.input_int(f"source{camera}", (f"r{camera}",)), g.constant([3]))
        places = [g.op("Add", first, g.constant([i])) for i in (1, 2)]
        written.append((index, dict(zip(("keys", "values"), places, strict=True))))

    def kept(layer: int, camera: int, part: str, rows: str) -> str:
        index, places = written[camera]
        value, shape = f"{part}_{layer}{cameras[camera]}", (1, tower.heads, tower.tokens, tower.size)
        new = g.op("Reshape", g.op("Gather", rows, places[part], axis=0), g.constant([-1, tower.heads, tower.size]))
        new = g.op("Cast", new, to=_STORED[cache]) if half else new
        whole = g.op("ScatterND", g.input(f"{value}_in", shape, _STORED[cache]), index, new, name=value)
        g.output(whole, shape, _STORED[cache])
        return g.op("Cast", whole, to=TensorProto.FLOAT) if half else whole

    def attend(layer: int, h: str) -> str:
        qkv = g.linear(h, *(tower.projection(layer, part) for part in "qkv"))
        q = g.op("Gather", g.op("Reshape", qkv, g.constant([1, -1, 3, tower.dim])), g.constant(0), axis=2)
        rows = g.op("Reshape", qkv, g.constant([-1, tower.dim]))
        queries = g.split(q, counts, axis=1, names=[f"queries_{layer}{c}" for c in cameras]) if counts else [q]
        found = [
            tower.fused_attention(mine, *(kept(layer, camera, part, rows) for part in ("keys", "values")))
            for camera, mine in enumerate(queries)
        ]
        return g.op("Concat", *found, axis=0) if counts else found[0]

    tower.run(x, attend, "n")
    return g


def select_rows(checkpoint: Checkpoint) -> Graph:
    """patches (n, 3·p·p), position (n, 4), row_bias (n,), cache_bias (T,), keys_N_in and values_N_in (H, T, dh) →
    features (n, D), keys_N and values_N (H, n, dh): the new rows only, for the caller to write into the cache.

    Tokens attend to the cache and to each other. cache_bias: −∞ for the rows that the new ones replace, else 0.
    row_bias: 0, log 4 for a coarse token, −∞ for a row that only fills a bucket. Masked rows must hold numbers, best
    zeros: −∞ added to NaN is NaN.
    """
    tower = _Tower(Graph("select_rows", checkpoint))
    g = tower.g
    x = tower.embedded("n", positioned=True)
    row_bias, cache_bias = g.input("row_bias", ("n",)), g.input("cache_bias", (tower.tokens,))
    bias = g.op("Concat", cache_bias, row_bias, axis=0)

    def attend(layer: int, h: str) -> str:
        q, k, v = tower.heads_of(layer, h)
        every = []
        for name, rows in ((f"keys_{layer}", k), (f"values_{layer}", v)):
            g.output(rows, (tower.heads, "n", tower.size))
            every.append(g.op("Concat", g.input(f"{name}_in", (tower.heads, tower.tokens, tower.size)), rows, axis=1))
        return tower.attention(q, every[0], every[1], bias)

    tower.run(x, attend, "n")
    return g


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


def linear_layers(config: VisionConfig) -> list[str]:
    """Names of the linear layers between tokens' entry and exit: where the work is."""
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
    return [f"{TOWER}.encoder.layers.{i}.{part}" for i in range(config.num_hidden_layers) for part in parts]


class _Tower:
    """What the forms share: everything but where keys and values come from."""

    def __init__(self, g: Graph) -> None:
        self.g = g
        self.config = config = g.checkpoint.config.vision_config
        self.tokens = (config.image_size // config.patch_size) ** 2
        self.dim, self.heads = config.hidden_size, config.num_attention_heads
        self.size = self.dim // self.heads

    def projection(self, layer: int, part: str) -> str:
        return f"{TOWER}.encoder.layers.{layer}.self_attn.{part}_proj"

    def embedded(self, count: int | str, *, positioned: bool = False) -> str:
        """The graph's `patches` as rows (count, D) with positions added: those of the inputs `position`, or of all."""
        g, name = self.g, f"{TOWER}.embeddings.patch_embedding"
        pixels = 3 * self.config.patch_size**2
        patches = g.input("patches", (count, pixels))
        x = g.op("Gemm", patches, g.weight(f"{name}.weight", (self.dim, pixels)), g.weight(f"{name}.bias"), transB=1)
        return g.op("Add", x, self._positions(g.input_int("position", (count, 4)) if positioned else None))

    def run(self, x: str, attend: Attend, count: int | str) -> None:
        """All layers, from rows x (count, D) to the output `features` (count, D). attend: layer, normed rows → what
        attention has found, before its output projection."""
        g, config = self.g, self.config
        for i in range(config.num_hidden_layers):
            layer = f"{TOWER}.encoder.layers.{i}"
            h = attend(i, g.layer_norm(x, f"{layer}.layer_norm1", config.layer_norm_eps))
            x = g.op("Add", x, g.linear(h, f"{layer}.self_attn.out_proj"))
            h = g.layer_norm(x, f"{layer}.layer_norm2", config.layer_norm_eps)
            h = gelu(g, g.linear(h, f"{layer}.mlp.fc1"), config.hidden_act)
            x = g.op("Add", x, g.linear(h, f"{layer}.mlp.fc2"))
        g.layer_norm(x, f"{TOWER}.post_layernorm", config.layer_norm_eps, name="features")
        g.output("features", (count, self.dim))

    def heads_of(self, layer: int, h: str) -> list[str]:
        """Queries, keys and values (H, n, dh) of rows h, named after the layer."""
        g = self.g
        qkv = g.linear(h, *(self.projection(layer, part) for part in "qkv"))
        qkv = g.op("Reshape", qkv, g.constant([-1, 3 * self.heads, self.size]))
        names = [f"{part}_{layer}" for part in ("queries", "keys", "values")]
        return g.split(g.op("Transpose", qkv, perm=[1, 0, 2]), [self.heads] * 3, names=names)

    def attention(self, q: str, k: str, v: str, bias: str | None = None) -> str:
        """q (H, n, dh) over k and v (H, m, dh), bias (m,) → (n, D)."""
        g = self.g
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1]))
        scores = g.op("Mul", scores, g.constant(self.size**-0.5))
        if bias:
            scores = g.op("Add", scores, bias)
        x = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
        return g.op("Reshape", g.op("Transpose", x, perm=[1, 0, 2]), g.constant([-1, self.dim]))

    def by_head(self, rows: str) -> str:
        """Rows (n, D) as (1, n, H, dh)."""
        return self.g.op("Reshape", rows, self.g.constant([1, -1, self.heads, self.size]))

    def fused_attention(self, q: str, k: str, v: str) -> str:
        """q (1, n, D) over k and v (1, H, T, dh) → (n, D)."""
        g = self.g
        x = g.op("MultiHeadAttention", q, k, v, domain=MICROSOFT, num_heads=self.heads)
        return g.op("Reshape", x, g.constant([-1, self.dim]))

    def _positions(self, position: str | None) -> str:
        """Position embeddings of all tokens, (T, D), or for `position` (n, 4) the means of four rows, (n, D). Row i of
        the table belongs to slot i.

        Sums of two, then of two again: the mean of four equal numbers is that number, bit for bit.
        transformers gets to a slot's row through fractions in float32, and on a few grids (19×19, 25×25, 29×29, …)
        rounding, which differs between processors, puts a patch into its neighbour's row; on those grids we differ on
        purpose.
        """
        g = self.g
        table = g.weight(f"{TOWER}.embeddings.position_embedding.weight")
        if not position:
            return table
        x = g.op("Gather", g.op("Mul", table, g.constant(0.25)), position, axis=0)
        x = g.op("ReduceSum", g.op("Reshape", x, g.constant([-1, 2, 2 * self.dim])), g.constant([1]), keepdims=0)
        x = g.op("Reshape", x, g.constant([-1, 2, self.dim]))
        return g.op("ReduceSum", x, g.constant([1]), name="positions", keepdims=0)


def gelu(g: Graph, x: str, kind: str) -> str:
    """Both kinds in the spelling that ONNX Runtime and TensorRT recognise and fuse."""
    half = g.op("Mul", x, g.constant(0.5))
    if kind == "gelu":
        gate = g.op("Erf", g.op("Div", x, g.constant(math.sqrt(2))))
    else:
        cubic = g.op("Mul", g.op("Pow", x, g.constant(3.0)), g.constant(0.044715))
        gate = g.op("Tanh", g.op("Mul", g.op("Add", x, cubic), g.constant(math.sqrt(2 / math.pi))))
    return g.op("Mul", half, g.op("Add", gate, g.constant(1.0)))
