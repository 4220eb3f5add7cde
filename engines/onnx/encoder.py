"""The vision tower on ONNX Runtime, with the cache of one camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.onnx.runtime import OnnxRuntime, run
from engines.plan import EncodePlan, TokenMap
from engines.preprocess import Preprocessor
from engines.slots import Moves, Slots

PARTS = ("keys", "values")
_NO_CELLS = np.empty(0, np.int64)


class OnnxEncoder:
    """Implements `engines.plan.Encoder`; encoders made from one runtime share its weights.

    Keys and values (L, 2, H, T, dh) live in one array that is bound once, as outputs of the full graph and as inputs
    *and* outputs of the selective one. ONNX Runtime's ScatterND skips its copy when both are the same memory, so a
    frame writes the dirty rows and nothing else.

    crossover: from so many tokens on, a plan is carried out in full, because that is no dearer and exact; all of them
    until costs have been measured (`engines.cost`).
    """

    def __init__(self, runtime: OnnxRuntime) -> None:
        manifest = runtime.model.manifest
        tokens = manifest.tokens
        self._manifest = manifest
        self.crossover = tokens
        self._pre = Preprocessor(manifest)
        self._full, self._select = runtime.session("encode_full"), runtime.session("select_inplace")
        self._slots = Slots(manifest.grid)
        self._features = np.zeros((tokens, manifest.dim), np.float32)
        self._rows = np.empty((tokens, manifest.dim), np.float32)
        self._cache = np.zeros(manifest.cache_layout, np.float32)
        self._patches = np.empty((tokens, 3 * manifest.patch_size**2), np.float32)
        self._own_position = np.repeat(np.arange(tokens)[:, None], 4, axis=1)
        self._valid = False
        self._full_binding, self._audit_binding = self._full.io_binding(), self._full.io_binding()
        self._select_binding = self._select.io_binding()
        for name, array in self._state():
            self._full_binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self._select_binding.bind_input(f"{name}_in", "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self._select_binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._full_binding.bind_output("features", "cpu", 0, np.float32, self._rows.shape, self._features.ctypes.data)
        self._select_binding.bind_cpu_input("key_bias", self._slots.key_bias)
        self._audit_binding.bind_output("features", "cpu")

    @property
    def grid(self) -> tuple[int, int]:
        return self._manifest.grid

    @property
    def dim(self) -> int:
        return self._manifest.dim

    @property
    def patch_size(self) -> int:
        return self._manifest.patch_size

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        """See `Encoder.encode`. A plan made for a cache that is no longer valid is carried out in full."""
        tokens = self._manifest.tokens
        encoded = plan.encoded if self._valid else None
        if encoded is None or encoded >= self.crossover:
            encoded = tokens
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
        self._audit_binding.bind_cpu_input("patches", self._pre.patches(picture, out=self._patches))
        run(self._full, self._audit_binding)
        return np.asarray(self._audit_binding.copy_outputs_to_cpu()[0], np.float32)

    def reset(self) -> None:
        self._valid = False

    def _encode_all(self, picture: NDArray[np.uint8]) -> None:
        self._valid = False
        self._slots.reset()
        self._full_binding.bind_cpu_input("patches", self._pre.patches(picture, out=self._patches))
        run(self._full, self._full_binding)
        self._valid = True

    def _encode_some(self, picture: NDArray[np.uint8], plan: EncodePlan) -> None:
        """Fine tokens first, then coarse ones."""
        fine = _NO_CELLS if plan.dirty is None else plan.dirty
        cells = _NO_CELLS if plan.coarse is None else plan.coarse
        k, n = len(fine), len(fine) + len(cells)
        four = self._slots.four(cells)
        self._pre.patches(picture, fine, self._patches)
        self._pre.coarse_patches(picture, cells, self._patches[k:])
        binding, features = self._select_binding, self._rows[:n]
        binding.bind_cpu_input("patches", self._patches[:n])
        binding.bind_cpu_input("index", self._slots.rows[np.concatenate([fine, cells])])
        binding.bind_cpu_input("position", np.concatenate([self._own_position[fine], four]))
        binding.bind_output("features", "cpu", 0, np.float32, features.shape, features.ctypes.data)
        run(self._select, binding)
        self._features[fine] = features[:k]
        self._features[four] = features[k:, None]

    def _state(self) -> list[tuple[str, NDArray[np.float32]]]:
        """Name and memory of everything that the graphs read and write from frame to frame."""
        return [(f"{part}_{i}", layer[j]) for i, layer in enumerate(self._cache) for j, part in enumerate(PARTS)]

    def _carry(self, moves: Moves) -> None:
        """What a plan takes over from other slots, and the rows that it masks."""
        if len(moves.moved_to):
            self._features[moves.moved_to] = self._features[moves.moved_from]
        if len(moves.copied_to):
            self._cache[:, :, :, moves.copied_to] = self._cache[:, :, :, moves.copied_from]
        if len(moves.masked):
            self._cache[:, :, :, moves.masked] = 0
