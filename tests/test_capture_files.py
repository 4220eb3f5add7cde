"""Files as sources: frames, colours and times; and every way in which a file can be bad."""

from __future__ import annotations

import wave
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from capture_clock import FakeClock
from capture_media import flat, grey, levels, read_all, textured, transport_stream, write_clip

from agent.capture import open_source
from config.errors import ConfigError, CorruptInput, EndOfStream, SourceError


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_clip(path, [flat(i) for i in range(30)])
    return path


@pytest.mark.parametrize(("name", "codec"), [("c.avi", "mpeg4"), ("c.mkv", "mjpeg"), ("c.mp4", "libx264")])
def test_every_frame_comes_once_in_order_with_its_time(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    write_clip(path, [flat(i) for i in range(30)], codec=codec)
    source = open_source(str(path), source_id="cam")
    assert (source.info.width, source.info.height, source.info.fps, source.info.live) == (64, 48, 25, False)
    frames = read_all(source)
    assert levels(frames) == pytest.approx([grey(i) for i in range(30)], abs=3)
    assert [f.index for f in frames] == list(range(30))
    assert [f.discontinuity for f in frames] == [True] + [False] * 29
    assert [f.media_s for f in frames] == pytest.approx([i / 25 for i in range(30)], abs=1e-3)
    assert (frames[-1].monotonic_ns - frames[0].monotonic_ns) / 1e9 == pytest.approx(29 / 25, abs=1e-3)
    assert all(f.image.dtype == np.uint8 and f.image.flags.c_contiguous and f.source == "cam" for f in frames)


def test_colours_are_rgb_also_where_rows_are_padded(tmp_path: Path) -> None:
    image = np.zeros((50, 70, 3), np.uint8)
    image[:, :35] = (220, 30, 30)
    image[:, 35:] = (30, 30, 220)
    write_clip(tmp_path / "c.mp4", [image] * 3, codec="libx264")
    frame = read_all(open_source(str(tmp_path / "c.mp4"), source_id="cam"))[-1]
    assert frame.image.shape == (50, 70, 3)
    assert frame.image.flags.c_contiguous
    assert frame.image[5:45, 5:30].mean((0, 1)) == pytest.approx([220, 30, 30], abs=8)
    assert frame.image[5:45, 40:65].mean((0, 1)) == pytest.approx([30, 30, 220], abs=8)


def test_end_of_stream_stays_the_end_and_closing_twice_is_fine(clip: Path) -> None:
    source = open_source(str(clip), source_id="cam")
    for _ in range(30):
        source.read()
    for _ in range(2):
        with pytest.raises(EndOfStream, match=r"clip\.mp4: ended after 30 frames"):
            source.read()
    source.close()
    source.close()
    with pytest.raises(SourceError, match="closed"):
        source.read()


def test_limit_skips_frames_and_keeps_counting(clip: Path) -> None:
    source = open_source(f"file://{clip}", source_id="cam", fps=5)
    assert source.info.fps == 5
    frames = read_all(source)
    assert [f.index for f in frames] == [0, 5, 10, 15, 20, 25]
    assert levels(frames) == pytest.approx([grey(f.index) for f in frames], abs=3)


def test_paced_file_takes_its_time(clip: Path) -> None:
    clock = FakeClock()
    source = open_source(str(clip), source_id="cam", paced=True, clock=clock)
    assert source.info.live
    assert len(read_all(source)) == 30
    assert clock.now_s - 100 == pytest.approx(29 / 25, abs=0.01)


def test_change_of_size_is_a_discontinuity(tmp_path: Path) -> None:
    path = tmp_path / "joined.ts"
    wide = [flat(10 + i, (96, 64)) for i in range(10)]
    path.write_bytes(transport_stream([flat(i) for i in range(10)]) + transport_stream(wide))
    frames = read_all(open_source(str(path), source_id="cam"))
    assert [f.size for f in frames] == [(64, 48)] * 10 + [(96, 64)] * 10
    assert [f.index for f in frames if f.discontinuity] == [0, 10]
    assert levels(frames) == pytest.approx([grey(i) for i in range(20)], abs=3)
    assert [f.media_s for f in frames] == pytest.approx([i / 25 for i in range(20)], abs=0.05)


def test_change_of_size_is_marked_on_the_next_frame_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "joined.ts"
    wide = [flat(i, (96, 64)) for i in range(14)]
    path.write_bytes(transport_stream([flat(i) for i in range(6)]) + transport_stream(wide))
    frames = read_all(open_source(str(path), source_id="cam", fps=5))
    assert [(f.index, f.discontinuity) for f in frames] == [(0, True), (5, False), (10, True), (15, False)]


def test_phone_video_stands_upright(tmp_path: Path) -> None:
    image = np.full((48, 64, 3), 30, np.uint8)
    image[:, :16] = 220  # left as stored is top when turned clockwise
    path = tmp_path / "phone.mp4"
    write_clip(path, [image] * 2)
    data = path.read_bytes()
    upright = b"\x00\x01\x00\x00" + bytes(12) + b"\x00\x01\x00\x00" + bytes(12) + b"\x40\x00\x00\x00"
    clockwise = bytes(4) + b"\x00\x01\x00\x00" + bytes(4) + b"\xff\xff\x00\x00" + bytes(16) + b"\x40\x00\x00\x00"
    track = data.index(b"tkhd")
    path.write_bytes(data[:track] + data[track:].replace(upright, clockwise, 1))
    source = open_source(str(path), source_id="cam")
    assert (source.info.width, source.info.height) == (48, 64)
    frame = source.read()
    assert frame.size == (48, 64)
    assert frame.image[:12].mean() > 200
    assert frame.image[20:].mean() < 50


def test_a_name_like_a_url_is_still_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "x.avi", [flat(0)] * 3)
    (tmp_path / "x.avi").rename(tmp_path / "http:12.30.avi")
    assert len(read_all(open_source("http:12.30.avi", source_id="cam"))) == 3


def test_metadata_in_another_encoding_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "c.avi"
    with av.open(str(path), "w") as output:
        output.metadata["title"] = "Garten-hinten"
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(flat(0), format="rgb24")), *stream.encode(None)]:
            output.mux(packet)
    data = path.read_bytes()
    assert b"Garten-hinten" in data
    path.write_bytes(data.replace(b"Garten-hinten", b"G\xe4rten-h\xfcnter"))
    assert len(read_all(open_source(str(path), source_id="cam"))) == 1


def test_random_bytes_are_corrupt_input(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp4"
    path.write_bytes(np.random.default_rng(1).bytes(100_000))
    with pytest.raises(CorruptInput, match=r"noise\.mp4: can't be read as video") as caught:
        open_source(str(path), source_id="cam")
    assert caught.value.exit_code == 74


def test_an_empty_file_and_a_file_without_its_index_are_corrupt_input(clip: Path) -> None:
    data = clip.read_bytes()
    for content in (b"", data[: data.index(b"moov") - 100]):
        clip.write_bytes(content)
        with pytest.raises(CorruptInput, match=r"clip\.mp4"):
            open_source(str(clip), source_id="cam")


def test_a_file_whose_every_picture_is_damaged_is_corrupt_input(tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    write_clip(path, [textured(i) for i in range(10)], codec="libx264", gop=5)
    _wipe(path, range(10))
    with pytest.raises(CorruptInput, match=r"c\.mp4: no picture could be decoded \(\d+ damaged"):
        open_source(str(path), source_id="cam")


def test_damage_in_the_middle_costs_only_what_it_hit(tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    write_clip(path, [textured(i) for i in range(30)], codec="libx264", gop=5)
    whole = read_all(open_source(str(path), source_id="cam"))
    _wipe(path, range(10, 15))
    source = open_source(str(path), source_id="cam")
    frames = read_all(source)
    assert source.damaged == 5  # type: ignore[attr-defined]
    assert len(frames) == 25
    for got, expected in zip(frames, whole[:10] + whole[15:], strict=True):
        assert np.array_equal(got.image, expected.image)
        assert got.media_s == pytest.approx(expected.media_s)


def test_a_file_cut_short_gives_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "c.avi"
    write_clip(path, [textured(i) for i in range(30)], gop=5)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = read_all(open_source(str(path), source_id="cam"))
    assert 5 < len(frames) < 25


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    with pytest.raises(CorruptInput, match=r"sound\.wav: has no video stream \(found: audio\)"):
        open_source(str(path), source_id="cam")


@pytest.mark.parametrize("uri", ["/nowhere/clip.mp4", "file:///nowhere/clip.mp4", "/nowhere/picture.png"])
def test_a_missing_file_is_a_source_error_with_its_name(uri: str) -> None:
    with pytest.raises(SourceError, match=r"/nowhere/.*No such file") as caught:
        open_source(uri, source_id="cam")
    assert caught.value.exit_code == 69


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("csi://0", "Jetson"),
        ("gopher://host/x", "no source of kind 'gopher'"),
        ("rtsp:///stream", "HOST"),
        ("rtsp://[::1/stream", "not a URL"),
        ("clip\0.mp4", "can't be a path"),
        ("gopher://" + "x" * 5000, "no source of kind"),
        ("file://elsewhere/clip.mp4", "names no host"),
        ("/dev/video0?siez=640x480", "unknown option siez"),
    ],
)
def test_a_uri_that_can_not_be_used_says_why(uri: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_source(uri, source_id="cam")


def test_credentials_for_a_file_are_refused(clip: Path) -> None:
    with pytest.raises(ConfigError, match="credentials are for rtsp and http") as caught:
        open_source(str(clip), source_id="cam", credentials="me:secret")
    assert "secret" not in str(caught.value)


def test_a_folder_of_images_in_natural_order(tmp_path: Path) -> None:
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"frame_{i}.png"), flat(i))
    (tmp_path / "notes.txt").write_text("not an image")
    source = open_source(str(tmp_path), source_id="cam")
    assert (source.info.frames, source.info.width, source.info.height) == (12, 64, 48)
    frames = read_all(source)
    assert levels(frames) == [grey(i) for i in range(12)]
    assert [f.index for f in frames if f.discontinuity] == [0]


def test_one_image_is_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "red.png"), np.full((8, 8, 3), (0, 0, 255), np.uint8))
    (frame,) = read_all(open_source(str(tmp_path / "red.png"), source_id="cam"))
    assert frame.image[0, 0].tolist() == [255, 0, 0]


def test_a_folder_names_the_image_that_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images in this folder"):
        open_source(str(tmp_path), source_id="cam")
    cv2.imwrite(str(tmp_path / "1.png"), flat(1))
    (tmp_path / "2.png").write_bytes(b"\x89PNG and then nothing")
    source = open_source(str(tmp_path), source_id="cam")
    source.read()
    with pytest.raises(CorruptInput, match=r"2\.png"):
        source.read()


def test_a_rendered_scene_opens_like_any_camera() -> None:
    frames = read_all(open_source("scene:street?seed=3&seconds=1&fps=10", source_id="cam", fps=5))
    assert [f.index for f in frames] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("clip_name", "size", "frames"),
    [
        ("static/opencv_tree.avi", (320, 240), 68),  # Cinepak, with empty packets where nothing moved
        ("cuts/nasa_13013.mp4", (320, 180), 325),  # two video streams: the first default one
        ("action/tfjs_pose_squats.mp4", (720, 1280), 65),  # 5 fps
        ("conversation/intel_asl_book.mkv", (640, 480), 109),  # no frame count in the container
    ],
)
def test_real_clips(data_dir: Path, clip_name: str, size: tuple[int, int], frames: int) -> None:
    read = read_all(open_source(str(data_dir / clip_name), source_id="cam"))
    assert len(read) == frames
    assert {f.size for f in read} == {size}
    positions = [f.media_s for f in read if f.media_s is not None]
    assert all(a < b for a, b in pairwise(positions))


def _wipe(path: Path, packets: range) -> None:
    """Overwrite these packets of a clip, their length fields included."""
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for n in packets:
        start, size = places[n]
        data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
