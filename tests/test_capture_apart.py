"""Capture in a process of its own: the same frames and packets as here, and nothing of what may happen to it comes
over."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import pytest
from capture_media import textured, write_clip

from agent.capture import open_source
from agent.capture.backoff import Backoff
from agent.capture.frame import Frame
from agent.capture.ring import Ring
from agent.capture.source import FrameSource
from agent.capture.worker import CaptureState, CaptureWorker, Phase
from agent.evidence.ring import PacketRing
from agent.evidence.tap import RingTap
from config.errors import ConfigError, CorruptInput, EndOfStream, SourceError

pytestmark = pytest.mark.timeout(240)

LIVE = "scene:walkway?seed=3&fps=10&width=96&height=64"
PATIENCE_S = 60.0


def until(true: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"no {what} within {PATIENCE_S:g} s"
        time.sleep(0.02)


def there(pid: int) -> bool:
    """Whether a process runs; a zombie doesn't, and one of ours isn't waited for here."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def read_all(source: FrameSource) -> list[Frame]:
    """Every frame to the end, however busy the machine is."""
    frames = []
    with source:
        while True:
            try:
                frames.append(source.read(PATIENCE_S))
            except EndOfStream:
                return frames


def moving(i: int) -> np.ndarray[Any, Any]:
    """A texture that moves, so that the codec has vectors."""
    return np.roll(textured(0, (160, 96)), 3 * i, axis=1)


def sources(folder: Path) -> dict[str, str]:
    write_clip(folder / "clip.mp4", [moving(i) for i in range(40)], codec="libx264", gop=10)
    (folder / "pictures").mkdir()
    for i in range(16):
        cv2.imwrite(str(folder / f"pictures/{i}.png"), textured(i, (64, 48) if i < 9 else (80, 32)))
    return {
        "video": str(folder / "clip.mp4"),
        "pictures of two sizes": str(folder / "pictures"),
        "scene": "scene:street?seed=4&fps=8&width=160&height=90&seconds=2",
    }


def same(here: Frame, there: Frame) -> None:
    np.testing.assert_array_equal(here.image, there.image)
    for name in ("source", "index", "media_s", "discontinuity"):
        assert getattr(here, name) == getattr(there, name), name
    assert (here.motion is None) == (there.motion is None)
    if here.motion is not None and there.motion is not None:
        assert here.motion.frames == there.motion.frames
        mine, theirs = (
            here.motion.flow(),
            there.motion.flow(),
        )  # of the vectors themselves, libav leaves bytes unwritten
        np.testing.assert_array_equal(mine.backward, theirs.backward)


@pytest.mark.parametrize("kind", ["video", "pictures of two sizes", "scene"])
@pytest.mark.parametrize("fps", [None, 5.0])
def test_frames_and_their_times_are_those_of_a_thread(tmp_path: Path, kind: str, fps: float | None) -> None:
    uri = sources(tmp_path)[kind]
    frames = {
        apart: read_all(open_source(uri, source_id="cam", fps=fps, motion=True, apart=apart)) for apart in (False, True)
    }
    assert len(frames[True]) == len(frames[False]) > 2
    for here, there in zip(frames[False], frames[True], strict=True):
        same(here, there)
    if kind == "video" and fps is None:
        assert any(frame.motion is not None for frame in frames[True])
    for told in frames.values():
        first = told[0]
        for frame in told:
            into_s = (frame.media_s or 0.0) - (first.media_s or 0.0)
            assert frame.monotonic_ns - first.monotonic_ns == pytest.approx(into_s * 1e9, abs=2)
            assert (frame.utc - first.utc).total_seconds() == pytest.approx(into_s, abs=2e-6)


def test_packets_are_those_of_the_video_and_known_when_it_is_open(tmp_path: Path) -> None:
    uri = sources(tmp_path)["video"]
    recorded: dict[bool, tuple[Any, ...]] = {}
    for apart in (False, True):
        ring = PacketRing(pre_s=60.0)
        source = open_source(uri, source_id="cam", tap=RingTap(ring), apart=apart)
        assert ring.fed
        frames = read_all(source)
        taken: list[Any] = []
        ring.take(frames[20].monotonic_ns, 60.0, 0.0, taken.append)
        ring.connect(object())  # ends what is taken
        footage = taken[0]
        recorded[apart] = footage.stream, footage.packets, round(footage.at_s, 6)
    assert recorded[True] == recorded[False]
    assert len(recorded[True][1]) >= 20


def test_a_frame_that_is_kept_stays_as_it_was(tmp_path: Path) -> None:
    uri = sources(tmp_path)["video"]
    with open_source(uri, source_id="cam", apart=True) as source:
        held = [source.read(PATIENCE_S) for _ in range(30)]
    for here, there in zip(read_all(open_source(uri, source_id="cam")), held, strict=False):
        np.testing.assert_array_equal(here.image, there.image)


def test_what_goes_wrong_in_it_is_the_same_error(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"this is no video" * 100)
    for uri, kind in (
        (str(tmp_path / "no.mp4"), CorruptInput),
        (str(tmp_path / "gone.mp4"), SourceError),
        ("scene:moon", ConfigError),
    ):
        said = []
        for apart in (False, True):
            with pytest.raises(kind) as caught:
                open_source(uri, source_id="cam", apart=apart)
            assert type(caught.value) is kind
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_credentials_are_seen_nowhere(tmp_path: Path) -> None:
    began = threading.Event()
    seen: list[bytes] = []

    def look() -> None:
        while not began.is_set():
            for pid in children():
                for name in ("cmdline", "environ"):
                    try:
                        seen.append(Path(f"/proc/{pid}/{name}").read_bytes())
                    except OSError:
                        continue
            time.sleep(0.01)

    looking = threading.Thread(target=look)
    looking.start()
    with pytest.raises(SourceError) as caught:
        open_source("rtsp://127.0.0.1:9/1", source_id="cam", credentials="me:secret", apart=True, timeout_s=5)
    began.set()
    looking.join()
    assert any(b"agent.capture.child" in text for text in seen)
    assert not any(b"secret" in text for text in seen) and "secret" not in str(caught.value)


def children() -> list[int]:
    """Of this process, those that capture."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"agent.capture.child" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


class Watched:
    """A camera and its worker; the process that captures now is `pid`."""

    def __init__(self, name: str, *, stall_s: float = 10.0) -> None:
        self.states: list[CaptureState] = []
        self.pids: list[int] = []
        self.ring = Ring(3)
        self._worker = CaptureWorker(
            lambda: self._noted(open_source(LIVE, source_id=name, paced=True, apart=True)),
            self.ring,
            retry=Backoff(first_s=0.05, limit_s=0.2, random=Random(1)),
            on_state=self.states.append,
            stall_s=stall_s,
            name=name,
        )
        self._worker.start()

    def _noted(self, source: Any) -> Any:
        self.pids.append(source.pid)
        return source

    def frames(self, count: int) -> list[Frame]:
        found: list[Frame] = []

        def another() -> bool:
            frame = self.ring.get(1.0)
            if frame is not None:
                found.append(frame)
            return len(found) >= count

        until(another, f"{count} frames")
        return found

    def lost(self) -> list[str]:
        return [state.reason or "" for state in self.states if state.phase is Phase.RECONNECTING]

    def stop(self) -> None:
        self._worker.stop(10.0)


@pytest.mark.parametrize(
    ("number", "says"),
    [(signal.SIGKILL, "died (signal 9)"), (signal.SIGSEGV, "died (signal 11)"), (signal.SIGSTOP, "no frame within")],
    ids=["killed", "crashed", "hung"],
)
def test_a_process_that_is_lost_is_replaced_and_its_neighbour_never_notices(
    number: signal.Signals, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    victim, neighbour = Watched("victim", stall_s=6.0), Watched("neighbour", stall_s=60.0)
    try:
        victim.frames(3)
        before = neighbour.frames(3)
        os.kill(victim.pids[0], number)
        until(lambda: len(victim.pids) >= 2, "second process")
        after = victim.frames(6)
        assert any(frame.discontinuity for frame in after)
        indices = [frame.index for frame in after]
        assert indices == sorted(set(indices))
        assert any(says in reason for reason in victim.lost()), victim.lost()
        assert not there(victim.pids[0])
        later = neighbour.frames(3)
        assert len(neighbour.pids) == 1 and not neighbour.lost()
        assert not any(frame.discontinuity for frame in later) and later[0].index > before[-1].index
    finally:
        victim.stop()
        neighbour.stop()
    until(lambda: children() == [], "end of both")
    with pytest.raises(ChildProcessError):
        os.waitpid(victim.pids[0], os.WNOHANG)  # not even a zombie


def test_one_that_crashes_again_and_again_leaves_nothing_behind() -> None:
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    camera = Watched("camera")
    try:
        for crash in range(4):
            until(lambda crash=crash: len(camera.pids) > crash, "process")  # type: ignore[misc]
            os.kill(camera.pids[crash], signal.SIGSEGV)
        camera.frames(3)
    finally:
        camera.stop()
    until(lambda: children() == [], "end")
    camera.__dict__.clear()
    gc.collect()
    until(lambda: len(os.listdir("/proc/self/fd")) <= files, f"return to {files} descriptors")  # noqa: PTH208


def test_it_ends_with_the_agent_even_when_it_is_stopped() -> None:
    code = (
        "import os, signal, sys, time\n"
        "from agent.capture import open_source\n"
        f"held = [open_source({LIVE!r}, source_id=str(i), paced=True, apart=True) for i in range(2)]\n"
        "os.kill(held[1].pid, signal.SIGSTOP)\n"
        "print(*(source.pid for source in held), flush=True)\n"
        "time.sleep(600)\n"
    )
    agent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout is not None
        pids = [int(pid) for pid in agent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(there, pids))
    finally:
        agent.kill()
        agent.communicate()
    until(lambda: not any(map(there, pids)), "end of both")


def test_a_reader_that_is_slow_gets_the_newest_frames_of_a_live_source() -> None:
    """What nobody fetched is dropped where it is made, oldest first."""
    with open_source(LIVE, source_id="cam", paced=True, apart=True) as source:
        first = source.read(PATIENCE_S)
        held = [first, *(source.read(PATIENCE_S) for _ in range(2))]
        until(lambda: time.monotonic_ns() - first.monotonic_ns > 4e9, "frames to drop")
        later = [source.read(PATIENCE_S) for _ in range(20)]
    indices = [frame.index for frame in [*held, *later]]
    assert indices == sorted(set(indices))
    assert indices[-1] - indices[0] > len(indices), "some were dropped, and those after them came"
