from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.insight.regions import cells_to_source, large_components, merge_close, stretched_cells

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def inside(boxes: list[tuple[int, int, int, int]], shape: tuple[int, int]) -> np.ndarray:
    covered = np.zeros(shape, bool)
    for x, y, w, h in boxes:
        covered[y : y + h, x : x + w] = True
    return covered


@given(mask=MASKS, gap=st.integers(0, 3))
def test_merged_boxes_cover_every_cell_and_lie_further_apart_than_the_gap(mask: np.ndarray, gap: int) -> None:
    kept, boxes = large_components(mask)
    assert (kept == mask).all()
    merged = merge_close(boxes, gap)
    assert (inside(merged, mask.shape) >= mask).all()
    for i, (ax, ay, aw, ah) in enumerate(merged):
        for bx, by, bw, bh in merged[:i]:
            assert max(bx - ax - aw, ax - bx - bw, by - ay - ah, ay - by - bh) > gap


def test_components_below_the_minimum_vanish_and_diagonal_neighbours_belong_together() -> None:
    mask = np.zeros((6, 8), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = mask[5, 7] = True
    kept, boxes = large_components(mask, min_cells=2)
    assert boxes == [(0, 0, 3, 3)]
    assert kept.sum() == 3


@given(
    grid=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    size=st.tuples(st.integers(20, 2000), st.integers(20, 2000)),
    data=st.data(),
)
def test_source_box_covers_its_cells_within_a_pixel(
    grid: tuple[int, int], size: tuple[int, int], data: st.DataObject
) -> None:
    col, row = data.draw(st.integers(0, grid[1] - 1)), data.draw(st.integers(0, grid[0] - 1))
    w, h = data.draw(st.integers(1, grid[1] - col)), data.draw(st.integers(1, grid[0] - row))
    x, y, width, height = cells_to_source((col, row, w, h), grid, stretched_cells(grid, size), size)
    true = np.array([col / grid[1], row / grid[0], (col + w) / grid[1], (row + h) / grid[0]]) * [*size, *size]
    assert np.abs(np.array([x, y, x + width, y + height]) - true).max() <= 1.01
    assert x >= 0 and y >= 0 and x + width <= size[0] and y + height <= size[1]


def test_cells_that_look_outside_the_picture_are_cut_off() -> None:
    slid = stretched_cells((2, 2), (100, 60)) + np.array([-20, 0, 0, 0], np.float32)
    assert cells_to_source((0, 0, 1, 1), (2, 2), slid, (100, 60)) == (0, 0, 30, 30)
    away = stretched_cells((2, 2), (100, 60)) - np.array([200, 0, 0, 0], np.float32)
    assert cells_to_source((0, 0, 2, 1), (2, 2), away, (100, 60))[2] == 0
