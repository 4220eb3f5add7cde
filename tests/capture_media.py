"""Small clips whose frames can be told apart: frame i of a clip is one grey level, `grey(i)`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import av
import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.capture.source import FrameSource
from config.errors import EndOfStream


def grey(index: int) -> int:
    return 30 + (index * 7) % 190


def flat(index: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    return np.full((size[1], size[0], 3), grey(index), np.uint8)


def textured(index: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """Noise: every frame costs many bytes, so that damage hits pictures and not headers."""
    return np.random.default_rng(index).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)


def write_clip(
    to: Path | IO[bytes],
    images: list[NDArray[np.uint8]],
    *,
    fps: int = 25,
    codec: str = "mpeg4",
    container: str | None = None,
    gop: int = 12,
) -> None:
    """Encode RGB images of one size; the container comes from the file name unless given."""
    with av.open(to if not isinstance(to, Path) else str(to), "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.bit_rate = 2_000_000
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
        for image in images:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))


def transport_stream(images: list[NDArray[np.uint8]], *, fps: int = 25) -> bytes:
    """The same as bytes of an MPEG transport stream, which can be cut and joined anywhere."""
    buffer = io.BytesIO()
    write_clip(buffer, images, fps=fps, codec="libx264", container="mpegts", gop=5)
    return buffer.getvalue()


def read_all(source: FrameSource) -> list[Frame]:
    """Every frame to the end of the stream; closes the source."""
    frames = []
    with source:
        while True:
            try:
                frames.append(source.read())
            except EndOfStream:
                return frames


def levels(frames: list[Frame]) -> list[float]:
    return [float(frame.image.mean()) for frame in frames]


def multipart(images: list[NDArray[np.uint8]]) -> list[bytes]:
    """Each image as a JPEG part of `multipart/x-mixed-replace; boundary=edge`."""
    parts = []
    for image in images:
        buffer = io.BytesIO()
        write_clip(buffer, [image], codec="mjpeg", container="mjpeg")
        body = buffer.getvalue()
        parts.append(b"--edge\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(body), body))
    return parts
