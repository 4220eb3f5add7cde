"""From dense flow on the analysis image to one motion per token."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.preprocess import Placement
from vpi_ops.interface import FlowField

Floats = NDArray[np.float32]

_POINTS = 4
"""Sampling points along each side of a patch."""
_MARGIN_PX = 16
"""Analysis pixels around what moved: flow needs to see where it came from."""
_LEAST_PX = 64
"""Flow of a smaller image has too few scales to follow anything."""


class TokenSampler:
    """Averages dense flow over each token's patch, through the placement of the frame in the model picture."""

    def __init__(self, placement: Placement, grid: tuple[int, int], patch: int) -> None:
        rows, cols = grid
        y, x = np.meshgrid(
            (np.arange(rows * _POINTS) + 0.5) * patch / _POINTS,
            (np.arange(cols * _POINTS) + 0.5) * patch / _POINTS,
            indexing="ij",
        )
        self._grid = grid
        self._source = np.dstack(
            [(x - placement.offset[0]) / placement.scale[0], (y - placement.offset[1]) / placement.scale[1]]
        )
        self._at: tuple[tuple[float, float], Floats] | None = None

    def region(
        self, moving: NDArray[np.bool_], scale: tuple[float, float], shape: tuple[int, int]
    ) -> tuple[int, int, int, int] | None:
        """The part (x0, y0, x1, y1) of an analysis image of `shape` (h, w) that holds the tokens `moving` (T,) and a
        margin; None when that is most of it."""
        low, high = self._extent(moving, self._positions(scale))
        limits = np.array([shape[1], shape[0]])
        spread = np.maximum(_MARGIN_PX, (_LEAST_PX - (high - low)) / 2)
        x0, y0 = np.clip(low - spread, 0, limits).astype(int)
        x1, y1 = np.clip(high + spread + 1, 0, limits).astype(int)
        small = (x1 - x0) * (y1 - y0) < 0.6 * shape[0] * shape[1]
        return (int(x0), int(y0), int(x1), int(y1)) if small and min(x1 - x0, y1 - y0) >= _LEAST_PX else None

    def box(self, moving: NDArray[np.bool_]) -> tuple[int, int, int, int]:
        """The part (x0, y0, x1, y1) of the frame that holds the tokens `moving` (T,), source pixels."""
        low, high = self._extent(moving, self._source)
        return int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1

    def _extent(self, moving: NDArray[np.bool_], positions: NDArray[np.floating]) -> tuple[Any, Any]:
        """The first and the last of the sampling points of these tokens, (x, y) each."""
        rows, cols = self._grid
        at = positions.reshape(rows, _POINTS, cols, _POINTS, 2)
        cells = moving.reshape(rows, cols)
        down, across = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
        return at[down[0], 0, across[0], 0], at[down[-1], -1, across[-1], -1]

    def backward(self, flow: FlowField) -> Floats:
        """float32 (T, 2): (x, y) source pixels to where each token's content was a frame ago, 0 outside the picture."""
        return self._average(flow.backward, flow.scale) * np.array(flow.scale, np.float32)

    def error(self, flow: FlowField) -> Floats:
        """float32 (T,): mean consistency error of a checked flow, analysis pixels."""
        if flow.error is None:
            raise ValueError("the flow was not checked")
        return self._average(flow.error, flow.scale)

    def _average(self, values: Floats, scale: tuple[float, float]) -> Floats:
        positions = self._positions(scale)
        points = cv2.remap(
            values, positions[..., 0], positions[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )
        rows, cols = self._grid
        cells = np.asarray(cv2.resize(points, (cols, rows), interpolation=cv2.INTER_AREA), np.float32)
        return cells.reshape(rows * cols, *values.shape[2:])

    def _positions(self, scale: tuple[float, float]) -> Floats:
        if self._at is None or self._at[0] != scale:
            self._at = (scale, (self._source / scale - 0.5).astype(np.float32))
        return self._at[1]
