"""Areas that people draw on a camera's picture, and which tokens and boxes they touch. Source pixels throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.preprocess import Placement

Points = Sequence[tuple[float, float]]
Box = tuple[int, int, int, int]


def token_cells(placement: Placement, grid: tuple[int, int], patch_size: int) -> NDArray[np.float32]:
    """The box (x, y, w, h) of the source that each token looks at, float32 (rows · cols, 4), row-major; parts of it may
    lie outside the frame (a letterbox's padding)."""
    rows, cols = grid
    boxes = [
        placement.to_source((col * patch_size, row * patch_size, patch_size, patch_size))
        for row in range(rows)
        for col in range(cols)
    ]
    return np.array(boxes, np.float32)


class Areas:
    """Named polygons on frames of one size (width, height)."""

    def __init__(self, polygons: Mapping[str, Points], frame_size: tuple[int, int]) -> None:
        self._filled = {name: _filled(points, frame_size) for name, points in polygons.items()}

    def touched(self, boxes: Sequence[Box]) -> tuple[str, ...]:
        """Names of the areas that share a pixel with any of the boxes [x, y, w, h], in the order they were given."""
        return tuple(
            name
            for name, filled in self._filled.items()
            if any(filled[y : y + h, x : x + w].any() for x, y, w, h in boxes)
        )

    def tokens(self, cells: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which tokens see a pixel of any area; cells as `token_cells` gives them. bool (T,)."""
        low = np.floor(np.maximum(cells[:, :2], 0)).astype(int)
        high = np.ceil(np.maximum(cells[:, :2] + cells[:, 2:], 0)).astype(int)
        return np.array(
            [
                any(filled[y0:y1, x0:x1].any() for filled in self._filled.values())
                for (x0, y0), (x1, y1) in zip(low, high, strict=True)
            ],
            bool,
        )


def _filled(points: Points, frame_size: tuple[int, int]) -> NDArray[np.bool_]:
    width, height = frame_size
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [np.rint(np.asarray(points, np.float64)).astype(np.int32)], 1)
    return canvas.astype(bool)
