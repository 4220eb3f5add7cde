"""The vision tower on TensorRT, with the cache of one camera on the GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config.errors import EngineFault
from engines.plan import EncodePlan, TokenMap
from engines.preprocess import OnDevice, Preprocessor, on_device
from engines.slots import Moves, Slots
from engines.tensorrt.execution import Execution
from engines.tensorrt.memory import aligned
from engines.tensorrt.packing import Fields, Packed, size_of
from engines.tensorrt.runtime import TensorRtRuntime

PARTS = ("keys", "values")
_NONE = np.empty(0, np.int64)
_FLOAT, _INDEX = np.dtype(np.float32), np.dtype(np.int32)
_COARSE = math.log(4)


class _Planes(NamedTuple):
    """Keys and values of all layers on the GPU, (L, 2, H, rows, dh). part: bytes from one tensor (H, rows, dh) to the
    next; TensorRT wants each to begin at a multiple of 256, which may leave gaps. whole: there are none."""

    address: int
    rows: int
    part: int
    whole: bool


@dataclass(frozen=True)
class _Rows:
    """The selective engine at one row count: its context, its inputs, and where its new rows lie."""

    count: int
    execution: Execution
    packed: Packed
    new: _Planes


class TensorRtEncoder:
    """Implements `engines.plan.Encoder`; encoders made from one runtime share its engines.

    Keys and values (L, 2, H, T, dh) stay on the GPU. A frame sends what is dirty in one copy, runs the selective engine
    at the next larger row count, has a kernel write the new rows into the cache, and reads the new features back: one
    wait, and no copy of the cache. Patches of a picture that was made on the GPU are gathered there, right into the
    engine's input; those of any other are sent along. A frame with nothing to encode doesn't touch the GPU.

    refresh: rows that only fill up a count are spent on the tokens that were encoded longest ago; without, they are
    masked, and nobody sees them. graphs: replay recorded CUDA graphs, where that works. crossover: as in `Encoder`;
    more tokens than the largest row count are encoded in full as well. One encoder may move between threads, but one at
    a time may use it.
    """

    def __init__(self, runtime: TensorRtRuntime, *, refresh: bool = True, graphs: bool = True) -> None:
        manifest = runtime.model.manifest
        self._runtime, self._gpu, self._manifest = runtime, runtime.gpu, manifest
        self._refresh, self._graphs = refresh, graphs
        self.crossover = manifest.tokens
        self._pre, self.slots = Preprocessor(manifest), Slots(manifest.grid)
        self._features = np.zeros((manifest.tokens, manifest.dim), np.float32)
        self._encoded_at = np.zeros(manifest.tokens, np.int64)
        self._now = 0
        self._valid = False
        self._blocks: list[tuple[str, Any, int]] = []
        self._audit: Execution | None = None
        self._executions: list[tuple[Execution, int]] = []
        self._row_bytes = manifest.dim // manifest.heads * runtime.precision.cache_bytes
        self._tensors = manifest.layers * len(PARTS)
        with self._gpu.active():
            try:
                self._build()
            except BaseException:
                self._release()
                raise

    @property
    def grid(self) -> tuple[int, int]:
        return self._manifest.grid

    @property
    def dim(self) -> int:
        return self._manifest.dim

    @property
    def patch_size(self) -> int:
        return self._manifest.patch_size

    @property
    def cache_bytes(self) -> int:
        """Keys and values of all layers on the GPU."""
        return self._bytes_of(self._manifest.tokens)

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        """See `Encoder.encode`. A plan made for a cache that is no longer valid is carried out in full."""
        if not self._selects(plan):
            return self._encode_all(picture)
        moves = self.slots.apply(plan)
        self._valid = False
        self._now += 1
        if plan.fetch is not None:
            self._encoded_at = self._encoded_at[plan.fetch]
        if len(moves.moved_to):
            self._features[moves.moved_to] = self._features[moves.moved_from]
        encoded = plan.encoded or 0
        if encoded or len(moves.copied_to):
            with self._gpu.active(), self._complete():
                encoded = self._encode_some(picture, plan, moves)
        return self._done(encoded)

    def encode_full(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (T, D), an array of their own; keys and values are not kept. Raises EngineFault."""
        with self._gpu.active(), self._complete():
            if self._audit is None:
                self._audit = self._full_execution(self._kept("cache", self._manifest.tokens))
            return np.array(self._run_full(self._audit, picture))

    def reset(self) -> None:
        self._valid = False

    def close(self) -> None:
        """Give the memory on the GPU back, once it is done with its work. What a GPU that has failed doesn't take back
        is lost with its context. The encoder can't be used afterwards."""
        with self._gpu.active():
            with suppress(EngineFault):
                self._stream.synchronize()
            self._release()

    def _release(self) -> None:
        while self._executions:
            execution, own = self._executions.pop()
            with suppress(EngineFault):
                execution.close()
            self._runtime.memory.count("scratch", -own, 0)
        while self._blocks:
            with suppress(EngineFault):
                self._runtime.memory.free(*self._blocks.pop())

    def _build(self) -> None:
        manifest, tokens = self._manifest, self._manifest.tokens
        pixels = 3 * manifest.patch_size**2
        self._stream = self._gpu.stream()
        engines, counts = self._runtime.engines, self._runtime.rows
        full, select = engines["encode_full"], engines["select_rows"]
        needs = [full.scratch_bytes(0), *(select.scratch_bytes(i) for i in range(len(counts)))]
        self._scratch_bytes = aligned(max(needs))
        self._scratch = self._allocate("scratch", self._scratch_bytes) if self._scratch_bytes else 0
        self._cache = self._kept("cache", tokens)
        new = self._allocate("rows", max(map(self._bytes_of, counts)))
        # Zeros are indices of a first row as well as rows to write.
        one = manifest.heads * self._row_bytes
        zeros = self._allocate("rows", max(4 * counts[-1] * _INDEX.itemsize, self._tensors * one))
        self._zeros = _Planes(zeros, 1, one, True)
        fields = {count: self._fields(count, select.dtype("position"), select.dtype("patches")) for count in counts}
        whole: Fields = {"patches": ((tokens, pixels), full.dtype("patches"))}
        inputs = max(size_of(whole), *map(size_of, fields.values()))
        self._inputs, self._staged = self._allocate("inputs", inputs), self._gpu.staging(inputs)
        outputs = tokens * manifest.dim * _FLOAT.itemsize
        self._outputs, self._read = self._allocate("outputs", outputs), self._gpu.staging(outputs).view(_FLOAT)
        self._pixels = Packed(whole, self._staged, self._inputs)
        self._every = self._allocate("inputs", tokens * _INDEX.itemsize)
        every = self._staged[: tokens * _INDEX.itemsize]
        every.view(_INDEX)[:] = np.arange(tokens)
        self._gpu.upload(self._every, every, self._stream)
        self._stream.synchronize()
        self._full = self._full_execution(self._cache)
        self._rows = [
            self._rows_execution(profile, count, Packed(fields[count], self._staged, self._inputs), new)
            for profile, count in enumerate(counts)
        ]

    def _allocate(self, part: str, nbytes: int) -> int:
        block = self._runtime.memory.allocate(part, nbytes)
        self._blocks.append((part, block, nbytes))
        return int(block)

    def _fields(self, count: int, position: np.dtype[Any], pixel: np.dtype[Any]) -> Fields:
        """Inputs at one row count; rows and source may name four rows a token, copies any number of rows."""
        tokens = self._manifest.tokens
        return {
            "copied_to": ((tokens,), _INDEX),
            "copied_from": ((tokens,), _INDEX),
            "rows": ((4 * count,), _INDEX),
            "source": ((4 * count,), _INDEX),
            "cache_bias": ((tokens,), _FLOAT),
            "row_bias": ((count,), _FLOAT),
            "position": ((count, 4), position),
            "slots": ((count,), _INDEX),
            "patches": ((count, 3 * self._manifest.patch_size**2), pixel),
        }

    def _bytes_of(self, rows: int) -> int:
        """Bytes of keys and values of so many tokens."""
        return self._tensors * self._planes(0, rows).part

    def _planes(self, address: int, rows: int) -> _Planes:
        dense = self._manifest.heads * rows * self._row_bytes
        return _Planes(address, rows, aligned(dense), aligned(dense) == dense)

    def _kept(self, part: str, rows: int) -> _Planes:
        return self._planes(self._allocate(part, self._bytes_of(rows)), rows)

    def _full_execution(self, cache: _Planes) -> Execution:
        rows = self._places(cache, "")
        addresses = {"patches": self._pixels.addresses["patches"], "features": self._outputs, **rows}
        return self._execution("encode_full", 0, addresses)

    def _rows_execution(self, profile: int, count: int, packed: Packed, new: int) -> _Rows:
        rows = self._planes(new, count)
        inputs = {name: packed.addresses[name] for name in ("patches", "position", "row_bias", "cache_bias")}
        kept = self._places(self._cache, "_in") | self._places(rows, "")
        addresses = {**inputs, **kept, "features": self._outputs}
        return _Rows(count, self._execution("select_rows", profile, addresses), packed, rows)

    def _execution(self, graph: str, profile: int, addresses: dict[str, int]) -> Execution:
        engine = self._runtime.engines[graph]
        execution = engine.context(profile, self._stream, scratch=self._scratch, scratch_bytes=self._scratch_bytes)
        own = engine.own_bytes()
        self._runtime.memory.count("scratch", own, own)
        self._executions.append((execution, own))
        execution.bind(addresses)
        self._graphs = self._graphs and self._runtime.recorded(execution)
        return execution

    def _places(self, planes: _Planes, suffix: str) -> dict[str, int]:
        """Address of each tensor of keys and values."""
        names = [f"{part}_{i}{suffix}" for i in range(self._manifest.layers) for part in PARTS]
        return {name: planes.address + number * planes.part for number, name in enumerate(names)}

    def _selects(self, plan: EncodePlan) -> bool:
        encoded = plan.encoded
        return self._valid and encoded is not None and encoded < self.crossover and encoded <= self._rows[-1].count

    def _encode_all(self, picture: NDArray[np.uint8]) -> TokenMap:
        self._valid = False
        self.slots.reset()
        self._now += 1
        with self._gpu.active(), self._complete():
            self._features[:] = self._run_full(self._full, picture)
        self._encoded_at[:] = self._now
        return self._done(self._manifest.tokens)

    def _run_full(self, execution: Execution, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (T, D) of a full encode, valid until the next run."""
        made = self._on_gpu(picture)
        if made is None:
            self._pixels.views["patches"][:] = self._pre.patches(picture)
            self._gpu.upload(self._inputs, self._pixels.used, self._stream)
        else:
            self._gather(made, self._every, self._manifest.tokens, 0, self._pixels)
        execution.run()
        return self._features_back(self._manifest.tokens)

    def _encode_some(self, picture: NDArray[np.uint8], plan: EncodePlan, moves: Moves) -> int:
        """Copy rows that two slots want, encode what is dirty, write its rows. Returns how many tokens were encoded."""
        fine, cells = (_NONE if slots is None else slots for slots in (plan.dirty, plan.coarse))
        wanted = len(fine) + len(cells)
        at_count = next(rows for rows in self._rows if rows.count >= wanted)
        if self._refresh and wanted:
            fine = np.concatenate([fine, self._oldest(fine, cells, at_count.count - wanted)])
        n = len(fine) + len(cells)
        four = self.slots.four(cells)
        slots = np.concatenate([fine, four.ravel()])
        source = np.concatenate([np.arange(len(fine)), np.repeat(np.arange(len(fine), n), 4)])
        views, replaced, copied = at_count.packed.views, self.slots.rows[slots], len(moves.copied_to)
        views["copied_to"][:copied], views["copied_from"][:copied] = moves.copied_to, moves.copied_from
        views["rows"][: len(slots)], views["source"][: len(slots)] = replaced, source
        views["cache_bias"][:] = 0
        views["cache_bias"][replaced] = -np.inf
        views["row_bias"][:] = -np.inf
        views["row_bias"][: len(fine)], views["row_bias"][len(fine) : n] = 0, _COARSE
        views["position"][:] = 0
        views["position"][: len(fine)], views["position"][len(fine) : n] = fine[:, None], four
        views["slots"][:] = -1
        views["slots"][: len(fine)], views["slots"][len(fine) : n] = fine, cells
        at, made = at_count.packed.addresses, self._on_gpu(picture)
        if made is None:
            views["patches"][n:] = 0
            views["patches"][: len(fine)] = self._pre.patches(picture, fine)
            views["patches"][len(fine) : n] = self._pre.coarse_patches(picture, cells)
            self._gpu.upload(self._inputs, at_count.packed.used, self._stream)
        else:
            self._gpu.upload(self._inputs, at_count.packed.but_last, self._stream)
            if n:
                self._gather(made, at["slots"], len(fine), at_count.count - len(fine), at_count.packed)
        if copied:
            self._scatter(self._cache, at["copied_to"], at["copied_from"], copied)
        if not n:
            self._stream.synchronize()  # the staging buffer is wanted again
            return 0
        # What is replaced may hold anything, even NaN, and −∞ added to NaN is NaN.
        self._scatter(self._zeros, at["rows"], self._zeros.address, len(slots))
        at_count.execution.run()
        self._scatter(at_count.new, at["rows"], at["source"], len(slots))
        self._features[slots] = self._features_back(n)[source]
        self._encoded_at[slots] = self._now
        return n

    def _on_gpu(self, picture: NDArray[np.uint8]) -> OnDevice | None:
        made = on_device(picture)
        return made if made is not None and made.there else None

    def _gather(self, made: OnDevice, slots: int, fine: int, coarse: int, packed: Packed) -> None:
        """Patches of a picture that was made on the GPU to the input `patches`, of the type that the engine reads."""
        self._gpu.gather(
            made,
            slots,
            fine,
            coarse,
            packed.addresses["patches"],
            self._stream,
            patch=self._manifest.patch_size,
            cols=self._manifest.grid[1],
            scale=self._pre.scale,
            shift=self._pre.shift,
            half=packed.views["patches"].dtype == np.float16,
        )

    def _scatter(self, new: _Planes, index: int, source: int, n: int) -> None:
        """Rows `source` of `new` into rows `index` of the cache, in all layers: in one launch where nothing lies
        between their tensors."""
        whole = self._cache.whole and new.whole
        for i in range(1 if whole else self._tensors):
            self._gpu.scatter_rows(
                new.address + i * new.part,
                self._cache.address + i * self._cache.part,
                index,
                source,
                n,
                self._stream,
                planes=self._manifest.heads * (self._tensors if whole else 1),
                row_bytes=self._row_bytes,
                new_rows=new.rows,
                cache_rows=self._cache.rows,
            )

    def _features_back(self, count: int) -> NDArray[np.float32]:
        """Features (count, D) of the last run, valid until the next: here the host waits for the GPU."""
        read = self._read[: count * self._manifest.dim]
        self._gpu.download(read, self._outputs, self._stream)
        self._stream.synchronize()
        return read.reshape(count, self._manifest.dim)

    def _oldest(self, fine: NDArray[np.int64], cells: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Up to `count` slots that were encoded longest ago, those of lower numbers first; none that is encoded anyway
        or part of a coarse cell."""
        free = ~self.slots.coarse
        free[fine] = False
        free[self.slots.four(cells)] = False
        slots = np.flatnonzero(free)
        return slots[np.argsort(self._encoded_at[slots], kind="stable")[:count]]

    def _done(self, encoded: int) -> TokenMap:
        self._valid = True
        return TokenMap(self._features, self._manifest.grid, encoded, self.slots.coarse)

    @contextmanager
    def _complete(self) -> Iterator[None]:
        """When something fails midway, wait for what was queued before: it reads buffers that are written next."""
        try:
            yield
        except EngineFault:
            with suppress(EngineFault):  # the first fault is the one to tell
                self._stream.synchronize()
            raise
