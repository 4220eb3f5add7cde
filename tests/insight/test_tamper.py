from __future__ import annotations

import numpy as np
import pytest

from agent.insight.tamper import TamperEvent, Tampering, TamperWatch, edges_of

_RNG = np.random.default_rng(0)
HOME, ELSEWHERE = (_RNG.integers(0, 255, (280, 280, 3), dtype=np.uint8) for _ in range(2))
SHEET = np.clip(90 + HOME * 0.02, 0, 255).astype(np.uint8)[:, ::-1]
TRUCK = np.concatenate([SHEET[:, :168], HOME[:, 168:]], axis=1)
DUSK = (HOME * 0.4).astype(np.uint8)


def run(watch: TamperWatch, start_s: float, seconds: float, strange: float, picture: np.ndarray) -> list[TamperEvent]:
    mask, edges = np.arange(100) < 100 * strange, edges_of(picture)
    found = (watch.process(mask, edges, start_s + i / 5) for i in range(round(seconds * 5)))
    return [event for event in found if event is not None]


def test_a_hand_over_the_lens_is_said_once_and_its_end_too() -> None:
    watch = TamperWatch(after_s=5)
    assert run(watch, 0, 20, 0.1, HOME) == []
    assert run(watch, 20, 30, 1.0, SHEET) == [TamperEvent(Tampering.COVERED, 20)]
    assert watch.standing is not None
    assert run(watch, 50, 5, 0.1, HOME) == [TamperEvent(Tampering.COVERED, 20, over=True)]


def test_a_plain_sheet_covers_the_camera_even_where_it_looks_like_the_ground() -> None:
    watch = TamperWatch(after_s=5)
    plain = np.full_like(HOME, 95)
    run(watch, 0, 20, 0.1, HOME)
    assert run(watch, 20, 30, 0.0, plain) == [TamperEvent(Tampering.COVERED, 20)]
    assert run(watch, 50, 5, 0.1, HOME) == [TamperEvent(Tampering.COVERED, 20, over=True)]


def test_a_camera_that_looks_elsewhere_was_moved() -> None:
    watch = TamperWatch(after_s=5)
    run(watch, 0, 20, 0.1, HOME)
    assert run(watch, 20, 30, 0.95, ELSEWHERE) == [TamperEvent(Tampering.MOVED, 20)]
    watch.accept()
    assert watch.standing is None and run(watch, 50, 20, 0.1, ELSEWHERE) == []


def test_a_light_that_goes_out_leaves_the_edges_where_they_are() -> None:
    watch = TamperWatch(after_s=5)
    run(watch, 0, 20, 0.1, HOME)
    assert run(watch, 20, 60, 1.0, DUSK) == []


@pytest.mark.parametrize("strange,seconds,shown", [(0.6, 60.0, TRUCK), (1.0, 4.0, SHEET)], ids=["truck", "flash"])
def test_a_truck_before_the_camera_and_a_flash_are_no_tampering(
    strange: float, seconds: float, shown: np.ndarray
) -> None:
    watch = TamperWatch(after_s=5)
    run(watch, 0, 20, 0.1, HOME)
    assert run(watch, 20, seconds, strange, shown) == []
    assert run(watch, 20 + seconds, 20, 0.1, HOME) == []
