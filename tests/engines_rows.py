"""The form for TensorRT driven through ONNX Runtime: only new rows come out of the graph, and the caller writes them
into the cache. Counts are padded to buckets."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from engines.manifest import Model
from engines.plan import EncodePlan, TokenMap
from engines.preprocess import Preprocessor
from engines.slots import Slots

PARTS = ("keys", "values")


class RowsEncoder:
    """An encoder over `encode_full` and `select_rows`. buckets: row counts, ascending, the last no less than T; filler:
    what the patches of rows that only fill a bucket hold."""

    def __init__(self, model: Model, buckets: tuple[int, ...] = (), filler: float = 0.0) -> None:
        def session(graph: str) -> ort.InferenceSession:
            return ort.InferenceSession(model.graph(graph), providers=["CPUExecutionProvider"])

        manifest = model.manifest
        self._layers, self._tokens, self._grid = manifest.layers, manifest.tokens, manifest.grid
        self._full, self._select = session("encode_full"), session("select_rows")
        self._buckets, self._filler = buckets, filler
        self._pre, self._slots = Preprocessor(manifest), Slots(manifest.grid)
        self.crossover = manifest.tokens
        self._cache = np.zeros(manifest.cache_layout, np.float32)
        self._features = np.zeros((manifest.tokens, manifest.dim), np.float32)
        self._valid = False

    def encode_full(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(self._full.run(["features"], {"patches": self._pre.patches(picture)})[0], np.float32)

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        encoded = plan.encoded if self._valid else None
        if encoded is None or encoded >= self.crossover:
            encoded = self._tokens
            self._slots.reset()
            names = ["features", *self._rows()]
            found = dict(zip(names, self._full.run(names, {"patches": self._pre.patches(picture)}), strict=True))
            self._features, self._valid = found["features"], True
            for name, (i, j) in self._rows().items():
                self._cache[i, j] = found[name]
        else:
            moves = self._slots.apply(plan)
            self._features[moves.moved_to] = self._features[moves.moved_from]
            self._cache[:, :, :, moves.copied_to] = self._cache[:, :, :, moves.copied_from]
            if encoded:
                self._encode_some(picture, plan)
        return TokenMap(self._features, self._grid, encoded, self._slots.coarse)

    def _encode_some(self, picture: NDArray[np.uint8], plan: EncodePlan) -> None:
        fine = np.empty(0, np.int64) if plan.dirty is None else plan.dirty
        cells = np.empty(0, np.int64) if plan.coarse is None else plan.coarse
        four = self._slots.four(cells)
        n = len(fine) + len(cells)
        size = next((bucket for bucket in self._buckets if bucket >= n), n)
        slots = np.concatenate([fine, four.ravel()])
        source = np.concatenate([np.arange(len(fine)), np.repeat(np.arange(len(fine), n), 4)])
        patches = np.full((size, self._select.get_inputs()[0].shape[1]), self._filler, np.float32)
        patches[:n] = np.concatenate([self._pre.patches(picture, fine), self._pre.coarse_patches(picture, cells)])
        position = np.zeros((size, 4), np.int64)
        position[:n] = np.concatenate([np.repeat(fine[:, None], 4, axis=1), four])
        row_bias = np.full(size, -np.inf, np.float32)
        row_bias[:n] = [0] * len(fine) + [math.log(4)] * len(cells)
        replaced = self._slots.rows[slots]
        cache_bias = np.zeros(self._tokens, np.float32)
        cache_bias[replaced] = -np.inf
        self._cache[:, :, :, replaced] = 0
        feeds = {"patches": patches, "position": position, "row_bias": row_bias, "cache_bias": cache_bias}
        feeds |= {f"{name}_in": self._cache[i, j] for name, (i, j) in self._rows().items()}
        names = ["features", *self._rows()]
        found = dict(zip(names, self._select.run(names, feeds), strict=True))
        for name, (i, j) in self._rows().items():
            self._cache[i, j][:, replaced] = found[name][:, source]
        self._features[slots] = found["features"][source]

    def close(self) -> None:
        pass

    def reset(self) -> None:
        self._valid = False

    def poison(self, slots: list[int]) -> None:
        self._cache[:, :, :, slots] = np.nan

    def _rows(self) -> dict[str, tuple[int, int]]:
        return {f"{part}_{i}": (i, j) for i in range(self._layers) for j, part in enumerate(PARTS)}
