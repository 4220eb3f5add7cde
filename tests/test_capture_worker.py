"""The worker against sources that follow a script: states, reconnects, back-pressure, drops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from random import Random
from types import TracebackType

import numpy as np
import pytest
from capture_clock import FakeClock
from capture_media import flat, grey, levels, write_clip

from agent.capture import open_source
from agent.capture.backoff import Backoff
from agent.capture.frame import Frame
from agent.capture.ring import Ring
from agent.capture.source import FrameSource, SourceInfo
from agent.capture.worker import CaptureState, CaptureWorker, Phase
from config.errors import CorruptInput, EndOfStream, SourceError

PIXELS = np.zeros((2, 2, 3), np.uint8)


class Scripted:
    """A source that gives so many frames, then raises `end`. `before` is called before each frame."""

    def __init__(
        self, frames: int, end: Exception, *, live: bool = True, before: Callable[[], None] | None = None
    ) -> None:
        self.info = SourceInfo(2, 2, 25.0, None, live)
        self._steps: Iterator[int] = iter(range(frames))
        self._end = end
        self._before = before
        self.closed = False

    def read(self, timeout_s: float = 5.0) -> Frame:
        index = next(self._steps, None)
        if index is None:
            raise self._end
        if self._before is not None:
            self._before()
        return Frame(PIXELS, "cam", index, index, datetime.now(timezone.utc), None, index == 0)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Scripted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


LOST = SourceError("cam: cable pulled")
END = EndOfStream("cam: ended")


def opener(*connections: Scripted | Exception) -> Callable[[], FrameSource]:
    script = iter(connections)

    def connect() -> FrameSource:
        connection = next(script)
        if isinstance(connection, Exception):
            raise connection
        return connection

    return connect


def run(
    open_it: Callable[[], FrameSource], *, retry: Backoff | None = None, clock: FakeClock | None = None
) -> tuple[CaptureWorker, list[Frame], list[CaptureState]]:
    """Run a worker to its end with a consumer that keeps up."""
    states: list[CaptureState] = []
    ring = Ring()
    worker = CaptureWorker(
        open_it, ring, retry=retry, on_state=states.append, lossless=True, clock=clock or FakeClock(), stable_s=10
    )
    worker.start()
    frames = []
    while not ring.drained:
        if (frame := ring.get(30)) is not None:
            frames.append(frame)
    worker.stop(timeout_s=30)
    return worker, frames, states


def test_a_lost_source_is_opened_again_with_growing_jittered_waits() -> None:
    clock = FakeClock()
    connections = (Scripted(3, LOST), LOST, LOST, Scripted(2, END))
    worker, frames, states = run(opener(*connections), retry=Backoff(random=Random(7)), clock=clock)

    expected = Backoff(random=Random(7))
    delays = [expected.next() for _ in range(4)][1:]
    assert clock.waits == delays
    assert [(s.phase, s.retry_s) for s in states] == [
        (Phase.CONNECTING, None),
        (Phase.STREAMING, None),
        (Phase.RECONNECTING, delays[0]),
        (Phase.CONNECTING, None),
        (Phase.RECONNECTING, delays[1]),
        (Phase.CONNECTING, None),
        (Phase.RECONNECTING, delays[2]),
        (Phase.CONNECTING, None),
        (Phase.STREAMING, None),
        (Phase.ENDED, None),
    ]
    assert states[2].reason == "cam: cable pulled"
    assert [(f.index, f.discontinuity) for f in frames] == [(0, True), (1, False), (2, False), (3, True), (4, False)]
    assert worker.frames == 5
    assert worker.error is None
    assert all(c.closed for c in connections if isinstance(c, Scripted))


def test_a_connection_that_lasted_is_tried_again_at_once_and_one_that_did_not_is_not() -> None:
    clock = FakeClock()

    def pass_time() -> None:
        clock.now_s += 6

    connections = (Scripted(3, LOST, before=pass_time), Scripted(2, LOST, before=pass_time), Scripted(1, END))
    run(opener(*connections), retry=Backoff(first_s=5, random=Random(7)), clock=clock)
    assert clock.waits[0] == 0
    assert clock.waits[1] > 0


@pytest.mark.parametrize(
    ("connection", "error"),
    [(LOST, LOST), (Scripted(2, LOST), LOST)],
)
def test_without_retry_the_first_loss_is_final(connection: Scripted | Exception, error: Exception) -> None:
    worker, _, states = run(opener(connection), retry=None)
    assert states[-1] == CaptureState(Phase.FAILED, "cam: cable pulled")
    assert worker.error is error


def test_what_a_retry_can_not_mend_is_final() -> None:
    corrupt = CorruptInput("clip.mp4: damaged")
    worker, frames, states = run(opener(Scripted(2, corrupt)), retry=Backoff())
    assert states[-1] == CaptureState(Phase.FAILED, "clip.mp4: damaged")
    assert worker.error is corrupt
    assert len(frames) == 2


def test_a_live_source_drops_the_oldest_for_a_busy_consumer() -> None:
    ring = Ring(3)
    ended = threading.Event()
    worker = CaptureWorker(
        opener(Scripted(50, END)), ring, retry=None, on_state=lambda s: ended.set() if s.phase is Phase.ENDED else None
    )
    worker.start()
    assert ended.wait(30)
    frames = [ring.get(0) for _ in range(3)]
    assert [(f.index, f.discontinuity) for f in frames if f] == [(47, True), (48, False), (49, False)]
    assert ring.dropped == 47
    worker.stop()


def test_an_unpaced_file_waits_for_a_busy_consumer(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, [flat(i) for i in range(40)])
    ring = Ring(3)
    worker = CaptureWorker(
        lambda: open_source(str(path), source_id="cam"), ring, retry=None, on_state=lambda state: None
    )
    worker.start()
    frames = []
    while not ring.drained:
        if (frame := ring.get(30)) is not None:
            frames.append(frame)
    assert [f.index for f in frames] == list(range(40))
    assert levels(frames) == pytest.approx([grey(i) for i in range(40)], abs=3)
    assert ring.dropped == 0
    worker.stop()


def test_stopping_frees_a_worker_that_waits_for_room(tmp_path: Path) -> None:
    source = Scripted(10, END, live=False)
    full = threading.Event()
    ring = Ring(1)
    worker = CaptureWorker(opener(source), ring, retry=None, on_state=lambda state: full.set())
    worker.start()
    assert full.wait(30)
    worker.stop(timeout_s=30)
    assert source.closed
    assert worker.error is None
    assert ring.get(0) is None or ring.drained
