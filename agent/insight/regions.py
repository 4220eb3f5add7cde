"""From a boolean map over the token grid to boxes: in cells, then in source pixels. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.preprocess import Placement

CellBox = tuple[int, int, int, int]
"""(column, row, columns, rows) of a rectangle of grid cells."""

PixelBox = tuple[int, int, int, int]
"""(x, y, w, h) in source pixels."""

_ROUNDING = 1e-3
"""Source pixels that are forgiven before a box grows by a whole one."""


def large_components(mask: NDArray[np.bool_], min_cells: int = 1) -> tuple[NDArray[np.bool_], list[CellBox]]:
    """The 8-connected components of `mask` (rows, cols) that have at least `min_cells` cells.

    Returns the mask reduced to these components, and their bounding boxes in cells, largest component first.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = [label for label in range(1, count) if areas[label] >= min_cells]
    kept.sort(key=lambda label: -int(areas[label]))
    boxes = [_box(*stats[label, :4]) for label in kept]
    chosen = np.zeros(count, bool)
    chosen[kept] = True
    return chosen[labels], boxes


def merge_close(boxes: Iterable[CellBox], gap: int = 1) -> list[CellBox]:
    """Join boxes with at most `gap` cells between them, repeatedly, so that one thing seen in pieces is one region;
    largest first."""
    merged: list[CellBox] = []
    for box in boxes:
        while (near := next((other for other in merged if _gap(box, other) <= gap), None)) is not None:
            merged.remove(near)
            box = _union(box, near)
        merged.append(box)
    return sorted(merged, key=lambda box: -box[2] * box[3])


def cells_to_source(box: CellBox, placement: Placement, patch_size: int) -> PixelBox:
    """The smallest box of whole source pixels that covers a box of cells, cut at the frame's border.

    `placement` says where the frame lies in the model's picture, which has `patch_size` pixels per cell. A box of cells
    that look outside the frame only (padding) comes back with no width or no height.
    """
    x, y, w, h = placement.to_source(
        (box[0] * patch_size, box[1] * patch_size, box[2] * patch_size, box[3] * patch_size)
    )
    x0, y0 = np.floor(np.array([x, y]) + _ROUNDING).clip(0, placement.frame_size)
    x1, y1 = np.ceil(np.array([x + w, y + h]) - _ROUNDING).clip(0, placement.frame_size)
    return _box(x0, y0, x1 - x0, y1 - y0)


def _box(x: float, y: float, w: float, h: float) -> tuple[int, int, int, int]:
    return int(x), int(y), int(w), int(h)


def _gap(a: CellBox, b: CellBox) -> int:
    """Cells between two boxes along the axis on which they are farther apart; 0 or less = touching or overlapping."""
    across = max(a[0], b[0]) - min(a[0] + a[2], b[0] + b[2])
    down = max(a[1], b[1]) - min(a[1] + a[3], b[1] + b[3])
    return max(across, down)


def _union(a: CellBox, b: CellBox) -> CellBox:
    x, y = min(a[0], b[0]), min(a[1], b[1])
    return x, y, max(a[0] + a[2], b[0] + b[2]) - x, max(a[1] + a[3], b[1] + b[3]) - y
