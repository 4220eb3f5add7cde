"""The ring between capture and thought: order, drops, back-pressure, closing."""

from __future__ import annotations

import threading
from datetime import datetime, timezone

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.capture.frame import Frame
from agent.capture.ring import Ring

PIXELS = np.zeros((2, 2, 3), np.uint8)


def frame(index: int, discontinuity: bool = False) -> Frame:
    return Frame(PIXELS, "cam", index, index, datetime(2024, 1, 1, tzinfo=timezone.utc), None, discontinuity)


@given(
    capacity=st.integers(1, 4),
    steps=st.lists(st.one_of(st.just("get"), st.booleans()), max_size=60),
)
def test_newest_frames_in_order_none_lost_uncounted_and_no_break_forgotten(
    capacity: int, steps: list[str | bool]
) -> None:
    ring = Ring(capacity)
    breaks: list[bool] = []
    received: list[Frame] = []
    for step in steps:
        if isinstance(step, bool):
            ring.put(frame(len(breaks), step))
            breaks.append(step)
        elif (got := ring.get(0)) is not None:
            received.append(got)
    ring.close()
    newest = len(breaks)
    left = []
    while not ring.drained:
        got = ring.get(0)
        assert got is not None
        left.append(got)

    everything = received + left
    indices = [f.index for f in everything]
    assert indices == sorted(set(indices))
    assert len(left) <= capacity
    assert [f.index for f in left] == list(range(newest - len(left), newest))
    assert ring.dropped == len(breaks) - len(everything)
    previous = -1
    for f in everything:
        assert f.discontinuity == any(breaks[previous + 1 : f.index + 1])
        assert f.image is PIXELS
        previous = f.index


def test_a_blocking_producer_loses_nothing() -> None:
    ring = Ring(2)
    producer = threading.Thread(target=lambda: [ring.put(frame(i), block=True) for i in range(200)] and ring.close())
    producer.start()
    received = []
    while not ring.drained:
        if (got := ring.get(5)) is not None:
            received.append(got.index)
    producer.join()
    assert received == list(range(200))
    assert ring.dropped == 0


def test_closing_wakes_both_sides() -> None:
    full, empty = Ring(1), Ring(1)
    full.put(frame(0))
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(full.put(frame(1), block=True))),
        threading.Thread(target=lambda: results.append(empty.get())),
    ]
    for thread in threads:
        thread.start()
    full.close()
    empty.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert set(results) == {False, None}
    kept = full.get(0)
    assert kept is not None
    assert kept.index == 0
    assert full.drained
