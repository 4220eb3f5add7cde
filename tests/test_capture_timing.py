"""Positions that only rise, stamps of recorded video, the limit of frames a second, the back-off."""

from __future__ import annotations

import threading
from datetime import timedelta
from itertools import pairwise
from random import Random

import pytest
from capture_clock import START, FakeClock
from hypothesis import given
from hypothesis import strategies as st

from agent.capture.backoff import Backoff
from agent.capture.timing import MediaClock, RateLimit, Timeline


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1))
def test_positions_rise_from_zero_whatever_the_stamps(stamps: list[float | None]) -> None:
    timeline = Timeline(period_s=0.04)
    positions = [timeline.place(stamp) for stamp in stamps]
    assert positions[0] == 0
    assert all(0 < b - a <= 60.000001 for a, b in pairwise(positions))


@given(first=st.floats(-1e5, 1e5), gaps=st.lists(st.floats(0.01, 30), max_size=50))
def test_good_stamps_pass_unchanged(first: float, gaps: list[float]) -> None:
    timeline = Timeline(period_s=0.04)
    stamp = first
    assert timeline.place(stamp) == 0
    for gap in gaps:
        stamp += gap
        assert timeline.place(stamp) == pytest.approx(stamp - first, abs=1e-6)


def test_a_wrapped_counter_follows_on_and_a_missing_stamp_is_filled() -> None:
    timeline = Timeline(period_s=0.04)
    positions = [timeline.place(s) for s in (95443.6, 95443.64, None, 0.0, 0.04, 0.03, 0.08)]
    assert positions == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.161, 0.20])


def test_paced_frames_come_when_due_and_a_late_reader_does_not_race() -> None:
    clock, stop = FakeClock(), threading.Event()
    media = MediaClock(clock, paced=True)
    stamps = []
    for position_s in (0.0, 0.1, 0.2):
        stamps.append(media.stamp(position_s, stop))
    assert [ns / 1e9 for ns, _ in stamps] == pytest.approx([100.0, 100.1, 100.2])
    assert stamps[2][1] == START + timedelta(seconds=0.2)
    assert sum(clock.waits) == pytest.approx(0.2)

    clock.now_s += 5
    late_ns, _ = media.stamp(0.3, stop)
    next_ns, _ = media.stamp(0.4, stop)
    assert late_ns / 1e9 == pytest.approx(105.2)
    assert (next_ns - late_ns) / 1e9 == pytest.approx(0.1)
    assert clock.now_s == pytest.approx(105.3)


def test_unpaced_stamps_follow_the_video_without_waiting() -> None:
    clock = FakeClock()
    media = MediaClock(clock, paced=False)
    (first_ns, first_utc), (last_ns, last_utc) = (media.stamp(s, threading.Event()) for s in (0.0, 3600.0))
    assert (last_ns - first_ns) / 1e9 == pytest.approx(3600)
    assert last_utc - first_utc == timedelta(hours=1)
    assert clock.waits == []


@given(st.sampled_from([5, 10, 12.5, 15, 24, 25, 30, 60]), st.sampled_from([1, 5, 10, 12.5, 15, 24, 25, 30, 60]))
def test_the_limit_keeps_the_rate_it_says_also_of_rounded_stamps(source_fps: float, limit_fps: float) -> None:
    limit = RateLimit(limit_fps)
    times = [round(n / source_fps, 3) for n in range(round(20 * source_fps))]
    kept = [time_s for time_s in times if limit.keeps(time_s)]
    assert kept[0] == 0
    if limit_fps >= source_fps:
        assert kept == times
    else:
        assert len(kept) == pytest.approx(20 * limit_fps, abs=1)
        assert max(b - a for a, b in pairwise(kept)) < 2 / limit_fps


@given(st.integers(0, 2**32))
def test_back_off_is_immediate_once_then_jitters_below_a_doubling_ceiling(seed: int) -> None:
    backoff = Backoff(first_s=1, limit_s=8, random=Random(seed))
    ceilings = [0, 1, 2, 4, 8, 8, 8]
    delays = [backoff.next() for _ in ceilings]
    assert all(0 <= delay <= ceiling for delay, ceiling in zip(delays, ceilings, strict=True))
    assert delays[0] == 0
    backoff.reset()
    assert backoff.next() == 0


def test_back_off_spreads_over_the_whole_range() -> None:
    backoff = Backoff(first_s=10, limit_s=10, random=Random(3))
    backoff.next()
    delays = [backoff.next() for _ in range(200)]
    assert min(delays) < 1
    assert max(delays) > 9
