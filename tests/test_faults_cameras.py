"""Streams that go wrong in the middle: a real RTSP server that lies, talks garbage and changes its picture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from random import Random

import pytest
from capture_media import textured
from capture_servers import rtp_packets, rtsp_camera

from agent.capture import open_source
from agent.capture.backoff import Backoff
from agent.capture.frame import Frame
from agent.capture.ring import Ring
from agent.capture.worker import CaptureState, CaptureWorker, Phase

SMALL, LARGE = (160, 120), (320, 240)
TICKS = 3600
"""Of a 90 kHz clock between two pictures at 25 a second."""
Packets = list[list[bytes]]


@pytest.fixture(scope="module")
def small() -> Packets:
    return rtp_packets([textured(i, SMALL) for i in range(25)])


@pytest.fixture(scope="module")
def large() -> Packets:
    return rtp_packets([textured(i, LARGE) for i in range(25)])


class Playing:
    """Sends pictures for ever, numbered as one stream; `stamp` says which time the n-th one claims to have."""

    def __init__(self, stamp: Callable[[int], int] = lambda n: n * TICKS) -> None:
        self._stamp = stamp
        self._packet = self.pictures = 0

    def picture(self, packets: list[bytes], send: Callable[[bytes], None]) -> None:
        stamp = (self._stamp(self.pictures) % 2**32).to_bytes(4, "big")
        for packet in packets:
            send(packet[:2] + (self._packet % 2**16).to_bytes(2, "big") + stamp + b"cam1" + packet[12:])
            self._packet += 1
        self.pictures += 1


@contextmanager
def watched(script: Callable[[Callable[[bytes], None], Callable[[], None]], None]) -> Iterator[tuple[Ring, list[str]]]:
    """A worker that watches what the script sends to each client; it is given a way to send and one to wait for the
    next picture's turn."""
    states: list[str] = []

    def play(_client: int, send: Callable[[bytes], None], stopped: threading.Event) -> None:
        def turn() -> None:
            if stopped.wait(0.01):
                raise OSError("over")

        script(send, turn)

    def note(state: CaptureState) -> None:
        states.append(state.phase.value)

    ring = Ring()
    with rtsp_camera(play) as url:
        worker = CaptureWorker(
            lambda: open_source(url, source_id="cam"),
            ring,
            retry=Backoff(first_s=0.01, limit_s=0.05),
            on_state=note,
            stall_s=3.0,
        )
        worker.start()
        try:
            yield ring, states
        finally:
            worker.stop()


def frames_until(ring: Ring, enough: Callable[[list[Frame]], bool]) -> list[Frame]:
    frames: list[Frame] = []
    while not enough(frames):
        frame = ring.get(1.0)
        if frame is not None:
            frames.append(frame)
    return frames


def shape(frame: Frame) -> tuple[int, int]:
    return frame.image.shape[1], frame.image.shape[0]


@pytest.mark.parametrize(
    "stamp",
    [
        pytest.param(lambda n: -n * TICKS, id="backwards"),
        pytest.param(lambda _: 7, id="standing still"),
        pytest.param(lambda n: Random(n).randrange(2**32), id="at random"),
        pytest.param(lambda n: n * TICKS + 10 * 90_000 * (n // 20 % 2), id="ten seconds to and fro"),
    ],
)
def test_whatever_time_a_camera_claims_positions_rise_and_frames_come(
    small: Packets, stamp: Callable[[int], int]
) -> None:
    def play(send: Callable[[bytes], None], turn: Callable[[], None]) -> None:
        playing = Playing(stamp)
        while True:
            playing.picture(small[playing.pictures % len(small)], send)
            turn()

    with watched(play) as (ring, _):
        frames = frames_until(ring, lambda frames: len(frames) >= 50)
    assert [f.index for f in frames] == sorted({f.index for f in frames})
    captured = [f.monotonic_ns for f in frames]
    assert captured == sorted(captured)
    for before, after in pairwise(frames):
        assert after.discontinuity or before.media_s is None or after.media_s is None or after.media_s > before.media_s


def test_a_picture_of_another_size_is_a_break_and_no_loss(small: Packets, large: Packets) -> None:
    def play(send: Callable[[bytes], None], turn: Callable[[], None]) -> None:
        playing = Playing()
        while True:
            part = (small, large)[playing.pictures // 25 % 2]
            playing.picture(part[playing.pictures % 25], send)
            turn()

    with watched(play) as (ring, states):
        frames = frames_until(ring, lambda frames: sum(shape(a) != shape(b) for a, b in pairwise(frames)) >= 3)
    assert {shape(frame) for frame in frames} == {SMALL, LARGE}
    assert all(b.discontinuity for a, b in pairwise(frames) if shape(a) != shape(b))
    assert states.count(Phase.STREAMING.value) >= 1


def test_garbage_in_the_middle_costs_what_it_hit_and_the_camera_comes_back(small: Packets) -> None:
    """A decoder may find anything in random bytes, a picture of another size, too; afterwards all is as before."""
    random = Random(5)

    def play(send: Callable[[bytes], None], turn: Callable[[], None]) -> None:
        playing = Playing()
        while True:
            packets = small[playing.pictures % len(small)]
            if playing.pictures in range(30, 50):
                packets = [packet[:12] + random.randbytes(len(packet) - 12) for packet in packets]
            playing.picture(packets, send)
            turn()

    def well_again(frames: list[Frame]) -> bool:
        return len(frames) > 80 and all(
            shape(frame) == SMALL and 120 < float(frame.image.mean()) < 135 for frame in frames[-25:]
        )

    with watched(play) as (ring, _):
        frames = frames_until(ring, well_again)
    assert all(b.discontinuity for a, b in pairwise(frames) if shape(a) != shape(b))
