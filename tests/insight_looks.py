"""Looks at a small synthetic camera, of tokens and of which of them move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.insight.movement import SHAPE, STILL
from agent.insight.surprise import Look

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def look_at(
    features: Floats,
    grid: tuple[int, int],
    seconds: float,
    *,
    moving: Mask | None = None,
    cells_s: tuple[float, float] = (0.0, 0.0),
    hour: float = 12.0,
    ignored: Mask | None = None,
) -> Look:
    """Every token is fresh; those `moving` (T,) move at `cells_s`, cells of the movement map a second, as one piece."""
    across, down = (np.arange(SHAPE[1]) + 0.5) / SHAPE[1], (np.arange(SHAPE[0]) + 0.5) / SHAPE[0]
    places = np.dstack(np.meshgrid(across * grid[1] - 0.5, down * grid[0] - 0.5)).astype(np.float32)
    moved = np.zeros(len(features), bool) if moving is None else moving
    cells = STILL
    if moving is not None and any(cells_s):
        cols, rows = (across * grid[1]).astype(int), (down * grid[0]).astype(int)
        share = moving.reshape(grid)[rows[:, None], cols[None, :]].astype(np.float32)
        x, y = (-v * seconds for v in cells_s)  # flow is backward
        cells = np.dstack([share, share * x, share * y, share * (x * x + y * y) * 1.3]).astype(np.float32)
    residual = np.zeros(len(features), np.float32)
    fresh = np.ones(len(features), bool)
    return Look(features, fresh, moved, residual, cells, seconds, places, hour, ignored)
