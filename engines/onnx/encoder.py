"""The vision tower on ONNX Runtime, with the cache of one camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.onnx.runtime import OnnxRuntime, run
from engines.plan import EncodePlan, TokenMap
from engines.preprocess import Preprocessor

PARTS = ("keys", "values")


class OnnxEncoder:
    """Implements `engines.plan.Encoder`; encoders made from one runtime share its weights.

    Features (T, D) and keys and values (L, 2, H, T, dh) live in two arrays that are bound once, as outputs of the full
    graph and as inputs *and* outputs of the selective one. ONNX Runtime's ScatterND skips its copy when both are the
    same memory, so a frame writes the dirty rows and nothing else.
    """

    def __init__(self, runtime: OnnxRuntime) -> None:
        manifest = runtime.model.manifest
        tokens = manifest.tokens
        self._manifest = manifest
        self._pre = Preprocessor(manifest)
        self._full, self._select = runtime.session("encode_full"), runtime.session("select_inplace")
        self._features = np.zeros((tokens, manifest.dim), np.float32)
        self._cache = np.zeros(manifest.cache_layout, np.float32)
        self._scratch = np.empty(0, np.float32)
        self._patches = np.empty((tokens, 3 * manifest.patch_size**2), np.float32)
        self._key_bias = np.zeros(tokens, np.float32)
        self._valid = False
        self._full_binding, self._audit_binding = self._full.io_binding(), self._full.io_binding()
        self._select_binding = self._select.io_binding()
        for name, array in self._state():
            self._full_binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self._select_binding.bind_input(f"{name}_in", "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self._select_binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._select_binding.bind_cpu_input("key_bias", self._key_bias)
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
        dirty = plan.dirty if self._valid else None
        self._valid = False
        if dirty is None:
            encoded = self._manifest.tokens
            self._full_binding.bind_cpu_input("patches", self._pre.patches(picture, out=self._patches))
            run(self._full, self._full_binding)
        else:
            encoded = len(dirty)
            if plan.fetch is not None:
                self._fetch(plan.fetch)
            if encoded:
                self._select_binding.bind_cpu_input("patches", self._pre.patches(picture, dirty, self._patches))
                self._select_binding.bind_cpu_input("index", dirty)
                run(self._select, self._select_binding)
        self._valid = True
        return TokenMap(self._features, self._manifest.grid, encoded)

    def encode_full(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (T, D), an array of their own; keys and values are not kept. Raises EngineFault."""
        self._audit_binding.bind_cpu_input("patches", self._pre.patches(picture, out=self._patches))
        run(self._full, self._audit_binding)
        return np.asarray(self._audit_binding.copy_outputs_to_cpu()[0], np.float32)

    def reset(self) -> None:
        self._valid = False

    def _state(self) -> list[tuple[str, NDArray[np.float32]]]:
        """Name and memory of everything that the graphs read and write from frame to frame."""
        layers = [(f"{part}_{i}", layer[j]) for i, layer in enumerate(self._cache) for j, part in enumerate(PARTS)]
        return [("features", self._features), *layers]

    def _fetch(self, fetch: NDArray[np.int64]) -> None:
        """Let each slot take over the cached values of slot `fetch[slot]`; rows that stay are not touched."""
        moved = np.flatnonzero(fetch != np.arange(len(fetch)))
        if not len(moved):
            return
        if not len(self._scratch):
            self._scratch = np.empty(max(self._cache.size, self._features.size), np.float32)
        layers, two, heads, tokens, size = self._cache.shape
        for table in (self._cache.reshape(layers * two * heads, tokens, size), self._features[None]):
            rows = self._scratch[: table.size // tokens * len(moved)].reshape(len(table), len(moved), -1)
            np.take(table, fetch[moved], axis=1, out=rows, mode="clip")
            table[:, moved] = rows
