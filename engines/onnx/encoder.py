"""The vision tower on ONNX Runtime, with the cache of one camera."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engines.onnx.runtime import OnnxRuntime, run
from engines.plan import EncodePlan, TokenMap
from engines.preprocess import Preprocessor
from engines.slots import Slots

PARTS = ("keys", "values")
_NONE = np.empty(0, np.int64)


class Work(NamedTuple):
    """One selective encode: how many tokens, their positions (n, 4); the slots (r,) that get their features, the cache
    rows (r,) of these, and the tokens (r,) that they are of."""

    tokens: int
    position: NDArray[np.int64]
    slots: NDArray[np.int64]
    rows: NDArray[np.int64]
    source: NDArray[np.int64]


class OnnxEncoder:
    """Implements `engines.plan.Encoder`; encoders made from one runtime share its weights.

    Keys and values (L, 2, H, T, dh) live in one array. A full encode has it bound as outputs of its graph; dirty tokens
    go through the tower in C, which writes their rows and nothing else. Where there is none, they go through the
    selective graph, with the array bound as inputs *and* outputs: ONNX Runtime's ScatterND skips its copy then.

    crossover: from so many tokens on, a plan is carried out in full, because that is no dearer and exact; all of them
    until costs have been measured (`engines.cost`).
    """

    def __init__(self, runtime: OnnxRuntime) -> None:
        manifest = runtime.model.manifest
        tokens, dim = manifest.tokens, manifest.dim
        self._manifest = manifest
        self.crossover = tokens
        self._pre = Preprocessor(manifest)
        self._full, tower = runtime.session("encode_full_fused"), runtime.tower
        self.slots = Slots(manifest.grid)
        self.cache = np.zeros((manifest.layers, len(PARTS), *manifest.cache_layout[2:]), manifest.cache)
        self._features, self._new = np.zeros((tokens, dim), np.float32), np.empty((tokens, dim), np.float32)
        self._patches = np.empty((tokens, 3 * manifest.patch_size**2), np.float32)
        self._counting = np.arange(tokens)
        self._own_position = np.repeat(self._counting[:, None], 4, axis=1)
        self._valid = False
        self._full_binding, self._audit_binding = self._full.io_binding(), self._full.io_binding()
        for part, place in places(self.cache):
            self._full_binding.bind_output(part, *place)
        self._select = _SelectGraph(runtime, self.cache) if isinstance(tower, str) else tower.encode
        bind_features(self._full_binding, self._features)
        self._full_binding.bind_cpu_input("patches", self._patches)
        self._audit_binding.bind_cpu_input("patches", self._patches)

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
        """Keys and values of all layers: 2 · T · D each."""
        return int(self.cache.nbytes)

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        """See `Encoder.encode`. A plan made for a cache that is no longer valid is carried out in full."""
        if not self.selects(plan):
            return self._encode_all(picture)
        if plan.fetch is None and not plan.encoded:
            return self.done(0)
        self.begin(plan)
        work = self.gather(picture, plan, self._patches)
        if work.tokens:
            new = self._new[: work.tokens]
            self._select(self._patches[: work.tokens], work.position, work.rows, work.source, self.cache, new)
            self.take(work, new)
        return self.done(work.tokens)

    def encode_full(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (T, D), an array of their own; keys and values are not kept. Raises EngineFault."""
        features = np.empty_like(self._features)
        self._pre.patches(picture, out=self._patches)
        bind_features(self._audit_binding, features)
        run(self._full, self._audit_binding)
        return features

    def reset(self) -> None:
        self._valid = False

    def close(self) -> None:
        """Nothing is held but memory of the host."""

    # What `engines.onnx.pair` shares.

    def selects(self, plan: EncodePlan) -> bool:
        """Is the plan one for the selective graph, or for none at all?"""
        return self._valid and plan.encoded is not None and plan.encoded < self.crossover

    def begin(self, plan: EncodePlan) -> None:
        """Take over what the plan fetches. Until `done` the cache counts as invalid."""
        moves = self.slots.apply(plan)
        self._valid = False
        if len(moves.moved_to):
            self._features[moves.moved_to] = self._features[moves.moved_from]
        if len(moves.copied_to):
            self.cache[:, :, :, moves.copied_to] = self.cache[:, :, :, moves.copied_from]

    def gather(self, picture: NDArray[np.uint8], plan: EncodePlan, patches: NDArray[np.float32]) -> Work:
        """What the graph needs. Fine tokens come first, then coarse ones, whose four rows are written alike."""
        slots = _NONE if plan.dirty is None else plan.dirty
        fine = tokens = len(slots)
        position, source = self._own_position[slots], self._counting[:fine]
        self._pre.patches(picture, slots, patches)
        if plan.coarse is not None:
            tokens += len(plan.coarse)
            four = self.slots.four(plan.coarse)
            self._pre.coarse_patches(picture, plan.coarse, patches[fine:])
            slots = np.concatenate([slots, four.ravel()])
            position = np.concatenate([position, four])
            source = np.concatenate([source, np.repeat(self._counting[fine:tokens], 4)])
        return Work(tokens, position, slots, self.slots.rows[slots], source)

    def take(self, work: Work, new: NDArray[np.float32]) -> None:
        """Features (n, D) of the encoded tokens."""
        self._features[work.slots] = new if len(work.slots) == work.tokens else new[work.source]

    def done(self, encoded: int) -> TokenMap:
        self._valid = True
        return TokenMap(self._features, self._manifest.grid, encoded, self.slots.coarse)

    def _encode_all(self, picture: NDArray[np.uint8]) -> TokenMap:
        self._valid = False
        self.slots.reset()
        self._pre.patches(picture, out=self._patches)
        run(self._full, self._full_binding)
        return self.done(self._manifest.tokens)


class _SelectGraph:
    """The graph `select_inplace` with the cache of one camera, called as a `NativeTower` is."""

    def __init__(self, runtime: OnnxRuntime, cache: NDArray[np.generic]) -> None:
        self._session = runtime.session("select_inplace")
        self._binding = self._session.io_binding()
        for part, place in places(cache):
            self._binding.bind_input(f"{part}_in", *place)
            self._binding.bind_output(part, *place)

    def __call__(
        self,
        patches: NDArray[np.float32],
        position: NDArray[np.int64],
        index: NDArray[np.int64],
        source: NDArray[np.int64],
        _cache: NDArray[np.generic],
        features: NDArray[np.float32],
    ) -> None:
        binding = self._binding
        for name, value in (("patches", patches), ("position", position), ("index", index), ("source", source)):
            binding.bind_cpu_input(name, value)
        bind_features(binding, features)
        run(self._session, binding)


def places(cache: NDArray[np.generic]) -> Iterator[tuple[str, tuple[str, int, type, tuple[int, ...], int]]]:
    """The name of each part of a cache (L, 2, H, T, dh) without ends, and what a binding must know of it."""
    for i, layer in enumerate(cache):
        for part, rows in zip(PARTS, layer, strict=True):
            yield f"{part}_{i}", ("cpu", 0, rows.dtype.type, (1, *rows.shape), rows.ctypes.data)


def bind_features(binding: ort.IOBinding, rows: NDArray[np.float32]) -> None:
    binding.bind_output("features", "cpu", 0, np.float32, rows.shape, rows.ctypes.data)
