"""What a mask hides, nobody behind the source can see."""

from __future__ import annotations

from contextlib import closing

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.capture import open_source
from agent.masks import masked, painted

corner = st.tuples(st.floats(-20, 120), st.floats(-20, 100))


@given(st.lists(corner, min_size=3, max_size=6))
def test_every_pixel_inside_is_black_and_none_far_outside_is_touched(points: list[tuple[float, float]]) -> None:
    image = np.full((80, 100, 3), 200, np.uint8)
    image.flags.writeable = False
    out = painted(image, [points])
    contour = np.rint(np.array(points)).astype(np.int32)
    left, top = contour.min(axis=0)
    right, bottom = contour.max(axis=0)
    y, x = np.mgrid[:80, :100]
    outside = (x < left) | (x > right) | (y < top) | (y > bottom)
    assert (out[outside] == 200).all()
    for px, py in np.clip(contour, 0, (99, 79)):
        if cv2.pointPolygonTest(contour, (float(px), float(py)), False) >= 0:
            assert (out[py, px] == 0).all()


def test_a_masked_scene_shows_nothing_behind_the_mask() -> None:
    street = {"street": [(0, 180), (640, 180), (640, 360), (0, 360)]}
    opener = masked(lambda: open_source("scene:street?seed=3", source_id="a"), street)
    with closing(opener()) as source:
        frames = [source.read() for _ in range(3)]
    for frame in frames:
        assert not frame.image[180:].any()
        assert frame.image[:180].any()
