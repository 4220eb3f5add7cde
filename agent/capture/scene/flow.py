"""True optical flow between two frames of a view, from the motion of its shapes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.scene.draw import SHIFT, Figure, fixed_point
from agent.capture.scene.figure import Shape

Flow = NDArray[np.float32]


def backward_flow(
    width: int, height: int, ground: tuple[float, float], figures: list[tuple[Figure, Figure | None]]
) -> Flow:
    """float32 (height, width, 2): current(x, y) ≈ previous(x + u, y + v), in pixels.

    ground: (u, v) of the backdrop. figures: all, far to near, as they are and as they were (None: it was not
    there, its flow is NaN). A shape moves as the affine map between its points now and then. What was hidden in the
    previous frame has the motion of its own surface; shadows have the ground's.
    """
    field = np.empty((height, width, 2), np.float32)
    field[:] = ground
    for now, before in figures:
        for i, shape in enumerate(now.shapes):
            _move(field, shape, before.shapes[i] if before is not None else None)
    return field


def _move(field: Flow, now: Shape, before: Shape | None) -> None:
    height, width = field.shape[:2]
    low, high = now.points.min(axis=0), now.points.max(axis=0)
    x0, y0 = max(0, int(low[0]) - 1), max(0, int(low[1]) - 1)
    x1, y1 = min(width, int(high[0]) + 3), min(height, int(high[1]) + 3)
    if x0 >= x1 or y0 >= y1:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillPoly(mask, [fixed_point(now.points - (x0, y0))], 1, cv2.LINE_8, SHIFT)
    ys, xs = np.nonzero(mask)
    if before is None:
        field[ys + y0, xs + x0] = np.nan
        return
    middle = now.points.mean(axis=0)
    moved = before.points - now.points
    spread = np.column_stack([now.points - middle, np.ones(len(now.points))])
    fit, *_ = np.linalg.lstsq(spread, moved, rcond=1e-6)  # a shape without area has no spread one way: no change there
    at = np.column_stack([xs + (x0 - middle[0]), ys + (y0 - middle[1]), np.ones(len(xs))])
    field[ys + y0, xs + x0] = at @ fit
