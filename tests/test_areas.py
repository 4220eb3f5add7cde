"""Drawn areas: which zones a box touches, which tokens an ignored area covers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.areas import Areas, token_cells
from engines.preprocess import Placement

SIZE = (640, 360)
DOOR = [(100.0, 200.0), (220.0, 200.0), (220.0, 340.0), (100.0, 340.0)]


@given(st.integers(0, 600), st.integers(0, 330), st.integers(1, 40), st.integers(1, 30))
def test_a_box_touches_a_rectangular_zone_when_they_overlap(x: int, y: int, w: int, h: int) -> None:
    overlaps = x <= 220 and x + w > 100 and y <= 340 and y + h > 200
    assert Areas({"door": DOOR}, SIZE).touched([(x, y, w, h)]) == (("door",) if overlaps else ())


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
def test_an_ignored_clock_covers_the_tokens_that_see_it_and_no_others(resize: str) -> None:
    placement = Placement.of(resize, SIZE, 280)
    cells = token_cells(placement, (20, 20), 14)
    clock = [(300.0, 100.0), (340.0, 100.0), (340.0, 120.0), (300.0, 120.0)]
    ignored = Areas({"clock": clock}, SIZE).tokens(cells)
    x0, y0, w, h = placement.to_picture((300, 100, 41, 21))
    picture = np.zeros((280, 280), bool)
    picture[int(y0) : int(np.ceil(y0 + h)), int(x0) : int(np.ceil(x0 + w))] = True
    sees = picture.reshape(20, 14, 20, 14).any(axis=(1, 3)).reshape(-1)
    assert (ignored <= np.convolve(sees, np.ones(3), "same").astype(bool) | sees).all()
    assert ignored[sees].mean() > 0.9
    assert 0 < ignored.sum() < 20


def test_no_area_touches_nothing() -> None:
    cells = token_cells(Placement.of("stretch", SIZE, 280), (20, 20), 14)
    assert not Areas({}, SIZE).tokens(cells).any()
    assert Areas({}, SIZE).touched([(0, 0, 640, 360)]) == ()
