"""The ring: what it holds, what it lets go, and what a clip says of it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.evidence.packets import Packet, Restamp, Stream
from agent.evidence.ring import Footage, NoFootage, PacketRing

STREAM = Stream(b"", "mp4", None)
FPS = 10


def packet(index: int, *, gop: int, size: int = 100) -> Packet:
    return Packet(bytes(size), index / FPS, index / FPS, index % gop == 0, index)


def filled(ring: PacketRing, frames: range, *, gop: int, size: int = 100, owner: object = "camera") -> None:
    """Packets of a camera whose clock runs with the machine's."""
    for index in frames:
        ring.add(owner, packet(index, gop=gop, size=size))
        ring.shown(owner, index, index * 1_000_000_000 // FPS)


def opened(pre_s: float, max_bytes: int = 10**9) -> PacketRing:
    ring = PacketRing(pre_s=pre_s, max_bytes=max_bytes)
    ring.connect("camera")
    ring.begin("camera", STREAM)
    return ring


def taken(ring: PacketRing, at: int, pre_s: float, post_s: float) -> list[Footage | NoFootage]:
    got: list[Footage | NoFootage] = []
    ring.take(at * 1_000_000_000 // FPS, pre_s, post_s, got.append)
    return got


def test_a_ring_that_sheds_lets_go_at_once_and_makes_no_clips_when_it_may_hold_nothing() -> None:
    ring = opened(5.0, 20_000)
    filled(ring, range(300), gop=10)
    before = ring.nbytes
    ring.shed(0.25)
    assert 0 < ring.nbytes <= 5_000 < before
    ring.shed(0.0)
    filled(ring, range(300, 400), gop=10)
    assert ring.nbytes == 0
    (refused,) = taken(ring, 399, 1.0, 1.0)
    assert isinstance(refused, NoFootage) and str(refused) == "memory is short"
    ring.shed(1.0)
    filled(ring, range(400, 500), gop=10)
    assert ring.nbytes > 0


@example(gop=1, at=267, pre=0, post=34, max_bytes=7700)
@given(
    gop=st.integers(1, 60),
    at=st.integers(0, 300),
    pre=st.integers(0, 80),
    post=st.integers(0, 80),
    max_bytes=st.integers(200, 40_000),
)
def test_a_clip_begins_at_a_key_picture_and_has_what_was_held(
    gop: int, at: int, pre: int, post: int, max_bytes: int
) -> None:
    ring = opened(pre / FPS, max_bytes)
    filled(ring, range(at + 1), gop=gop)
    assert ring.nbytes <= max_bytes
    got = taken(ring, at, pre / FPS, post / FPS)
    filled(ring, range(at + 1, at + post + 200), gop=gop)
    ring.end("camera")
    (footage,) = got
    if isinstance(footage, NoFootage):
        assert gop * 100 > max_bytes, "not even one key-picture interval fits"
        return
    stamps = [p.stamp or 0 for p in footage.packets]
    assert footage.packets[0].key and stamps == list(range(stamps[0], stamps[-1] + 1)), "nothing is left out"
    assert footage.at_s == pytest.approx(max(0, at - stamps[0]) / FPS)
    complete = stamps[0] <= max(0, at - pre) and stamps[-1] >= at + post
    if not complete and (stamps[0] > at - pre + FPS // 2 or stamps[-1] < at + post - FPS // 2):
        assert footage.notes, "what is missing is said"
    if max_bytes >= 100 * (pre + post + 3 * gop + 4 * FPS):
        assert complete and stamps[0] > at - pre - gop, "no more than one interval longer than asked for"


def test_two_intervals_are_held_however_short_the_pre_roll() -> None:
    ring = opened(0.0)
    filled(ring, range(1000), gop=100)
    got = taken(ring, 999, 20.0, 0.0)
    ring.end("camera")
    (footage,) = got
    assert isinstance(footage, Footage)
    assert footage.at_s >= 20.0 and not footage.notes


def test_what_a_small_ring_can_not_hold_shortens_the_pre_roll_and_is_said() -> None:
    ring = opened(5.0, max_bytes=3_000)
    filled(ring, range(200), gop=10)
    got = taken(ring, 199, 5.0, 1.0)
    filled(ring, range(200, 230), gop=10)
    (footage,) = got
    assert isinstance(footage, Footage)
    assert footage.notes == ("the clip begins 2.9 s before, not 5 s before: the packet ring holds no more",)


def test_a_lost_connection_ends_the_clip_and_the_next_is_not_joined_to_it() -> None:
    ring = opened(2.0)
    filled(ring, range(50), gop=10)
    got = taken(ring, 49, 2.0, 10.0)
    filled(ring, range(50, 70), gop=10)
    ring.connect("again")
    (footage,) = got
    assert isinstance(footage, Footage)
    assert footage.notes == ("the clip ends 2.0 s after, not 10 s: no more pictures came",)
    filled(ring, range(70, 80), gop=10)
    assert ring.nbytes == 0, "a connection that was given up brings nothing any more"
    ring.begin("again", STREAM)
    filled(ring, range(80, 100), gop=10, owner="again")
    got = taken(ring, 99, 5.0, 0.0)
    ring.end("again")
    (footage,) = got
    assert isinstance(footage, Footage)
    assert footage.packets[0].stamp == 80
    assert footage.notes == ("the clip begins 1.9 s before, not 5 s before: the camera gave no picture before",)


def test_a_flood_of_alerts_makes_only_so_many_clips() -> None:
    ring = opened(1.0)
    filled(ring, range(50), gop=10)
    got = [taken(ring, 49, 1.0, 1.0) for _ in range(6)]
    filled(ring, range(50, 70), gop=10)
    kinds = [type(footage) for (footage,) in got]
    assert kinds == [Footage] * 4 + [NoFootage] * 2


def test_without_packets_there_is_no_clip() -> None:
    ring = PacketRing(pre_s=1.0)
    (refused,) = taken(ring, 0, 1.0, 1.0)
    assert str(refused) == "the camera gives no packets"
    ring.connect("camera")
    got = taken(ring, 0, 1.0, 1.0)
    ring.end("camera")
    assert [str(refused) for refused in got] == ["the camera gives no packets"]


def test_an_alert_on_the_first_frame_waits_for_its_packets() -> None:
    ring = PacketRing(pre_s=1.0)
    ring.connect("camera")
    got = taken(ring, 3, 1.0, 0.5)
    ring.begin("camera", STREAM)
    filled(ring, range(30), gop=10)
    (footage,) = got
    assert isinstance(footage, Footage)
    assert footage.at_s == pytest.approx(0.3) and [p.stamp for p in footage.packets] == list(range(9))


stamp = st.none() | st.floats(-1e5, 1e5) | st.integers(0, 200).map(lambda n: n / 25)


@given(st.lists(st.tuples(stamp, stamp), min_size=1, max_size=80))
def test_times_rise_whatever_the_container_says(stamps: list[tuple[float | None, float | None]]) -> None:
    restamp = Restamp(period_s=0.04)
    placed = [restamp.place(dts_s, pts_s) for dts_s, pts_s in stamps]
    assert all(dts_s <= pts_s <= dts_s + 2.0 for dts_s, pts_s in placed)
    assert all(0 < after - before < 61 for (before, _), (after, _) in pairwise(placed))


def test_good_times_are_left_as_they_are() -> None:
    restamp = Restamp(period_s=0.04)
    order = [(0.0, 0.08), (0.04, 0.24), (0.08, 0.16), (0.12, 0.12), (0.16, 0.2)]
    for dts_s, pts_s in order:
        assert restamp.place(100 + dts_s, 100 + pts_s) == pytest.approx((dts_s, pts_s))
