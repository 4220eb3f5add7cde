"""The vision tower on ONNX Runtime, with the cache of one camera."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engines.onnx.runtime import OnnxRuntime, run
from engines.plan import EncodePlan, TokenMap
from engines.preprocess import Preprocessor
from engines.slots import Moves, Slots

PARTS = ("keys", "values")
_NO_CELLS = np.empty(0, np.int64)


class OnnxEncoder:
    """Implements `engines.plan.Encoder`; encoders made from one runtime share its weights.

    Keys and values (L, 2, T, D) live in one array that is bound once, as outputs of the full graph and as inputs *and*
    outputs of the selective one. ONNX Runtime's ScatterND skips its copy when both are the same memory, so a frame
    writes the dirty rows and nothing else.

    crossover: from so many tokens on, a plan is carried out in full, because that is no dearer and exact; all of them
    until costs have been measured (`engines.cost`).
    """

    def __init__(self, runtime: OnnxRuntime) -> None:
        manifest = runtime.model.manifest
        tokens, dim = manifest.tokens, manifest.dim
        self._manifest = manifest
        self.crossover = tokens
        self._pre = Preprocessor(manifest)
        self._full, self._select = runtime.session("encode_full_fused"), runtime.session("select_inplace")
        self._slots = Slots(manifest.grid)
        self._cache = np.zeros((manifest.layers, len(PARTS), tokens, dim), manifest.cache)
        self._features, self._new = np.zeros((tokens, dim), np.float32), np.empty((tokens, dim), np.float32)
        self._patches = np.empty((tokens, 3 * manifest.patch_size**2), np.float32)
        self._counting = np.arange(tokens)
        self._own_position = np.repeat(self._counting[:, None], 4, axis=1)
        self._valid = False
        self._full_binding, self._audit_binding = self._full.io_binding(), self._full.io_binding()
        self._select_binding = self._select.io_binding()
        for i, layer in enumerate(self._cache):
            for part, rows in zip(PARTS, layer, strict=True):
                place = ("cpu", 0, rows.dtype.type, (1, tokens, dim), rows.ctypes.data)
                self._full_binding.bind_output(f"{part}_{i}", *place)
                self._select_binding.bind_input(f"{part}_{i}_in", *place)
                self._select_binding.bind_output(f"{part}_{i}", *place)
        self._bind_features(self._full_binding, self._features)
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
        return int(self._cache.nbytes)

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        """See `Encoder.encode`. A plan made for a cache that is no longer valid is carried out in full."""
        encoded = plan.encoded if self._valid else None
        if encoded is None or encoded >= self.crossover:
            encoded = self._manifest.tokens
            self._encode_all(picture)
        else:
            moves = self._slots.apply(plan)
            self._valid = False
            self._carry(moves)
            if encoded:
                self._encode_some(picture, plan)
            self._valid = True
        return TokenMap(self._features, self._manifest.grid, encoded, self._slots.coarse)

    def encode_full(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (T, D), an array of their own; keys and values are not kept. Raises EngineFault."""
        features = np.empty_like(self._features)
        self._pre.patches(picture, out=self._patches)
        self._bind_features(self._audit_binding, features)
        run(self._full, self._audit_binding)
        return features

    def reset(self) -> None:
        self._valid = False

    def _encode_all(self, picture: NDArray[np.uint8]) -> None:
        self._valid = False
        self._slots.reset()
        self._pre.patches(picture, out=self._patches)
        run(self._full, self._full_binding)
        self._valid = True

    def _encode_some(self, picture: NDArray[np.uint8], plan: EncodePlan) -> None:
        """Fine tokens first, then coarse ones, whose four rows are written alike."""
        slots = _NO_CELLS if plan.dirty is None else plan.dirty
        fine = len(slots)
        position, source, n = self._own_position[slots], self._counting[:fine], fine
        self._pre.patches(picture, slots, self._patches)
        if plan.coarse is not None:
            n += len(plan.coarse)
            four = self._slots.four(plan.coarse)
            self._pre.coarse_patches(picture, plan.coarse, self._patches[fine:])
            slots = np.concatenate([slots, four.ravel()])
            position = np.concatenate([position, four])
            source = np.concatenate([source, np.repeat(self._counting[fine:n], 4)])
        binding, new = self._select_binding, self._new[:n]
        binding.bind_cpu_input("patches", self._patches[:n])
        binding.bind_cpu_input("position", position)
        binding.bind_cpu_input("index", self._slots.rows[slots])
        binding.bind_cpu_input("source", source)
        self._bind_features(binding, new)
        run(self._select, binding)
        self._features[slots] = new if plan.coarse is None else new[source]

    def _carry(self, moves: Moves) -> None:
        """What a plan takes over from other slots."""
        if len(moves.moved_to):
            self._features[moves.moved_to] = self._features[moves.moved_from]
        if len(moves.copied_to):
            self._cache[:, :, moves.copied_to] = self._cache[:, :, moves.copied_from]

    @staticmethod
    def _bind_features(binding: ort.IOBinding, rows: NDArray[np.float32]) -> None:
        binding.bind_output("features", "cpu", 0, np.float32, rows.shape, rows.ctypes.data)
