"""From dense flow on the analysis image to one motion per token."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.preprocess import Placement
from vpi_ops.interface import FlowField

Floats = NDArray[np.float32]

_POINTS = 4
"""Sampling points along each side of a patch."""


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
        self._source_x = (x - placement.offset[0]) / placement.scale[0]
        self._source_y = (y - placement.offset[1]) / placement.scale[1]
        self._at: tuple[tuple[float, float], Floats] | None = None

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
            points = np.dstack([self._source_x / scale[0] - 0.5, self._source_y / scale[1] - 0.5])
            self._at = (scale, points.astype(np.float32))
        return self._at[1]
