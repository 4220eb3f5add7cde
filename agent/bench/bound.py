"""How much of a clip really changes, and so the most that re-encoding in place could save."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_LEVELS = 10.0
"""Grey levels by which a patch must differ to count as changed."""


class Bound:
    """A patch is changed when the mean of its highest 20 % of grey differences from the pixels it was last changed to
    exceeds ten levels (both smoothed 3×3). Counted on the picture as the camera gives it: a crop that slides along with
    the world makes fewer patches change, and may pass the bound. seen: bool (T,), patches that show picture."""

    def __init__(self, grid: tuple[int, int], patch: int, seen: NDArray[np.bool_]) -> None:
        self._shape = (grid[0], patch, grid[1], patch)
        self._seen = seen
        self._kept = max(1, round(0.2 * patch * patch))
        self._reference: NDArray[np.int16] | None = None
        self._shares: list[float] = []

    def process(self, picture: NDArray[np.uint8]) -> None:
        """picture: uint8 (S, S, 3), of each frame in turn."""
        smooth = np.asarray(cv2.blur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (3, 3))).astype(np.int16)
        rows, patch, cols, _ = self._shape
        tiles = smooth[: rows * patch, : cols * patch].reshape(self._shape).swapaxes(1, 2).reshape(rows * cols, -1)
        if self._reference is None:
            self._reference = tiles.copy()
            return
        difference = np.sort(np.abs(tiles - self._reference), axis=1)[:, -self._kept :]
        changed = self._seen & (difference.mean(axis=1) > _LEVELS)
        self._reference[changed] = tiles[changed]
        self._shares.append(float(changed.sum() / self._seen.sum()))

    @property
    def changed(self) -> float:
        """Mean share of the patches that change from one frame to the next, 0–1."""
        return float(np.mean(self._shares)) if self._shares else 0.0

    @property
    def speedup(self) -> float | None:
        """None when nothing has changed."""
        return 1 / self.changed if self.changed else None
