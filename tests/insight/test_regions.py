from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.insight.regions import cells_to_source, large_components, merge_close
from engines.preprocess import Placement

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
    resize=st.sampled_from(["stretch", "letterbox", "crop"]),
    size=st.tuples(st.integers(40, 2000), st.integers(40, 2000)),
    data=st.data(),
)
def test_the_source_box_is_what_its_cells_show_within_a_pixel(
    resize: str, size: tuple[int, int], data: st.DataObject
) -> None:
    placement = Placement.of(resize, size, 280)
    col, row = data.draw(st.integers(0, 19)), data.draw(st.integers(0, 19))
    cols, rows = data.draw(st.integers(1, 20 - col)), data.draw(st.integers(1, 20 - row))
    x, y, w, h = cells_to_source((col, row, cols, rows), placement, 14)
    assert x >= 0 and y >= 0 and x + w <= size[0] and y + h <= size[1]
    corners = np.array([[col, row], [col + cols, row + rows]]) * 14.0
    true = ((corners - placement.offset) / placement.scale).clip(0, size)
    assert np.abs([[x, y], [x + w, y + h]] - true).max() <= 1.01


def test_cells_in_the_padding_have_no_pixels() -> None:
    box = cells_to_source((0, 0, 20, 1), Placement.of("letterbox", (1280, 720), 280), 14)
    assert box[3] == 0
