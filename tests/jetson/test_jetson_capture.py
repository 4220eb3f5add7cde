"""Cameras through jetson-utils: in a process of their own and in a thread, and what becomes of them when they fail."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from capture_media import flat, grey, levels, read_all, write_clip

from agent.capture import jetson_choice, open_source
from agent.capture.backoff import Backoff
from agent.capture.jetson_choice import choose, missing
from agent.capture.ring import Ring
from agent.capture.worker import CaptureState, CaptureWorker, Phase
from config.errors import ConfigError, SourceError

pytestmark = pytest.mark.usefixtures("jetson")

Orders = Callable[..., None]
CSI = "csi://0?size=96x64&rate=60"


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orders]:
    """Tells the simulated cameras what to do, in whatever process they are."""
    file = tmp_path / "orders.json"
    monkeypatch.setenv("JETSON_SIM_CAMERA", str(file))

    def tell(does: str = "stream", after: int = 0, **more: Any) -> None:
        half = file.with_suffix(".half")
        half.write_text(json.dumps({"does": does, "after": after, **more}))
        half.replace(file)

    tell()
    yield tell


def number(image: np.ndarray[Any, Any]) -> int:
    """What a simulated camera writes into its frames."""
    return int(image[4, 4, 0])


@pytest.mark.parametrize("way", ["process", "thread"])
def test_a_camera_gives_its_newest_frames_the_right_way_up(way: str, orders: Orders) -> None:
    with open_source(f"{CSI}&capture={way}", source_id="cam") as source:
        assert (source.info.width, source.info.height, source.info.live) == (96, 64, True)
        frames = [source.read(5) for _ in range(6)]
    assert frames[0].discontinuity and not any(frame.discontinuity for frame in frames[1:])
    assert [number(frame.image) for frame in frames] == sorted({number(frame.image) for frame in frames})
    assert frames[0].image[4, -4].tolist() == [40, 200, 40]  # upper right, not lower left
    assert [frame.monotonic_ns for frame in frames] == sorted(frame.monotonic_ns for frame in frames)


@pytest.mark.parametrize("way", ["process", "thread"])
def test_frames_stay_as_they_were_however_long_they_are_kept(way: str, orders: Orders) -> None:
    with open_source(f"{CSI}&capture={way}&buffers=4", source_id="cam") as source:
        kept = [source.read(5) for _ in range(3)]
        before = [frame.image.copy() for frame in kept]
        later = [source.read(5).index for _ in range(12)]
        assert later == sorted(set(later))
        for frame, image in zip(kept, before, strict=True):
            np.testing.assert_array_equal(frame.image, image)


def test_when_more_frames_are_held_than_there_are_slots_they_are_copied(orders: Orders) -> None:
    with open_source(CSI, source_id="cam") as source:
        held = [source.read(5) for _ in range(14)]
        assert len({number(frame.image) for frame in held}) == 14
        assert source.copied == 14 - 7
        del held
        gc.collect()
        copied = source.copied
        for _ in range(5):
            source.read(5)
        assert source.copied == copied


@pytest.mark.parametrize(
    ("way", "does", "says"),
    [
        ("process", "die", "died (signal 9"),
        ("process", "hang", "no frame"),
        ("process", "nothing", "no frame"),
        ("process", "throw", "failed to capture"),
        ("thread", "hang", "no frame"),
        ("thread", "nothing", "no frame"),
        ("thread", "throw", "failed to capture"),
    ],
)
def test_whatever_a_camera_does_the_worker_says_so_and_has_it_back(
    way: str, does: str, says: str, orders: Orders
) -> None:
    states: list[CaptureState] = []
    back = threading.Event()
    ring = Ring(3)

    def note(state: CaptureState) -> None:
        states.append(state)
        if state.phase is Phase.RECONNECTING:
            orders("stream")
            back.set()

    orders(does, after=5)
    opened = lambda: open_source(CSI, source_id="cam", timeout_s=60)  # noqa: E731
    worker = CaptureWorker(opened, ring, retry=Backoff(first_s=0.01, random=Random(1)), on_state=note, stall_s=1.0)
    worker.start()
    try:
        assert back.wait(60), states
        lost = next(state for state in states if state.phase is Phase.RECONNECTING)
        assert lost.reason is not None and says.split(" .")[0] in lost.reason
        deadline = time.monotonic() + 60
        indices: list[int] = []
        while len(indices) < 8 and time.monotonic() < deadline:
            frame = ring.get(1.0)
            if frame is not None:
                indices.append(frame.index)
        assert len(indices) == 8 and indices == sorted(set(indices))
        assert [state.phase for state in states].count(Phase.STREAMING) >= 2
    finally:
        worker.stop()


def test_closing_kills_a_capture_that_hangs_and_leaves_no_process(orders: Orders) -> None:
    source = open_source(CSI, source_id="cam")
    source.read(5)
    orders("hang")
    source.close()  # else it waits for ever
    with pytest.raises(ProcessLookupError):
        os.kill(source.pid, 0)


def test_the_capture_process_ends_with_the_agent(orders: Orders) -> None:
    source = open_source(CSI, source_id="cam")
    orders("hang")
    source._connection.close()  # as the kernel does it when the agent dies
    assert source._process.wait(60) == 0


def test_the_capture_process_loads_little_more_than_numpy() -> None:
    """A camera is back the sooner: libav, OpenCV and the agent's own modules are not for it."""
    code = "import numpy, sys; before = set(sys.modules)\nimport agent.capture.jetson_child\n"
    code += "print(' '.join(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert not {"av", "cv2", "pydantic", "structlog", "onnxruntime"} & set(loaded)
    assert len(loaded) < 50, sorted(loaded)


def test_an_rtsp_camera_that_is_offline_is_waited_for_if_its_codec_is_told(orders: Orders) -> None:
    orders("offline")
    with pytest.raises(SourceError, match="jetson-utils can't open it"):
        open_source("rtsp://cam.invalid/1#capture=process", source_id="cam", timeout_s=60)
    with pytest.raises(SourceError, match="no frame from jetson-utils within 1 s"):
        open_source("rtsp://cam.invalid/1#capture=process&codec=h264", source_id="cam", timeout_s=1)


def test_no_message_holds_a_credential(orders: Orders) -> None:
    orders("offline")
    with pytest.raises(SourceError) as caught:
        open_source("rtsp://cam.invalid/1#capture=process", source_id="cam", credentials="me:secret", timeout_s=60)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("way", ["process", "thread"])
def test_a_file_gives_every_frame_and_then_its_end(way: str, tmp_path: Path, orders: Orders) -> None:
    write_clip(tmp_path / "clip.mp4", [flat(i) for i in range(30)])
    frames = read_all(open_source(f"{tmp_path / 'clip.mp4'}#capture={way}", source_id="cam"))
    assert [round(level) for level in levels(frames)] == pytest.approx([grey(i) for i in range(30)], abs=3)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("csi://0?flip=upside", "expected one of none"),
        ("csi://0?codec=h999", "expected one of H264"),
        ("csi://0?size=big", "can't be read"),
        ("csi://0?colour=red", "unknown option colour"),
        ("csi://0?capture=libav", "only jetson-utils"),
        ("csi://0?capture=magic", "expected one of process"),
        ("csi:0", "expected csi://N"),
    ],
)
def test_options_that_jetson_utils_would_ignore_are_refused(uri: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_source(uri, source_id="cam")


def test_who_captures_and_why() -> None:
    here, gone = (lambda: None), (lambda: "it is not there")
    assert choose("rtsp://a/1", absent=here).way == "process"
    assert choose("/dev/video0", absent=here).way == "process"
    for uri, packets, absent, why in (
        ("rtsp://a/1", False, gone, "it is not there"),
        ("rtsp://a/1", True, here, "clips"),
        ("rtsp://a/1#capture=libav", False, here, "as it was told"),
        ("/dev/video0?size=640x480", False, here, "libav's options"),
        ("clip.mp4", False, here, "without skipping"),
        ("a#b=c.mp4", False, here, "without skipping"),
    ):
        choice = choose(uri, packets=packets, absent=absent)
        assert choice.way is None and why in choice.why
    assert choose("rtsp://a/1#capture=libav").uri == "rtsp://a/1"
    with pytest.raises(ConfigError, match="it is not there"):
        choose("csi://0", absent=gone)


def test_a_broken_extension_is_found_out_though_the_package_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing() is None
    monkeypatch.setenv("JETSON_SIM_EXTENSION", "broken")
    jetson_choice._broken.cache_clear()
    assert "C extension" in (missing() or "")
    jetson_choice._broken.cache_clear()
