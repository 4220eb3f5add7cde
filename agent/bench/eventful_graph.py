"""The vision tower with token gates in every block, as Eventful Transformers (ICCV 2023) describe it.

A gate keeps, per token, the last value that it let through; it lets a token through again when the value has moved away
from that, by a norm above a threshold or by being among the k that moved most. What comes after the gate is computed
for these tokens only, and a buffer holds its results for all. Gates stand before the queries, keys and values, before
the output projection and before the MLP, after normalisation. Everything that a gate or buffer holds is an input and an
output of the graph; bound to one memory, ScatterND writes the chosen rows and nothing else.

The paper also keeps the products of attention and updates them in part. That is left out: on a CPU the update of single
columns of a T×T product costs more than the product from a fiftieth of the tokens on, and the partial update of the
second product is an approximation. So attention runs in full here, as one fused operator, and the rival is faster and
truer than with them.
"""

from __future__ import annotations

from onnx import TensorProto, helper

from engines.checkpoint import Checkpoint
from engines.export.graph import MICROSOFT, Graph
from engines.export.vision import TOWER, gelu

Shape = tuple[int, ...]


class _Graph(Graph):
    """With the two ways to choose tokens from norms (T,)."""

    def above(self, norms: str, limit: str) -> str:
        """Those above `limit` (), (n,)."""
        return self.op("Reshape", self.op("NonZero", self.op("Greater", norms, limit)), self.constant([-1]))

    def highest(self, norms: str, count: str) -> str:
        """The `count` (1,) highest, (count,)."""
        index = f"top_{len(self._nodes)}"
        outputs = [f"{index}_norms", index]
        self._nodes.append(helper.make_node("TopK", [norms, count], outputs, name=index, sorted=0))
        return index


class GatedTower:
    """The graph and the shapes of what it carries from frame to frame: patches (T, 3·p·p), limit and NAME_in of each
    state → features (T, D) and the states."""

    def __init__(self, checkpoint: Checkpoint, *, ranked: bool) -> None:
        self.graph = g = _Graph("eventful", checkpoint)
        self.states: dict[str, Shape] = {}
        self._config = config = checkpoint.config.vision_config
        side = config.image_size // config.patch_size
        self._tokens = side * side
        self._choose = g.highest if ranked else g.above
        pixels = 3 * config.patch_size**2
        patches = g.input("patches", (self._tokens, pixels))
        self._limit = g.input("limit", (1,) if ranked else (), TensorProto.INT64 if ranked else TensorProto.FLOAT)
        kernel = g.weight(f"{TOWER}.embeddings.patch_embedding.weight", (config.hidden_size, pixels))
        x = g.op("Gemm", patches, kernel, g.weight(f"{TOWER}.embeddings.patch_embedding.bias"), transB=1)
        x = g.op("Add", x, g.weight(f"{TOWER}.embeddings.position_embedding.weight"))
        for i in range(config.num_hidden_layers):
            x = self._block(x, i)
        g.layer_norm(x, f"{TOWER}.post_layernorm", config.layer_norm_eps, name="features")
        g.output("features", (self._tokens, config.hidden_size))

    def _block(self, x: str, i: int) -> str:
        g, config, layer = self.graph, self._config, f"{TOWER}.encoder.layers.{i}"
        normal = g.layer_norm(x, f"{layer}.layer_norm1", config.layer_norm_eps)
        attended = self._attend(*self._gate(normal, f"qkv_gate_{i}"), i)
        rows, at = self._gate(attended, f"out_gate_{i}")
        rows = g.linear(rows, f"{layer}.self_attn.out_proj")
        x = g.op("Add", x, self._buffer(f"out_{i}", at, rows, (self._tokens, config.hidden_size)))
        normal = g.layer_norm(x, f"{layer}.layer_norm2", config.layer_norm_eps)
        rows, at = self._gate(normal, f"mlp_gate_{i}")
        rows = gelu(g, g.linear(rows, f"{layer}.mlp.fc1"), config.hidden_act)
        rows = g.linear(rows, f"{layer}.mlp.fc2")
        return g.op("Add", x, self._buffer(f"mlp_{i}", at, rows, (self._tokens, config.hidden_size)))

    def _gate(self, values: str, name: str) -> tuple[str, str]:
        """The rows (n, D) of `values` (T, D) that are let through, and where they stand, (n, 1)."""
        g, shape = self.graph, (self._tokens, self._config.hidden_size)
        let_through = self._state(name, shape)
        norms = g.op("ReduceL2", g.op("Sub", values, let_through), axes=[-1], keepdims=0)
        chosen = self._choose(norms, self._limit)
        rows, at = g.op("Gather", values, chosen, axis=0), g.op("Unsqueeze", chosen, g.constant([1]))
        self._write(name, let_through, at, rows, shape)
        return rows, at

    def _attend(self, rows: str, at: str, i: int) -> str:
        """All tokens' attention (T, D), from buffers of queries, keys and values (T, D)."""
        g, held = self.graph, (self._tokens, self._config.hidden_size)
        parts = [
            self._buffer(
                f"{part}_{i}", at, g.linear(rows, f"{TOWER}.encoder.layers.{i}.self_attn.{part[0]}_proj"), held
            )
            for part in ("queries", "keys", "values")
        ]
        batched = [g.op("Unsqueeze", part, g.constant([0])) for part in parts]
        heads = self._config.num_attention_heads
        x = g.op("MultiHeadAttention", *batched, domain=MICROSOFT, num_heads=heads)
        return g.op("Reshape", x, g.constant([-1, self._config.hidden_size]))

    def _buffer(self, name: str, index: str, rows: str, shape: Shape) -> str:
        return self._write(name, self._state(name, shape), index, rows, shape)

    def _state(self, name: str, shape: Shape) -> str:
        self.states[name] = shape
        return self.graph.input(f"{name}_in", shape)

    def _write(self, name: str, held: str, index: str, rows: str, shape: Shape) -> str:
        value = self.graph.op("ScatterND", held, index, rows, name=name)
        self.graph.output(value, shape)
        return value
