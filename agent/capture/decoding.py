"""Pictures out of one container with libav (PyAV): opening, choosing the stream, getting past damage, naming what
failed.

Decoding uses one thread: measured on 360p and 720p H.264, more threads were slower, and frame threads hold frames back.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from agent.capture.limits import MOST_PIXELS, UNKNOWN_SIZE, too_large
from agent.capture.tap import PacketTap
from config.errors import CorruptInput, SourceError, StillwatchError
from config.redact import redact

_USUAL_FPS = 25.0
_HIGHEST_FPS = 240.0
_DEMUX_ATTEMPTS = 50
_LIMITED = {"max_pixels": str(MOST_PIXELS)}
_WITHOUT_CLOCK = frozenset({"mpjpeg", "mjpeg", "h264", "hevc", "m4v", "image2pipe", "jpeg_pipe"})
"""Formats without time stamps of their own: libav counts frames at 25 a second for them."""


class Kind(str, Enum):
    """What a video comes from; decides what its end and its damage mean."""

    FILE = "file"
    DOWNLOAD = "download"  # over HTTP, live or recorded: the container says
    STREAM = "stream"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class VideoInput:
    """What libav is told to open. `url` may hold credentials and is never shown; messages use `name`."""

    kind: Kind
    url: str = field(repr=False)
    name: str
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


class Decoder:
    """An open container and the one video stream of it that is watched.

    rate: frames a second, the container's word where it is believable. frames: how many, None when unknown. recorded:
    the video has an end. clocked: its time stamps mean something. decoded: pictures so far. damaged: packets and
    pictures left out so far. tap: hears every packet.
    Raises SourceError when it can't be opened now, CorruptInput when a file is no video.
    """

    def __init__(self, source: VideoInput, *, timeout_s: float, tap: PacketTap | None = None) -> None:
        self._source = source
        self._tap = tap
        self._timeout_s = timeout_s
        self.decoded = 0
        self.damaged = 0
        started_s = time.monotonic()
        try:
            self._container: InputContainer = av.open(
                source.url,
                format=source.format,
                options=dict(_LIMITED),  # for the pictures that libav decodes to learn what they are
                container_options=dict(source.options),
                metadata_errors="ignore",
                timeout=None if source.kind is Kind.FILE else timeout_s,
            )
        except (av.error.FFmpegError, OSError) as error:
            # Without its cause, which would show the URL and its credentials.
            raise self.failure(error, waited_s=time.monotonic() - started_s) from None
        try:
            self._stream = self._pick()
            if (reason := too_large(self.size)) is not None:
                raise self.corrupt(reason)
        except BaseException:
            self._container.close()
            raise
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = dict(_LIMITED)
        self.rate = next((rate for rate in self._rates() if 0 < rate <= _HIGHEST_FPS), _USUAL_FPS)
        self.recorded = source.kind is Kind.FILE or (source.kind is Kind.DOWNLOAD and bool(self._container.duration))
        self.frames = self._stream.frames or None if self.recorded else None
        self.clocked = self._container.format.name not in _WITHOUT_CLOCK

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) by the container's word."""
        return self._stream.codec_context.width, self._stream.codec_context.height

    def export_motion(self) -> None:
        """Have pictures carry the codec's motion vectors, where it is one that has them. Before the first picture."""
        self._stream.codec_context.options = {**_LIMITED, "flags2": "+export_mvs"}

    def pictures(self) -> Iterator[VideoFrame | None]:
        """Every picture to the end. None stands for a packet that gave no picture, so that the caller can look at the
        clock. Damaged packets and pictures are left out and counted. Raises libav's errors when nothing more can be
        read."""
        attempts = 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    attempts = 0
                    if self._tap is not None:
                        arrived_s = None if self.clocked or self.recorded else time.monotonic()
                        self._tap.packet(packet, self._stream, arrived_s=arrived_s)
                    pictures = self._decode(packet)
                    yield from pictures
                    if not pictures:
                        yield None
                return
            except av.error.FFmpegError:
                attempts += 1
                if self._source.kind is not Kind.FILE or attempts > _DEMUX_ATTEMPTS:
                    raise
                self.damaged += 1

    def failure(self, error: Exception, *, waited_s: float = 0.0) -> StillwatchError:
        """What to raise for an error of libav: a file with bad content is corrupt, all else may work on a retry."""
        # Interrupted while it waits for an RTSP answer, libav calls what it has invalid data.
        if isinstance(error, av.error.ExitError) or (
            self._source.kind is not Kind.FILE and waited_s >= self._timeout_s
        ):
            return SourceError(f"{self._source.name}: no data within {self._timeout_s:g} s")
        reason = redact(getattr(error, "strerror", None) or str(error))
        remote = self._source.kind in (Kind.DOWNLOAD, Kind.STREAM)
        if remote and isinstance(error, OSError) and error.errno == errno.EIO:
            reason += " (libav says so when a host name is not known)"
        if self._source.kind is Kind.FILE and not isinstance(error, OSError):
            where = f"damaged beyond frame {self.decoded - 1}" if self.decoded else "can't be read as video"
            return CorruptInput(f"{self._source.name}: {where}: {reason}")
        return SourceError(f"{self._source.name}: {reason}")

    def corrupt(self, reason: str) -> StillwatchError:
        """The same for what we found ourselves."""
        error = CorruptInput if self._source.kind is Kind.FILE else SourceError
        return error(f"{self._source.name}: {reason}")

    def close(self) -> None:
        """Give everything back. Never while another thread is in `pictures`: libav would read freed memory."""
        self._container.close()

    def _pick(self) -> VideoStream:
        """The first video stream that is marked as default, else the first; covers of music are no video."""
        streams = [s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic]
        streams.sort(key=lambda stream: not stream.disposition & Disposition.default)
        if not streams:
            found = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
            raise self.corrupt(f"has no video stream (found: {found})")
        if streams[0].codec_context is None:
            raise self.corrupt("its video is in a format that the installed PyAV can't decode")
        return streams[0]

    def _rates(self) -> Iterator[float]:
        for rate in (self._stream.average_rate, self._stream.guessed_rate, self._stream.base_rate):
            if rate:
                yield float(rate)

    def _decode(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        try:
            decoded = self._stream.decode(packet)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            if (reason := too_large(self.size)) is not None:
                raise self.corrupt(reason) from None
            if error.errno == errno.EINVAL and self.size == (0, 0):  # what libav makes of a size that it has refused
                raise self.corrupt(UNKNOWN_SIZE) from None
            self.damaged += 1
            return []
        pictures = [picture for picture in decoded if not picture.is_corrupt]
        self.decoded += len(pictures)
        self.damaged += len(decoded) - len(pictures)
        return pictures
