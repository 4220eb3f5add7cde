"""The language model's place on the GPU: one cache, a context for each row count, and whose text the cache holds.

One engine, `decode_rows`: its smallest profile is the step of an answer, the others read questions and pictures. New
rows come out of it alone, and our kernel writes them into the cache. Every shape and address is fixed, so the work of a
context is one CUDA graph.
"""

from __future__ import annotations

import math
import weakref
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import EngineFault
from engines.onnx.language import PARTS
from engines.tensorrt.execution import Execution
from engines.tensorrt.memory import ALIGNED, aligned
from engines.tensorrt.packing import Fields, Packed, size_of
from engines.tensorrt.recipe import ANSWERS, Precision
from engines.tensorrt.runtime import TensorRtRuntime

Floats = NDArray[np.float32]
Rows = NDArray[Any]
_FLOAT, _INDEX = np.dtype(np.float32), np.dtype(np.int32)
_KEPT: dict[Precision, np.dtype[Any]] = {
    Precision.FP32: np.dtype(np.float32),
    Precision.FP16: np.dtype(np.float16),
    Precision.BF16: np.dtype(np.uint16),
}
"""NumPy has no bfloat16: its bits are the upper half of a float32's."""


@dataclass(frozen=True)
class _Context:
    """The engine at one row count."""

    count: int
    execution: Execution
    packed: Packed


class Seat:
    """Made once for a runtime of the purpose DECODER. Safe to use from several threads, which take turns. Methods raise
    EngineFault. slots: of the cache; most: rows that one run reads; kept: type of keys and values."""

    def __init__(self, runtime: TensorRtRuntime, *, graphs: bool) -> None:
        graph = runtime.model.manifest.graphs["decode_rows"]
        self._runtime, self._gpu, self._graphs = runtime, runtime.gpu, graphs
        self.slots, self.most, self.kept = runtime.slots, runtime.rows[-1], _KEPT[runtime.precision]
        self._layers = sum(name.startswith("keys_") for name in graph.inputs)
        heads, _, size = graph.inputs["keys_0_in"]
        self._heads, self._size = int(heads), int(size)
        self._width, self._vocabulary = int(graph.inputs["embeds"][1]), int(graph.outputs["logits"][1])
        self._lock = Lock()
        self._owner: weakref.ref[object] | None = None
        self._blocks: list[tuple[str, Any, int]] = []
        self._contexts: list[_Context] = []
        self._own = 0
        with self._gpu.active():
            try:
                self._build()
            except BaseException:
                self._release()
                raise

    def shape(self, rows: int) -> tuple[int, int, int, int, int]:
        """Of keys and values of so many rows, (L, 2, Hkv, rows, dh)."""
        return self._layers, len(PARTS), self._heads, rows, self._size

    def run(
        self, owner: object, past: Rows, embeds: Floats, seen: NDArray[np.bool_], asked: list[int], new: Rows | None
    ) -> Floats:
        """Logits (a, vocab) after the rows `asked` of embeds (n, D), which see all of `past` (L, 2, Hkv, length, dh)
        and what `seen` (n, n) lets them see of each other. new (L, 2, Hkv, n, dh) gets their keys and values, and the
        cache has them from then on; None: they are not kept. owner: the text, which nobody else may change."""
        with self._lock, self._gpu.active():
            if not self._contexts:
                raise EngineFault("the language model on the GPU has been closed")
            if self._owner is None or self._owner() is not owner:
                self._load(past)
                self._owner = weakref.ref(owner)
            n, length = len(embeds), past.shape[3]
            at = next(context for context in self._contexts if context.count >= n)
            self._fill(at, embeds, seen, length, asked)
            self._gpu.upload(self._inputs, at.packed.used, self._stream)
            at.execution.run()
            logits, rows = self._read[: len(asked) * self._vocabulary], self._read_rows[: self._bytes(at.count)]
            if asked:
                self._gpu.download(logits, self._outputs, self._stream)
            if new is not None:
                self._keep(at, n)
                self._gpu.download(rows, self._new, self._stream)
            self._stream.synchronize()
            if new is not None:
                tensors = rows.view(self.kept).reshape(self._layers * len(PARTS), -1)
                dense = tensors[:, : self._heads * at.count * self._size]
                new[:] = dense.reshape(self.shape(at.count))[:, :, :, :n]
            return np.array(logits.reshape(-1, self._vocabulary))

    def forget(self) -> None:
        """After a failure: what the cache holds is not to be used, and nothing is under way any more."""
        with self._lock, self._gpu.active(), suppress(EngineFault):
            self._owner = None
            self._stream.synchronize()

    def close(self) -> None:
        """What a GPU that has failed doesn't take back is lost with its context."""
        with self._lock, self._gpu.active():
            with suppress(EngineFault):
                self._stream.synchronize()
            self._release()

    def _load(self, past: Rows) -> None:
        """A text in the place of what was there: all slots, so that none holds what a failure left."""
        self._owner = None
        staged = self._staged_cache.view(self.kept).reshape(self.shape(self.slots))
        staged[:] = 0
        staged[:, :, :, : past.shape[3]] = past
        self._gpu.upload(self._cache, self._staged_cache, self._stream)

    def _fill(self, at: _Context, embeds: Floats, seen: NDArray[np.bool_], length: int, asked: list[int]) -> None:
        views, n, slots = at.packed.views, len(embeds), self.slots
        views["embeds"][:n], views["embeds"][n:] = embeds, 0
        views["position"][:n], views["position"][n:] = length + seen.sum(axis=1) - 1, 0
        mask, filler = views["mask"], np.arange(n, at.count)
        mask[:] = -np.inf
        mask[:n, :length] = 0
        mask[:n, slots : slots + n][seen] = 0
        mask[filler, slots + filler] = 0  # a row that sees nothing at all would be NaN
        views["answer"][:] = 0
        views["answer"][: len(asked)] = asked
        heads, rows = np.arange(self._heads)[:, None], np.arange(n)
        views["index"][: self._heads * n] = (heads * slots + length + rows).ravel()
        views["source"][: self._heads * n] = (heads * at.count + rows).ravel()

    def _keep(self, at: _Context, n: int) -> None:
        """New rows into the cache in one launch. A plane is a tensor with the rows of all its heads, because between
        tensors of few rows there may be a gap, but none between heads."""
        self._gpu.scatter_rows(
            self._new,
            self._cache,
            at.packed.addresses["index"],
            at.packed.addresses["source"],
            self._heads * n,
            self._stream,
            planes=self._layers * len(PARTS),
            row_bytes=self._row_bytes,
            new_rows=self._part(at.count) // self._row_bytes,
            cache_rows=self._part(self.slots) // self._row_bytes,
        )

    @property
    def _row_bytes(self) -> int:
        return self._size * self.kept.itemsize

    def _part(self, rows: int) -> int:
        """Bytes from one tensor (Hkv, rows, dh) to the next: whole rows, and where TensorRT wants a tensor to begin."""
        step = math.lcm(ALIGNED, self._row_bytes)
        return -(-self._heads * rows * self._row_bytes // step) * step

    def _bytes(self, rows: int) -> int:
        return self._layers * len(PARTS) * self._part(rows)

    def _build(self) -> None:
        counts, engine = self._runtime.rows, self._runtime.engines["decode_rows"]
        self._stream = self._gpu.stream()
        self._scratch_bytes = aligned(max(engine.scratch_bytes(profile) for profile in range(len(counts))))
        self._scratch = self._allocate("scratch", self._scratch_bytes) if self._scratch_bytes else 0
        if self._part(self.slots) != self._heads * self.slots * self._row_bytes:
            raise EngineFault(f"heads of {self._size} numbers can't lie side by side in a cache of {self.slots} slots")
        self._cache, self._staged_cache = self._both("cache", self._bytes(self.slots))
        self._new, self._read_rows = self._both("rows", self._bytes(counts[-1]))
        fields = [self._fields(count, engine.dtype("position")) for count in counts]
        self._inputs, staged = self._both("inputs", max(map(size_of, fields)))
        self._outputs, read = self._both("outputs", min(ANSWERS, counts[-1]) * self._vocabulary * _FLOAT.itemsize)
        self._read = read.view(_FLOAT)
        for profile, count in enumerate(counts):
            packed = Packed(fields[profile], staged, self._inputs)
            self._contexts.append(_Context(count, self._execution(profile, count, packed), packed))

    def _execution(self, profile: int, count: int, packed: Packed) -> Execution:
        engine = self._runtime.engines["decode_rows"]
        execution = engine.context(profile, self._stream, scratch=self._scratch, scratch_bytes=self._scratch_bytes)
        self._own += engine.own_bytes()
        self._runtime.memory.count("scratch", engine.own_bytes(), engine.own_bytes())
        addresses = {name: packed.addresses[name] for name in ("embeds", "position", "mask", "answer")}
        for number in range(self._layers * len(PARTS)):
            name = f"{PARTS[number % 2]}_{number // 2}"
            addresses[f"{name}_in"] = self._cache + number * self._part(self.slots)
            addresses[name] = self._new + number * self._part(count)
        execution.bind({**addresses, "logits": self._outputs})
        self._graphs = self._graphs and self._runtime.recorded(execution)
        return execution

    def _fields(self, count: int, index: np.dtype[Any]) -> Fields:
        return {
            "index": ((self._heads * count,), _INDEX),
            "source": ((self._heads * count,), _INDEX),
            "position": ((count,), index),
            "answer": ((min(count, ANSWERS),), index),
            "mask": ((count, self.slots + count), _FLOAT),
            "embeds": ((count, self._width), _FLOAT),
        }

    def _both(self, part: str, nbytes: int) -> tuple[int, NDArray[Any]]:
        """Memory on the GPU, and as much page-locked."""
        return self._allocate(part, nbytes), self._gpu.staging(nbytes)

    def _allocate(self, part: str, nbytes: int) -> int:
        block = self._runtime.memory.allocate(part, nbytes)
        self._blocks.append((part, block, nbytes))
        return int(block)

    def _release(self) -> None:
        while self._contexts:
            with suppress(EngineFault):
                self._contexts.pop().execution.close()
        self._runtime.memory.count("scratch", -self._own, 0)
        self._own = 0
        while self._blocks:
            with suppress(EngineFault):
                self._runtime.memory.free(*self._blocks.pop())


def lowered(rows: Floats, kept: np.dtype[Any]) -> Rows:
    """float32 as the cache keeps it."""
    if kept != np.uint16:
        return rows.astype(kept)
    bits = np.ascontiguousarray(rows, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to the nearest, halves to even


def raised(rows: Rows) -> Floats:
    """The same back, in memory of its own."""
    if rows.dtype != np.uint16:
        return np.array(rows, np.float32)
    return np.asarray((rows.astype(np.uint32) << 16).view(np.float32))
