"""What engines are built for: the vision tower, or the language model. All else about building them is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.manifest import Manifest
from engines.tensorrt.building import Shapes
from engines.tensorrt.recipe import ANSWERS, READ_AT_ONCE, buckets, text_slots

if TYPE_CHECKING:
    from engines.tensorrt.runtime import TensorRtRuntime
    from engines.verification import Check


@dataclass(frozen=True, slots=True)
class Purpose:
    """name: in words. graphs: of the model. rows: counts for which there is a profile each, ascending. slots: of the
    cache, where the graph leaves that open, else 0. sizes: rows, slots → what the letters in a graph's shapes stand
    for. compare: with ONNX Runtime, before first use."""

    name: str
    graphs: tuple[str, ...]
    rows: Callable[[Manifest], tuple[int, ...]]
    slots: Callable[[Manifest], int]
    sizes: Callable[[int, int], Mapping[str, int]]
    compare: Callable[[TensorRtRuntime], list[Check]]

    def missing(self, manifest: Manifest) -> list[str]:
        """Graphs that a model lacks, because an older release wrote it."""
        return [graph for graph in self.graphs if graph not in manifest.graphs]

    def varies(self, manifest: Manifest, graph: str) -> bool:
        return any(isinstance(size, str) for shape in manifest.graphs[graph].inputs.values() for size in shape)

    def profiles(self, manifest: Manifest, graph: str) -> tuple[Shapes, ...]:
        """The shapes of every profile; none for a graph of fixed shapes."""
        if not self.varies(manifest, graph):
            return ()
        slots, inputs = self.slots(manifest), manifest.graphs[graph].inputs
        varying = {name: shape for name, shape in inputs.items() if any(isinstance(size, str) for size in shape)}
        found = []
        for rows in self.rows(manifest):
            sizes = self.sizes(rows, slots)
            found.append(
                {
                    name: tuple(sizes[size] if isinstance(size, str) else size for size in shape)
                    for name, shape in varying.items()
                }
            )
        return tuple(found)


def _compare_tower(runtime: TensorRtRuntime) -> list[Check]:
    from engines.tensorrt.verification import compare

    return compare(runtime)


def _compare_language(runtime: TensorRtRuntime) -> list[Check]:
    from engines.tensorrt.verification import compare_language

    return compare_language(runtime)


ENCODER = Purpose(
    "encoder",
    ("encode_full", "select_rows"),
    buckets,
    lambda manifest: 0,
    lambda rows, slots: {"n": rows},
    _compare_tower,
)
DECODER = Purpose(
    "decoder",
    ("decode_rows",),
    lambda manifest: READ_AT_ONCE,
    text_slots,
    lambda rows, slots: {"s": rows, "a": min(rows, ANSWERS), "c": slots, "t": slots + rows},
    _compare_language,
)
