"""Network sources and devices: real RTSP and HTTP on loopback, stalls, losses, refusals, prompt closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from capture_media import flat, grey, levels, multipart, transport_stream, write_clip
from capture_servers import closed_port, http_camera, rtp_packets, rtsp_camera, silent_listener

from agent.capture import open_source
from agent.capture.backoff import Backoff
from agent.capture.detached import DetachedSource
from agent.capture.frame import Frame
from agent.capture.ring import Ring
from agent.capture.source import FrameSource
from agent.capture.worker import CaptureState, CaptureWorker, Phase
from config.errors import SourceError

IMAGES = [flat(i, (160, 120)) for i in range(60)]
NEVER_S = 600.0
"""A time-out that a test never sees the end of: what hangs runs into pytest's own limit."""


@contextmanager
def running(worker: CaptureWorker) -> Iterator[None]:
    worker.start()
    try:
        yield
    finally:
        worker.stop()


@pytest.fixture(scope="module")
def packets() -> list[list[bytes]]:
    return rtp_packets(IMAGES)


@pytest.fixture(scope="module")
def transport() -> bytes:
    return transport_stream(IMAGES)


def test_rtsp_gives_the_cameras_frames_to_who_has_the_password(packets: list[list[bytes]]) -> None:
    def play(client: int, send: Callable[[bytes], None], stopped: threading.Event) -> None:
        for packet in (packet for picture in packets for packet in picture):
            send(packet)
            stopped.wait(0.01)
        stopped.wait()

    with rtsp_camera(play, credentials="admin:p@ss:/1") as url:
        with pytest.raises(SourceError, match="401"):
            open_source(url, source_id="cam")
        with open_source(url.replace("//", "//admin:old@"), source_id="cam", credentials="admin:p@ss:/1") as source:
            assert (source.info.width, source.info.height, source.info.live) == (160, 120, True)
            frames = [source.read()]
            while frames[-1].index < 40:
                frames.append(source.read())
    assert frames[0].discontinuity
    assert levels(frames) == pytest.approx([grey(f.index) for f in frames], abs=4)
    assert [f.media_s for f in frames] == pytest.approx([f.index / 25 for f in frames], abs=0.03)


def test_a_camera_that_hangs_up_is_called_again(packets: list[list[bytes]]) -> None:
    def play(client: int, send: Callable[[bytes], None], stopped: threading.Event) -> None:
        for picture in packets[:40]:
            for packet in picture:
                send(packet)
            stopped.wait(0.02)

    states: list[CaptureState] = []
    ring = Ring()
    with rtsp_camera(play) as url:
        worker = CaptureWorker(
            lambda: open_source(url, source_id="cam"),
            ring,
            retry=Backoff(first_s=0.01, limit_s=0.02),
            on_state=states.append,
            stall_s=NEVER_S,
        )
        with running(worker):
            frames = _until_reconnected(ring, states, times=2)
    assert [s.phase for s in states[:5]] == [
        Phase.CONNECTING,
        Phase.STREAMING,
        Phase.RECONNECTING,
        Phase.CONNECTING,
        Phase.STREAMING,
    ]
    assert "the other side ended the stream" in str(states[2].reason)
    assert [f.index for f in frames] == sorted({f.index for f in frames})
    assert sum(f.discontinuity for f in frames) == 3


def test_a_stalled_stream_is_opened_again_and_goes_on(transport: bytes) -> None:
    def play(client: int, send: Callable[[bytes], None], stopped: threading.Event) -> None:
        send(transport)
        stopped.wait()  # says nothing more

    states: list[CaptureState] = []
    ring = Ring()
    with http_camera(play) as url:
        worker = CaptureWorker(
            lambda: open_source(url, source_id="cam", timeout_s=NEVER_S),
            ring,
            retry=Backoff(first_s=0.01, limit_s=0.02),
            on_state=states.append,
            stall_s=2.0,
        )
        with running(worker):
            frames = _until_reconnected(ring, states, times=1)
    assert [s.phase for s in states[:5]] == [
        Phase.CONNECTING,
        Phase.STREAMING,
        Phase.RECONNECTING,
        Phase.CONNECTING,
        Phase.STREAMING,
    ]
    assert states[2].reason == f"{url}: no frame within 2 s"
    assert [f.discontinuity for f in frames if f.index == frames[0].index] == [True]


def test_motion_jpeg_over_http_has_no_positions_but_a_capture_time() -> None:
    parts = multipart(IMAGES)

    def play(client: int, send: Callable[[bytes], None], stopped: threading.Event) -> None:
        for part in parts:
            send(part)
            stopped.wait(0.01)
        stopped.wait()

    with (
        http_camera(play, "multipart/x-mixed-replace; boundary=edge") as url,
        open_source(url, source_id="cam") as source,
    ):
        frames = [source.read() for _ in range(10)]
    assert {f.media_s for f in frames} == {None}
    assert levels(frames) == pytest.approx([grey(f.index) for f in frames], abs=4)
    assert all(a.monotonic_ns < b.monotonic_ns for a, b in pairwise(frames))


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_refused_and_silent_servers_are_source_errors_without_the_password(scheme: str) -> None:
    with pytest.raises(SourceError, match="Connection refused") as refused:
        open_source(f"{scheme}://me:secret@127.0.0.1:{closed_port()}/u=me&password=secret", source_id="cam")
    with silent_listener() as port, pytest.raises(SourceError, match=r"no data within 0\.3 s") as silent:
        open_source(f"{scheme}://127.0.0.1:{port}/", source_id="cam", timeout_s=0.3, credentials="me:secret")
    for caught in (refused, silent):
        error: BaseException | None = caught.value
        while error is not None:
            assert "secret" not in str(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert "***@" in str(refused.value)


def test_a_missing_device_says_which() -> None:
    with pytest.raises(SourceError, match=r"/dev/video97.*No such file"):
        open_source("/dev/video97?size=640x480&rate=30", source_id="cam")


def test_a_page_that_is_no_video_is_worth_a_retry() -> None:
    with http_camera(lambda client, send, stopped: send(b"<html>" * 100), "text/html") as url:
        with pytest.raises(SourceError) as caught:
            open_source(url, source_id="cam")
        assert url in str(caught.value)


def test_closing_does_not_wait_for_a_blocked_read(transport: bytes) -> None:
    def play(client: int, send: Callable[[bytes], None], stopped: threading.Event) -> None:
        send(transport)
        stopped.wait()

    outcome: list[str] = []
    with http_camera(play) as url:
        source = open_source(url, source_id="cam", timeout_s=NEVER_S)

        def read_on() -> None:
            try:
                while True:
                    source.read(NEVER_S)
            except SourceError as error:
                outcome.append(str(error))

        reader = threading.Thread(target=read_on)
        reader.start()
        source.close()
        reader.join()
    assert outcome == [f"{url}: closed"]


def test_an_open_that_hangs_is_given_up_and_what_it_brings_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, IMAGES[:2])
    late = open_source(str(path), source_id="cam")
    release = threading.Event()

    def hang() -> FrameSource:
        release.wait()
        return late

    with pytest.raises(SourceError, match=r"slow: no answer within 0\.1 s"):
        DetachedSource(hang, name="slow", timeout_s=0.1)
    release.set()
    while not _closed(late):
        time.sleep(0.01)


def test_stopping_a_worker_that_waits_for_its_next_attempt_is_silent() -> None:
    states: list[CaptureState] = []
    waiting = threading.Event()

    def tell(state: CaptureState) -> None:
        states.append(state)
        if state.phase is Phase.RECONNECTING:
            waiting.set()

    worker = CaptureWorker(
        lambda: open_source(f"rtsp://127.0.0.1:{closed_port()}/", source_id="cam"),
        Ring(),
        retry=Backoff(first_s=NEVER_S, limit_s=NEVER_S, random=Random(1)),
        on_state=tell,
    )
    worker.start()
    assert waiting.wait(30)
    told = len(states)
    worker.stop(timeout_s=NEVER_S)
    assert len(states) == told
    assert worker.error is None


def _closed(source: FrameSource) -> bool:
    try:
        source.read()
    except SourceError as error:
        return "closed" in str(error)
    return False


def _until_reconnected(ring: Ring, states: list[CaptureState], *, times: int) -> list[Frame]:
    """Frames up to the first one after so many reconnects."""
    frames = []
    while sum(f.discontinuity for f in frames) <= times:
        frame = ring.get(60)
        assert frame is not None, states
        frames.append(frame)
    return frames
