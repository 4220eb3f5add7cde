"""A video file that is there whole, or as far as it came, but never unreadable."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from config.errors import StorageError

_ENCODERS: dict[str, dict[str, str]] = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libopenh264": {"b": "4M"},
    "mpeg4": {"qscale": "3"},
}
"""H.264 where this FFmpeg can write it, MPEG-4 which all can."""


class VideoFile:
    """Writes an MP4 of pictures of one size, width and height even. Under another name until it is closed. Raises
    StorageError when the disk refuses."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._path, self._partial = path, path.with_suffix(".part")
        self.encoder = next(name for name in _ENCODERS if name in av.codecs_available)
        try:
            self._container = av.open(str(self._partial), "w", format="mp4")
        except OSError as error:
            raise StorageError(f"{path}: can't be written: {error.strerror}") from error
        rate = Fraction(fps).limit_denominator(1001)
        stream = self._container.add_stream(self.encoder, rate=rate, options=_ENCODERS[self.encoder])
        self._stream = cast(VideoStream, stream)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.thread_count = 1

    def append(self, picture: NDArray[np.uint8]) -> None:
        """uint8 RGB (h, w, 3)."""
        self._mux(av.VideoFrame.from_ndarray(picture, format="rgb24"))

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._mux(None)
        try:
            self._container.close()
            self._partial.replace(self._path)
        except OSError as error:
            raise StorageError(f"{self._path}: can't be written: {error.strerror}") from error

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except OSError as error:
            raise StorageError(f"{self._path}: can't be written: {error.strerror}") from error

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StorageError):
            self._partial.unlink(missing_ok=True)
        else:
            self.close()
