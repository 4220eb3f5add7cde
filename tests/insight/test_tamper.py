from __future__ import annotations

import numpy as np
import pytest

from agent.insight.tamper import TamperEvent, Tampering, TamperWatch, detail_of


def run(watch: TamperWatch, start_s: float, seconds: float, strange: float, detail: float) -> list[TamperEvent]:
    mask = np.arange(100) < 100 * strange
    found = (watch.process(mask, detail, start_s + i / 5) for i in range(round(seconds * 5)))
    return [event for event in found if event is not None]


def test_a_hand_over_the_lens_is_said_once_and_its_end_too() -> None:
    watch = TamperWatch(after_s=5)
    assert run(watch, 0, 20, 0.1, 9.0) == []
    assert run(watch, 20, 30, 1.0, 0.5) == [TamperEvent(Tampering.COVERED, 20)]
    assert watch.standing is not None
    assert run(watch, 50, 5, 0.1, 9.0) == [TamperEvent(Tampering.COVERED, 20, over=True)]


def test_a_camera_that_looks_elsewhere_was_moved() -> None:
    watch = TamperWatch(after_s=5)
    run(watch, 0, 20, 0.1, 9.0)
    assert run(watch, 20, 30, 0.95, 7.0) == [TamperEvent(Tampering.MOVED, 20)]
    watch.accept()
    assert watch.standing is None and run(watch, 50, 20, 0.1, 7.0) == []


@pytest.mark.parametrize("strange,seconds", [(0.6, 60.0), (1.0, 4.0)])
def test_a_truck_before_the_camera_and_a_flash_are_no_tampering(strange: float, seconds: float) -> None:
    watch = TamperWatch(after_s=5)
    run(watch, 0, 20, 0.1, 9.0)
    assert run(watch, 20, seconds, strange, 0.5) == []
    assert run(watch, 20 + seconds, 20, 0.1, 9.0) == []


def test_detail_is_what_a_sheet_takes_away() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (280, 280, 3), dtype=np.uint8)
    assert detail_of(picture) > 20
    assert detail_of(np.full((280, 280, 3), 90, np.uint8)) == 0
