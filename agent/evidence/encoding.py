"""Packets for a camera that has none of its own, or whose own must not be kept: its frames, encoded as they come.

A rendered scene and a folder of images have no packets. A camera with a privacy mask has, but they show what the mask
hides. So the frames, painted over by then, go through a fast H.264 encoder on a thread of its own, and from there the
way of all packets: one ring, one kind of clip.
"""

from __future__ import annotations

import io
import threading
from typing import cast

import av
import numpy as np
import structlog
from av.video.frame import PictureType
from av.video.stream import VideoStream
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.capture.ring import Ring
from agent.evidence.packets import TIME_BASE, Packet, Stream, av_packet, container
from agent.evidence.ring import PacketRing
from agent.service.progress import Progress

log = structlog.get_logger()

_KEY_EVERY_S = 2.0
_ONLY_WHEN_ASKED = 100_000
"""Frames from one key picture to the next, unless one is asked for: it is, by time and not by frames."""
_ENCODERS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("libx264", "mp4", {"preset": "ultrafast", "tune": "zerolatency", "crf": "26"}),
    ("libopenh264", "mp4", {}),
    ("mpeg4", "mkv", {"qscale": "5"}),
)
"""In the order of preference: which of them there are depends on how libav was built. All give each frame's packet at
once and in order."""


class FrameEncoder:
    """Encodes frames of one size into packets. Raises av.error.FFmpegError when it can't."""

    def __init__(self, size: tuple[int, int]) -> None:
        """size: (width, height) of the frames; an odd row or column at the edge is left out."""
        self._size = size[0] // 2 * 2, size[1] // 2 * 2
        self._header = io.BytesIO()
        name, self._suffix, options = next(entry for entry in _ENCODERS if entry[0] in av.codecs_available)
        self._described = av.open(self._header, "w", format=container(self._suffix))
        stream = cast(VideoStream, self._described.add_stream(name, rate=25, options=options))
        stream.width, stream.height, stream.pix_fmt = *self._size, "yuv420p"
        context = stream.codec_context
        context.time_base, context.thread_count, context.gop_size = TIME_BASE, 1, _ONLY_WHEN_ASKED
        self._stream, self._context = stream, context
        self._last_tick = -1
        self._key_due_s = 0.0
        self.stream: Stream | None = None
        """What the packets belong to; known with the first."""

    def encode(self, image: NDArray[np.uint8], time_s: float) -> list[Packet]:
        """The packets of the next frame, uint8 RGB (H, W, 3), shown at `time_s`."""
        width, height = self._size
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="rgb24")
        tick = self._last_tick = max(self._last_tick + 1, round(time_s / TIME_BASE))
        picture.pts, picture.time_base = tick, TIME_BASE
        if time_s >= self._key_due_s:
            picture.pict_type = PictureType.I
            self._key_due_s = time_s + _KEY_EVERY_S
        made = []
        for packet in self._context.encode(picture):
            data, key = bytes(packet), bool(packet.is_keyframe)
            if self.stream is None:
                self._describe(data)
            shown_s = float((packet.pts or 0) * TIME_BASE)
            made.append(Packet(data, shown_s, shown_s, key, tick))
        return made

    def _describe(self, data: bytes) -> None:
        self._described.mux(av_packet(Packet(data, 0.0, 0.0, True), self._stream))
        self._described.close()
        self.stream = Stream(self._header.getvalue(), self._suffix, self._context.extradata)


class FrameFeed:
    """Takes the frames of one connection and fills the ring with them, on a thread of its own. lossless: a frame waits
    for room instead of taking the place of an older one. progress: has the thread's heart, called `encode` and the
    camera."""

    def __init__(self, ring: PacketRing, *, lossless: bool, camera: str = "", progress: Progress | None = None) -> None:
        self._progress = progress or Progress()
        self._beat = self._progress.loop(f"encode {camera}")
        self._ring, self._lossless = ring, lossless
        self._frames = Ring(4)
        self._encoder: FrameEncoder | None = None
        self._size: tuple[int, int] | None = None
        ring.connect(self)
        self._thread = threading.Thread(target=self._run, name=self._beat.name, daemon=True)
        self._thread.start()

    def put(self, frame: Frame) -> None:
        self._frames.put(frame, block=self._lossless)

    def close(self) -> None:
        """No more frames will come; those that wait are still encoded."""
        self._frames.close()

    def _run(self) -> None:
        try:
            while not self._frames.drained:
                self._beat.idle()
                frame = self._frames.get()
                self._beat.beat()
                if frame is not None:
                    self._encode(frame)
        except Exception as error:  # without clips the camera goes on
            log.exception("no clips of this video: its frames can't be encoded", reason=str(error))
            self._frames.close()
        finally:
            self._ring.end(self)
            self._progress.retire(self._beat)

    def _encode(self, frame: Frame) -> None:
        if frame.size != self._size:
            self._size, self._encoder = frame.size, FrameEncoder(frame.size)
        assert self._encoder is not None
        known = self._encoder.stream
        for packet in self._encoder.encode(frame.image, frame.monotonic_ns / 1e9):
            if known is None and self._encoder.stream is not None:
                known = self._encoder.stream
                self._ring.begin(self, known)
            self._ring.add(self, packet)
            self._ring.shown(self, packet.stamp, frame.monotonic_ns)
