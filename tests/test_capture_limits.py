"""Pictures that are larger than any camera's: refused by what they claim, before memory is taken for them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.capture import open_source
from agent.capture.limits import MOST_PIXELS, image_size, too_large
from config.errors import CorruptInput

ABOVE = (6016, 6016)


def video(path: Path, codec: str, size: tuple[int, int], frames: int) -> bytes:
    """The bytes of a grey video, also as a file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5, options={"preset": "ultrafast"} if codec == "libx264" else {})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "yuvj420p"
        picture = av.VideoFrame(*size, format=stream.pix_fmt)
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(frames):
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path.read_bytes()


def frames_until_refused(uri: Path) -> int:
    count = 0
    with pytest.raises(CorruptInput, match="too large"), open_source(str(uri), source_id="cam") as source:
        while True:
            source.read()
            count += 1
    return count


def claim(size: tuple[int, int]) -> dict[str, bytes]:
    """Small files that claim to be images of this size."""
    width, height = size
    small = np.zeros((8, 8, 3), np.uint8)
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    jpeg = bytearray(cv2.imencode(".jpg", small)[1].tobytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", min(height, 65535), min(width, 65535))
    bmp = bytearray(cv2.imencode(".bmp", small)[1].tobytes())
    bmp[18:26] = struct.pack("<ii", width, -height)
    return {"a.png": png, "a.jpg": bytes(jpeg), "a.bmp": bytes(bmp)}


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mjpeg")])
def test_a_video_that_is_too_large_is_refused_as_it_is_opened(tmp_path: Path, name: str, codec: str) -> None:
    video(tmp_path / name, codec, ABOVE, 1)
    assert frames_until_refused(tmp_path / name) == 0


def test_a_video_that_becomes_too_large_ends_there(tmp_path: Path) -> None:
    small = video(tmp_path / "small.ts", "libx264", (320, 192), 100)
    large = video(tmp_path / "large.ts", "libx264", ABOVE, 1)
    (tmp_path / "both.ts").write_bytes(small * 8 + large)
    assert 0 < frames_until_refused(tmp_path / "both.ts") <= 800


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp"])
def test_an_image_that_claims_to_be_huge_is_refused_by_its_header(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(claim((60000, 60000))[name])
    assert frames_until_refused(tmp_path / name) == 0


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([".png", ".jpg", ".bmp", ".webp"]))
def test_the_size_of_an_image_is_read_as_opencv_writes_it(width: int, height: int, suffix: str) -> None:
    written = cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8))[1].tobytes()
    assert image_size(written) == (width, height)


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8", b"BM", b"RIFF1234WEBPVP8 ", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_are_an_image_or_not(data: bytes, begin: bytes) -> None:
    size = image_size(begin + data)
    assert size is None or len(size) == 2


def test_cameras_up_to_8k_are_taken() -> None:
    assert too_large((7680, 4320)) is None and too_large((1, MOST_PIXELS + 1)) is not None
