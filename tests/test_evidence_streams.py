"""Clips of cameras on the network: packets as they really come, lost connections, pictures without time stamps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from capture_media import flat, grey, multipart
from capture_servers import http_camera, rtp_packets, rtsp_camera
from mqtt_world import until

from agent.capture import open_source
from agent.capture.backoff import Backoff
from agent.capture.frame import Frame
from agent.capture.ring import Ring
from agent.capture.source import FrameSource
from agent.capture.tap import PacketTap
from agent.capture.worker import CaptureWorker
from agent.evidence.clip import write_clip as write_footage
from agent.evidence.recording import recorded
from agent.evidence.ring import Footage, NoFootage, PacketRing

IMAGES = [flat(i, (160, 120)) for i in range(200)]


def _open(url: str, tap: PacketTap | None) -> FrameSource:
    return open_source(url, source_id="cam", tap=tap)


def _levels(footage: Footage, path: Path) -> list[tuple[float, float]]:
    """(seconds into the clip, grey level) of every picture of a clip."""
    write_footage(path, footage)
    with av.open(str(path)) as clip:
        return [(float(f.time or 0), float(f.to_ndarray(format="rgb24").mean())) for f in clip.decode(video=0)]


def _frame_at(ring: Ring, index: int) -> Frame:
    while True:
        frame = ring.get(60)
        assert frame is not None, "the camera ended too early"
        if frame.index >= index:
            return frame


def test_an_rtsp_camera_that_hangs_up_leaves_a_clip_of_what_came_and_goes_on_with_the_next(tmp_path: Path) -> None:
    pictures = rtp_packets(IMAGES[:70])
    go_on = threading.Event()

    def play(client: int, send: Callable[[bytes], None], stopped: threading.Event) -> None:
        for number, picture in enumerate(pictures):
            if number == 55 and client == 0:
                go_on.wait(60)
                return
            for packet in picture:
                send(packet)
            stopped.wait(0.04)
        stopped.wait()

    packets = PacketRing(pre_s=1.0)
    frames = Ring()
    taken: list[Footage | NoFootage] = []
    with rtsp_camera(play) as url:
        opener = recorded(partial(_open, url), {}, packets, encode=True)
        worker = CaptureWorker(opener, frames, retry=Backoff(first_s=0.01, limit_s=0.02), on_state=lambda _: None)
        worker.start()
        try:
            frame = _frame_at(frames, 45)
            packets.take(frame.monotonic_ns, 1.0, 60.0, taken.append)
            go_on.set()
            until(lambda: taken, "the clip of the connection that was lost")
            again = _frame_at(frames, 60)
            packets.take(again.monotonic_ns, 1.0, 0.2, taken.append)
            while len(taken) < 2:
                frames.get(0.1)
        finally:
            worker.stop()
    lost, after = taken
    assert isinstance(lost, Footage) and isinstance(after, Footage)
    assert lost.notes[-1].endswith("not 60 s: no more pictures came")
    assert after.packets[0].key
    for number, (footage, deciding) in enumerate([(lost, frame), (after, again)]):
        assert footage.stream.suffix == "mp4"
        shown = _levels(footage, tmp_path / f"{number}.mp4")
        level = min(shown, key=lambda picture: abs(picture[0] - shown[0][0] - footage.at_s))[1]
        assert level == pytest.approx(float(deciding.image.mean()), abs=2), "clip_at_s is where the deciding frame is"
        steps = np.diff([at_s for at_s, _ in shown])
        assert (steps > 0).all() and np.median(steps) == pytest.approx(0.04, abs=0.005)


def test_pictures_without_time_stamps_are_placed_by_when_they_came(tmp_path: Path) -> None:
    parts = multipart(IMAGES)

    def play(client: int, send: Callable[[bytes], None], stopped: threading.Event) -> None:
        for part in parts:
            send(part)
            stopped.wait(0.1)  # ten a second, whatever libav takes them for
        stopped.wait()

    packets = PacketRing(pre_s=0.5)
    taken: list[Footage | NoFootage] = []
    with (
        http_camera(play, "multipart/x-mixed-replace; boundary=edge") as url,
        recorded(partial(_open, url), {}, packets, encode=True)() as source,
    ):
        read = [source.read()]
        while read[-1].index < 15:
            read.append(source.read())
        frame = read[-1]
        packets.take(frame.monotonic_ns, 0.5, 0.5, taken.append)
        while not taken:
            read.append(source.read())
    (footage,) = taken
    assert isinstance(footage, Footage) and footage.stream.suffix == "mkv"
    shown = _levels(footage, tmp_path / "clip.mkv")
    longest_s = float(np.diff([one.monotonic_ns for one in read]).max()) / 1e9
    assert 0.8 <= shown[-1][0] - shown[0][0] <= 2.0 + longest_s
    nearest = min(shown, key=lambda picture: abs(picture[0] - shown[0][0] - footage.at_s))
    assert nearest[1] == pytest.approx(grey(frame.index), abs=8), "that picture or its neighbour"
