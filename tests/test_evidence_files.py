"""Files of evidence: whole or not there, kept within limits, and never in the way of the events themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from capture_media import textured
from events_memory import memory_folder
from evidence_crashing import footage
from hypothesis import given
from hypothesis import strategies as st
from mqtt_world import until

from agent.events.model import Media, Severity
from agent.evidence.archive import Archive
from agent.evidence.files import CLIPS, SNAPSHOTS, Shelf, write_whole
from agent.evidence.ring import ClipSpan, PacketRing

TESTS = Path(__file__).parent


class Told:
    """What an archive says of the parts of events."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, tuple[str, ...], Media | None, tuple[str, ...]]] = []

    def __call__(
        self, event_id: str, *, done: Sequence[str], media: Media | None = None, notes: Sequence[str] = ()
    ) -> None:
        self.parts.append((event_id, tuple(done), media, tuple(notes)))


def lay(shelf: Shelf, kind: str, severity: Severity, name: str, size: int = 1000, age_s: float = 0.0) -> Path:
    path = shelf.path(kind, severity, name)
    write_whole(path, lambda part: _fill(part, size))
    os.utime(path, (1e9 - age_s, 1e9 - age_s))
    return path


def _fill(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))


def test_killed_at_every_line_a_file_is_whole_or_not_there() -> None:
    with memory_folder() as folder:
        command = [sys.executable, str(TESTS / "evidence_crashing.py"), str(folder), "7"]
        paths = os.pathsep.join((str(TESTS.parent), str(TESTS)))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=170, env={**os.environ, "PYTHONPATH": paths}, check=False
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > 120, "there are that many lines to die at"
        # What stands in the folder itself has one name: the next write of it replaces what was left half-way.
        files = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
        unfinished = [path for path in files if path.name.endswith(".part")]
        assert unfinished, "some were killed half-way"
        for path in set(files) - set(unfinished):
            if path.suffix == ".mp4":
                with av.open(str(path)) as clip:
                    # Packets are counted: the decoder of FFmpeg 7 may keep the last picture of a stream to itself.
                    pictures = sum(1 for packet in clip.demux(video=0) if packet.size)
                assert pictures == (3 if path.name.startswith("line") else 300)
            else:
                assert cv2.imread(str(path)).shape == (48, 64, 3)  # type: ignore[union-attr]
        assert Shelf(folder).clear_unfinished() == len(unfinished)
        assert not [path for path in files if path.name.endswith(".part") and path.exists()]


@given(
    st.lists(st.tuples(st.sampled_from(Severity), st.integers(1, 50), st.booleans()), max_size=12), st.integers(0, 300)
)
def test_the_least_severe_and_oldest_go_first(files: list[tuple[Severity, int, bool]], max_bytes: int) -> None:
    with memory_folder() as folder:
        shelf = Shelf(folder)
        laid = [
            (severity.rank, index, size, old, lay(shelf, CLIPS, severity, f"{index:03}.mp4", size, 9e5 if old else 0))
            for index, (severity, size, old) in enumerate(files)
        ]
        left = shelf.prune(older_than_s=1e9 - 1000, max_bytes=max_bytes)
        kept = [file for file in laid if file[4].exists()]
        assert left == sum(file[2] for file in kept) <= max_bytes or not kept
        assert not any(file[3] for file in kept)
        gone = [file for file in laid if not file[3] and not file[4].exists()]
        if gone and kept:
            assert max(file[:2] for file in gone) < min(file[:2] for file in kept)
        for worth_most in sorted(gone)[-1:]:
            assert left + worth_most[2] > max_bytes, "no more went than had to"


def test_room_is_made_by_what_is_not_more_severe(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    high = lay(shelf, CLIPS, Severity.HIGH, "1.mp4")
    medium = [lay(shelf, SNAPSHOTS, Severity.MEDIUM, f"{n}.jpg") for n in (2, 3)]
    info = lay(shelf, CLIPS, Severity.INFO, "4.mp4")
    assert shelf.make_room(1500, Severity.MEDIUM) == 2000
    assert [path.exists() for path in (high, *medium, info)] == [True, False, True, False]
    assert shelf.make_room(10**9, Severity.MEDIUM) == 1000 and high.exists()


def test_an_archive_clears_up_after_a_crash_and_keeps_its_limit(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    part = shelf.path(CLIPS, Severity.HIGH, "crashed.mp4.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1000))
    told = Told()
    with Archive(tmp_path, told, max_bytes=60_000) as archive:
        for n in range(12):
            archive.snapshot(f"{n:02}", textured(n, (160, 120)), [(10, 10, 40, 40)], Severity.LOW)
            assert archive.finish(30)
        archive.snapshot("high", textured(0, (160, 120)), [], Severity.HIGH)
        assert archive.finish(30)
        kept: Callable[[], list[Path]] = lambda: [p for p in tmp_path.rglob("*") if p.is_file()]  # noqa: E731
        until(lambda: sum(p.stat().st_size for p in kept()) <= 60_000, "the limit")
    assert not part.exists()
    names = {p.name for p in kept()}
    assert {"high.jpg", "high.clean.jpg", "11.jpg"} <= names and "00.jpg" not in names
    assert len(told.parts) == 13 and all(media and media.snapshot for _, _, media, _ in told.parts)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Two megabytes that can really be full."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)], capture_output=True)
    if done.returncode != 0:
        pytest.skip("a small file system to fill needs the right to mount one")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_on_a_full_disk_events_go_without_and_say_so(small_disk: Path) -> None:
    told = Told()
    noise = textured(1, (640, 480))  # about 400 kB as JPEG
    with Archive(small_disk, told, left_free=500_000) as archive:
        archive.snapshot("1", textured(1, (160, 120)), [], Severity.HIGH)
        assert archive.finish(30)
        (small_disk / "somebody's").write_bytes(bytes(1_400_000))
        archive.snapshot("2", noise, [], Severity.MEDIUM)
        assert archive.finish(30)
        _, done, media, notes = told.parts[-1]
        assert (done, media) == (("snapshot",), None)
        assert notes[0].startswith("no snapshot: the disk is full (0 MB free)")
        assert "can't be kept" in (archive.trouble or "")
        with pytest.raises(OSError, match="full"):
            archive.picture(noise)
        assert (small_disk / "snapshots/high/1.jpg").exists(), "what matters more does not make room"
        (small_disk / "somebody's").unlink()
        archive.snapshot("3", noise, [], Severity.MEDIUM)
        assert archive.finish(30)
        assert told.parts[-1][2] and archive.trouble is None
    assert not list(small_disk.rglob("*.part"))


def test_a_disk_that_fills_while_a_clip_is_written_leaves_nothing_half(small_disk: Path) -> None:
    """Nobody looked before: the disk itself refuses."""
    told = Told()
    ring = PacketRing(pre_s=60)
    seen = footage(300)
    ring.connect("camera")
    ring.begin("camera", seen.stream)
    with Archive(small_disk, told, left_free=-(10**9)) as archive:
        (small_disk / "somebody's").write_bytes(bytes(1_900_000))
        for packet in seen.packets:
            ring.add("camera", packet)
            ring.shown("camera", packet.stamp, round(packet.pts_s * 1e9))
        archive.clip("1", ring, round(29.9e9), ClipSpan(60, 0), Severity.HIGH)
        ring.end("camera")
        assert archive.finish(30)
    assert told.parts == [("1", ("clip",), None, ("no clip: No space left on device",))]
    assert [p.name for p in small_disk.rglob("*") if p.is_file()] == ["somebody's"]


def test_a_disk_that_hangs_costs_parts_not_the_caller(tmp_path: Path) -> None:
    (tmp_path / "snapshots/info").mkdir(parents=True)
    hanging = tmp_path / "snapshots/info/1.jpg.part"
    os.mkfifo(hanging)  # whoever opens it for writing waits until somebody reads
    told = Told()
    archive = Archive(tmp_path, told, waiting=2)
    for n in range(1, 6):
        archive.snapshot(str(n), np.zeros((48, 64, 3), np.uint8), [])
    behind = [event_id for event_id, _, _, notes in told.parts if notes == ("no snapshot: the disk is behind",)]
    assert behind[-2:] == ["4", "5"] and not archive.finish(0.01)
    hanging.open("rb").close()
    assert archive.close(30)
    assert sorted(part[0] for part in told.parts) == ["1", "2", "3", "4", "5"]
