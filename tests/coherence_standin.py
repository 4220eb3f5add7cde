"""A vision tower in twenty lines for the tests of the coherent path: a linear patch projection that leans on the mean
of all cached patches, so that clean tokens drift when others change, as a real tower's do."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.coherence.costs import EncodeCosts
from config.errors import EngineFault
from engines.plan import EncodePlan, TokenMap
from engines.preprocess import Placement, shrink

PATCH = 14


class Stretch:
    """Pictures of `side` × `side` pixels, as a model with `resize: stretch` wants them."""

    def __init__(self, side: int) -> None:
        self.side = side

    def placement(self, frame_size: tuple[int, int]) -> Placement:
        return Placement.of("stretch", frame_size, self.side)

    def picture(self, image: NDArray[np.uint8], *, crop: tuple[int, int, int, int] | None = None) -> NDArray[np.uint8]:
        x0, y0, x1, y1 = crop or (0, 0, image.shape[1], image.shape[0])
        out = np.empty((self.side, self.side, 3), np.uint8)
        shrink(image[y0:y1, x0:x1], out)
        return out


class LinearEncoder:
    """An `Encoder` of `grid`. `failing`: how many of the next calls raise. `runs`: tokens encoded by each call."""

    patch_size = PATCH
    dim = 24

    def __init__(self, grid: tuple[int, int] = (8, 8)) -> None:
        self.grid = grid
        self.failing = 0
        self.runs: list[int] = []
        rng = np.random.default_rng(3)
        self._project = (rng.normal(size=(3 * PATCH**2, self.dim)) / 1500).astype(np.float32)
        self._cache = np.full((grid[0] * grid[1], self.dim), np.nan, np.float32)
        self._features = self._cache.copy()
        self._coarse = np.zeros(len(self._cache), bool)
        self._valid = False

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        if self.failing:
            self.failing -= 1
            self._valid = False
            raise EngineFault("told to fail")
        dirty = plan.dirty if plan.dirty is not None and self._valid else np.arange(len(self._cache))
        if plan.fetch is not None:
            self._cache, self._features = self._cache[plan.fetch], self._features[plan.fetch]
        patches, encoded = self._patches(picture), len(dirty)
        self._coarse[dirty] = False
        if plan.coarse is not None and self._valid:
            cells = plan.coarse[:, None] + [0, 1, self.grid[1], self.grid[1] + 1]
            patches[cells] = patches[cells].mean(axis=1, keepdims=True)
            self._coarse[cells] = True
            dirty, encoded = np.concatenate([dirty, cells.ravel()]), encoded + len(cells)
        self._cache[dirty] = patches[dirty]
        self._features[dirty] = self._mix(self._cache)[dirty]
        self._valid = True
        self.runs.append(encoded)
        return TokenMap(self._features, self.grid, encoded, self._coarse)

    def encode_full(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._mix(self._patches(picture))

    def close(self) -> None:
        pass

    def reset(self) -> None:
        self._valid = False

    def _patches(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows, cols = self.grid
        cut = picture.reshape(rows, PATCH, cols, PATCH, 3).swapaxes(1, 2).reshape(rows * cols, -1)
        return np.asarray((cut.astype(np.float32) - 128) @ self._project, np.float32)

    def _mix(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(np.tanh(values + 0.2 * values.mean(axis=0)) + 0.1, np.float32)


class SteadyCosts(EncodeCosts):
    """Are what they are, so that plans are the same on a busy machine."""

    def observed(self, count: int, ms: float) -> None: ...


def costs(tokens: int = 64) -> EncodeCosts:
    """Each token costs a hundredth of a millisecond, a call a tenth; a full encode is no cheaper per token."""
    counts = (1, tokens // 2, tokens - 1, tokens)
    return SteadyCosts(counts, tuple(0.1 + 0.01 * n for n in counts))


def texture(seed: int, size: tuple[int, int] = (224, 128), grain: int = 6) -> NDArray[np.uint8]:
    """A smooth random colour picture (height, width, 3) of `size` (width, height) with blobs of `grain` pixels."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (size[1] // grain, size[0] // grain, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def frame(image: NDArray[np.uint8], index: int, *, discontinuity: bool = False) -> Frame:
    """`image` as frame `index` of a camera with 25 frames a second."""
    utc = datetime(2024, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=index / 25)
    return Frame(np.ascontiguousarray(image), "cam1", index, index * 40_000_000, utc, index / 25, discontinuity)
