"""Clips are the camera's own pictures around the alert, and an alert is told before they are there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from capture_media import textured, write_clip
from mqtt_world import until
from numpy.typing import NDArray

from agent.capture import open_source
from agent.capture.frame import Frame
from agent.capture.source import FrameSource
from agent.capture.tap import PacketTap
from agent.describing import DescribingThread
from agent.events.book import EventBook
from agent.events.model import AnyEvent, Media
from agent.events.outbox import Outbox
from agent.evidence.archive import Archive
from agent.evidence.camera import CameraEvidence
from agent.evidence.clip import write_clip as write_footage
from agent.evidence.recording import recorded
from agent.evidence.ring import ClipSpan, Footage, NoFootage, PacketRing
from agent.insight.anomaly import Alarm, Stream
from agent.reporting import CameraReporter
from config.errors import EndOfStream

SPAN = ClipSpan(pre_s=1.0, post_s=1.0)
BOX = (8, 4, 16, 12)


def alarm(*, ended: bool = False) -> Alarm:
    return Alarm(4.0, 1.25, 1.2, (Stream.MOTION,), ((1, 1, 2, 2),), 0.01, False, ended=ended)


def footage_of(
    path: Path | str, at: int, span: ClipSpan = SPAN, read_s: float = 60.0
) -> tuple[Footage | NoFootage, Frame]:
    """What a ring gives when frame `at` of a video is the one that mattered, and that frame. read_s: of the video after
    it."""
    ring = PacketRing(pre_s=span.pre_s)
    taken: list[Footage | NoFootage] = []
    with recorded(partial(_open, str(path)), {}, ring, encode=True)() as source:
        for _ in range(at + 1):
            frame = source.read()
        ring.take(frame.monotonic_ns, span.pre_s, span.post_s, taken.append)
        with suppress(EndOfStream):
            while (source.read().monotonic_ns - frame.monotonic_ns) / 1e9 < read_s:
                pass
    until(lambda: taken, "the footage")
    (footage,) = taken
    return footage, frame


def _open(uri: str, tap: PacketTap | None) -> FrameSource:
    return open_source(uri, source_id="front", tap=tap)


def image(path: Path) -> NDArray[np.int_]:
    found = cv2.imread(str(path))
    assert found is not None
    return found[..., ::-1].astype(int)


def decoded(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    with av.open(str(path)) as clip:
        return [(float(f.time or 0), f.to_ndarray(format="rgb24")) for f in clip.decode(video=0)]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as clip:
        return [bytes(packet) for packet in clip.demux(video=0) if packet.size]


def whole_units(packet: bytes) -> bool:
    """An mp4 holds H.264 and HEVC as units with their lengths before them; start codes are what some players choke
    on."""
    at = 0
    while at < len(packet):
        at += 4 + int.from_bytes(packet[at : at + 4], "big")
    return at == len(packet)


@pytest.mark.parametrize(
    ("codec", "name", "suffix"),
    [("libx264", "a.mp4", "mp4"), ("libx264", "a.ts", "mp4"), ("libx265", "a.mkv", "mp4"), ("mpeg4", "a.avi", "mkv")],
)
def test_a_clip_is_the_original_pictures_around_the_moment(tmp_path: Path, codec: str, name: str, suffix: str) -> None:
    source = tmp_path / name
    write_clip(source, [textured(i) for i in range(100)], codec=codec, gop=10)
    footage, frame = footage_of(source, 60)
    assert isinstance(footage, Footage)
    assert (footage.stream.suffix, footage.notes) == (suffix, ())
    write_footage(tmp_path / f"clip.{suffix}", footage)
    assert suffix == "mkv" or all(whole_units(packet) for packet in packets(tmp_path / f"clip.{suffix}"))
    clip = decoded(tmp_path / f"clip.{suffix}")
    originals = [image for _, image in decoded(source)]
    moment = min(clip, key=lambda shown: abs(shown[0] - clip[0][0] - footage.at_s))
    assert (moment[1] == originals[60]).all() and (moment[1] == frame.image).all()
    first = next(i for i, image in enumerate(originals) if (image == clip[0][1]).all())
    assert 25 <= 60 - first <= 36, "from the last key picture before the pre-roll"
    asked = 60 - first + 25  # beyond that there may be pictures that others are predicted from
    assert all((shown == originals[first + i]).all() for i, (_, shown) in enumerate(clip[:asked]))
    assert asked <= len(clip) <= asked + 3


@pytest.mark.parametrize(
    ("codec", "name", "suffix", "options"),
    [
        ("libsvtav1", "a.mp4", "mp4", {"preset": "12", "crf": "40", "svtav1-params": "pred-struct=1"}),
        ("libvpx-vp9", "a.webm", "mkv", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    ],
)
def test_newer_codecs_are_kept_as_they_came(
    tmp_path: Path, codec: str, name: str, suffix: str, options: dict[str, str]
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this libav has no {codec}")
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        stream.codec_context.gop_size = 10
        for i in range(60):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(textured(i, (160, 128)), format="rgb24")))
        out.mux(stream.encode(None))
    # SVT-AV1, run by root, makes the thread that opens it a real-time one, which all that is started here would be too.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    footage, frame = footage_of(tmp_path / name, 40)
    assert isinstance(footage, Footage)
    assert (footage.stream.suffix, footage.notes) == (suffix, ())
    write_footage(tmp_path / f"clip.{suffix}", footage)
    clip = decoded(tmp_path / f"clip.{suffix}")
    moment = min(clip, key=lambda shown: abs(shown[0] - clip[0][0] - footage.at_s))
    assert (moment[1] == frame.image).all()
    originals = packets(tmp_path / name)
    assert all(packet in originals for packet in packets(tmp_path / f"clip.{suffix}"))


class World:
    """A file camera with its ring, a book and an archive, and all that was told."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.told: list[AnyEvent] = []
        outbox = stack.enter_context(Outbox(folder / "events.db"))
        self.book = stack.enter_context(EventBook("box", outbox, topic_of=lambda e: e.kind, sinks=[self]))
        self.archive = stack.enter_context(Archive(folder, self.book.update))
        self._describing = stack.enter_context(DescribingThread())

    def append(self, _topic: str, event: AnyEvent) -> None:
        self.told.append(event)

    def close(self) -> None: ...

    def watch(
        self,
        source: Path | str,
        at: int,
        *,
        masks: dict[str, list[tuple[float, float]]] | None = None,
        encode: bool = True,
        span: ClipSpan = SPAN,
    ) -> list[AnyEvent]:
        """An alert at frame `at` of a video that is read to its end."""
        ring = PacketRing(pre_s=span.pre_s)
        evidence = CameraEvidence(self.archive, ring, span)
        reporter = CameraReporter("front", self.book, self._describing, None, evidence=evidence)
        opener = recorded(partial(_open, str(source)), masks or {}, ring, encode=encode)
        with opener() as opened, suppress(EndOfStream):
            for index in count():
                frame = opened.read()
                if index == at:
                    reporter.anomaly(alarm(), frame, [BOX], [], np.zeros((4, 2), np.float32))
        until(lambda: self.book.flush(0) and self.told and not self.told[-1].pending, "the clip")
        reporter.anomaly(alarm(ended=True), frame, [BOX], [], np.zeros((4, 2), np.float32))
        assert self.book.flush(30)
        return self.told


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path / "state", stack)


def test_an_alert_is_told_at_once_and_completed_under_its_id(tmp_path: Path, world: World) -> None:
    source = tmp_path / "a.mp4"
    write_clip(source, [textured(i) for i in range(100)], codec="libx264", gop=10)
    new, *updates, end = world.watch(source, 60)
    assert {event.id for event in world.told} == {new.id}
    assert (new.type.value, new.pending, new.media) == ("new", ("snapshot", "clip"), Media())
    assert [event.pending for event in updates] == [("clip",), ()]
    assert (end.type.value, end.pending, end.duration_s) == ("end", (), 1.25)
    assert new.dedupe_key == end.dedupe_key == "front/anomaly"
    media = end.media
    assert media.clip and media.snapshot and media.clean and media.clip_at_s is not None
    clip = decoded(world.folder / media.clip)
    clean, drawn = image(world.folder / media.clean), image(world.folder / media.snapshot)
    at_s = media.clip_at_s
    moment = min(clip, key=lambda shown: abs(shown[0] - at_s))[1].astype(int)
    assert np.abs(clean - moment).mean() < 12 < np.abs(drawn[4, 8:24] - moment[4, 8:24]).mean(), "one is drawn on"
    x, y, w, h = BOX
    assert (
        np.abs(drawn[y + 3 : y + h - 3, x + 3 : x + w - 3] - clean[y + 3 : y + h - 3, x + 3 : x + w - 3]) < 90
    ).all()


LEFT_HALF = {"left": [(0.0, 0.0), (79.0, 0.0), (79.0, 119.0), (0.0, 119.0)]}


def test_a_masked_camera_has_no_pixel_of_what_is_masked_in_its_clip(tmp_path: Path, world: World) -> None:
    source = tmp_path / "a.mp4"
    write_clip(source, [textured(i, (160, 120)) for i in range(100)], codec="libx264", gop=10)
    *_, end = world.watch(source, 60, masks=LEFT_HALF)
    assert end.media.clip and end.media.clean and end.media.clip_at_s is not None and end.degraded == ()
    clip = decoded(world.folder / end.media.clip)
    assert len(clip) >= 50
    for _, shown in clip:
        assert shown[:, :76].max() < 40, "black, but for what the encoder spills over the edge"
        assert shown[:, 84:].mean() > 60, "the other half is there"
    assert image(world.folder / end.media.clean)[:, :76].max() < 40
    at_s = end.media.clip_at_s
    moment = min(clip, key=lambda shown: abs(shown[0] - at_s))[1]
    assert np.abs(moment[:, 84:].astype(int) - textured(60, (160, 120))[:, 84:]).mean() < 50, "and it is that moment"


def test_a_masked_camera_that_must_not_encode_has_no_packets_to_give(tmp_path: Path, world: World) -> None:
    source = tmp_path / "a.mp4"
    write_clip(source, [textured(i, (160, 120)) for i in range(30)], codec="libx264", gop=10)
    new, *_, end = world.watch(source, 20, masks=LEFT_HALF, encode=False)
    assert (end.media.clip, end.degraded) == (None, ("no clip: the camera gives no packets",))
    assert new.pending == ("snapshot", "clip") and end.media.snapshot


def test_frames_without_packets_are_encoded(tmp_path: Path, world: World) -> None:
    *_, end = world.watch("scene:yard?seed=2&fps=10&width=161&height=91&seconds=4", 20)
    assert end.media.clip and end.media.clip_at_s is not None and end.degraded == ()
    clip = decoded(world.folder / end.media.clip)
    assert clip[0][1].shape == (90, 160, 3) and 20 <= len(clip) <= 31
    assert 1.0 <= end.media.clip_at_s <= 2.0


def test_a_phone_video_stands_upright_in_its_clip(tmp_path: Path) -> None:
    source = tmp_path / "phone.mp4"
    write_clip(source, [textured(i, (96, 64)) for i in range(40)], codec="libx264", gop=10)
    # The rotation is set where QuickTime keeps it: the track's matrix, in fixed point.
    data = bytearray(source.read_bytes())
    track = data.index(b"tkhd") + 4 + 40
    turned = (0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    data[track : track + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in turned)
    source.write_bytes(data)
    footage, frame = footage_of(source, 20)
    assert isinstance(footage, Footage) and frame.size == (64, 96)
    write_footage(tmp_path / "clip.mp4", footage)
    with open_source(str(tmp_path / "clip.mp4"), source_id="clip") as clip:
        assert (clip.info.width, clip.info.height) == (64, 96)


@pytest.mark.parametrize(
    ("name", "suffix", "exact"),
    [
        ("static/intel_one-by-one-person.mp4", "mp4", True),
        ("cuts/bbb_0_30.webm", "mkv", True),
        ("conversation/intel_asl_book.mkv", "mp4", True),
        ("static/opencv_tree.avi", "mp4", False),  # Cinepak, which goes into neither container: its frames are encoded
    ],
)
def test_real_clips(data_dir: Path, tmp_path: Path, name: str, suffix: str, exact: bool) -> None:
    footage, frame = footage_of(data_dir / name, 50, ClipSpan(1.0, 0.5), read_s=1.0)
    assert isinstance(footage, Footage) and footage.notes == ()
    assert footage.stream.suffix == suffix
    clip = tmp_path / f"clip.{suffix}"
    write_footage(clip, footage)
    shown = decoded(clip)
    moment = min(shown, key=lambda picture: abs(picture[0] - shown[0][0] - footage.at_s))[1]
    off = np.abs(moment.astype(int) - frame.image)
    assert off.max() == 0 if exact else off.mean() < 10
