"""A video as a source of frames: when each frame is, which are kept, and their pixels as RGB."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any

import av
import av.error
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from agent.capture.clock import Clock
from agent.capture.decoding import Decoder, VideoInput
from agent.capture.frame import Frame
from agent.capture.source import SourceInfo
from agent.capture.tap import PacketTap
from agent.capture.timing import MediaClock, RateLimit, Timeline
from agent.capture.vectors import VectorReader
from config.errors import EndOfStream, SourceError, StillwatchError
from vpi_ops.codec import CodecMotion, affordable

_ONE_THREAD: Mapping[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
"""Since PyAV 17 a conversion starts one thread a core, for no gain at camera sizes; before, it always used one."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """A decoded picture before conversion. arrived: when it was decoded, monotonic ns and UTC."""

    video: VideoFrame
    index: int
    position_s: float
    arrived: tuple[int, datetime]
    discontinuity: bool
    motion: CodecMotion | None


class VideoSource:
    """One video, read in the thread that calls.

    A call blocks inside libav until data come or `timeout_s` is over and can't be interrupted; `close` waits for it (a
    paced wait is cut short). So network streams and devices belong in a `DetachedSource`; files never block for long.

    paced: give recorded video out at its own speed. fps: keep at most so many frames a second; the others are decoded
    and counted in `index` but never converted. motion: give frames the codec's motion vectors, where it has them
    and they are worth their time (`vpi_ops.codec.affordable`). tap: hears every packet, and which frame it became.
    Raises SourceError, CorruptInput.
    """

    def __init__(
        self,
        source: VideoInput,
        *,
        source_id: str,
        paced: bool,
        fps: float | None,
        timeout_s: float,
        clock: Clock,
        motion: bool = False,
        tap: PacketTap | None = None,
    ) -> None:
        self._name = source.name
        self._tap = tap
        self._source_id = source_id
        self._clock = clock
        self._limit = RateLimit(fps) if fps else None
        self._reformatter = VideoReformatter()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failure: StillwatchError | None = None
        self._view: tuple[int, int, int] | None = None
        self._decoder = Decoder(source, timeout_s=timeout_s, tap=tap)
        self._vectors: VectorReader | None = None
        self._damaged_before = 0
        if motion and affordable(self._decoder.size, max(1.0, self._decoder.rate / fps) if fps else 1.0):
            self._vectors = VectorReader()
            self._decoder.export_motion()
        self._timeline = Timeline(period_s=1 / self._decoder.rate)
        self._media_clock = MediaClock(clock, paced=paced) if self._decoder.recorded else None
        self._pictures = self._decoder.pictures()
        try:
            # One picture is decoded before the source counts as open: it shows whether the rest can be, and its true
            # size.
            self._first: _Picture | None = self._next(timeout_s)
        except BaseException:
            self._decoder.close()
            raise
        width, height = _shown_size(self._first.video)
        self._info = SourceInfo(
            width=width,
            height=height,
            fps=min(self._decoder.rate, fps) if fps else self._decoder.rate,
            frames=self._decoder.frames,
            live=paced or not self._decoder.recorded,
        )

    @property
    def info(self) -> SourceInfo:
        """As it was opened. Size as shown (rotated). `frames` is the container's word and counts what the fps limit
        skips."""
        return self._info

    @property
    def damaged(self) -> int:
        """Packets and pictures that could not be decoded and were left out."""
        return self._decoder.damaged

    def read(self, timeout_s: float = 5.0) -> Frame:
        """The next frame; a paced file waits as long as its time stamps say. Raises EndOfStream, SourceError,
        CorruptInput."""
        with self._lock:
            if self._closing.is_set():
                raise SourceError(f"{self._name}: closed")
            picture = self._next_kept(timeout_s)
            image = self._convert(picture.video)
        stamps = picture.arrived
        if self._media_clock is not None:
            stamps = self._media_clock.stamp(picture.position_s, self._closing)
        if self._tap is not None:
            self._tap.shown(picture.video.pts, stamps[0])
        return Frame(
            image=image,
            source=self._source_id,
            index=picture.index,
            monotonic_ns=stamps[0],
            utc=stamps[1],
            media_s=picture.position_s if self._decoder.clocked else None,
            discontinuity=picture.discontinuity,
            motion=picture.motion,
        )

    def close(self) -> None:
        """Give back file, socket or device, after the read in progress. A second call does nothing."""
        self._closing.set()
        with self._lock:
            self._decoder.close()
            self._failure = None  # its traceback points back at us, and would keep the buffers

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_kept(self, timeout_s: float) -> _Picture:
        skipped: _Picture | None = None
        while True:
            picture, self._first = self._first or self._next(timeout_s), None
            if skipped is not None:
                picture = replace(
                    picture,
                    discontinuity=picture.discontinuity or skipped.discontinuity,
                    motion=picture.motion and picture.motion.after(skipped.motion),
                )
            time_s = picture.position_s if self._decoder.clocked else picture.arrived[0] / 1e9
            if self._limit is None or self._limit.keeps(time_s):
                return picture
            skipped = picture

    def _next(self, timeout_s: float) -> _Picture:
        if self._failure is not None:
            raise self._failure
        deadline_ns = self._clock.monotonic_ns() + round(timeout_s * 1e9)
        try:
            for video in self._pictures:
                if video is not None:
                    return self._place(video)
                if self._media_clock is None and self._clock.monotonic_ns() > deadline_ns:
                    raise SourceError(f"{self._name}: data but no picture within {timeout_s:g} s")
        except av.error.FFmpegError as error:
            self._failure = self._decoder.failure(error)
            raise self._failure from None
        self._failure = self._end()
        raise self._failure

    def _end(self) -> StillwatchError:
        decoder = self._decoder
        if not decoder.decoded:
            return decoder.corrupt(f"no picture could be decoded ({decoder.damaged} damaged packets)")
        if self._media_clock is None:
            return SourceError(f"{self._name}: the other side ended the stream")
        return EndOfStream(f"{self._name}: ended after {decoder.decoded} frames")

    def _place(self, video: VideoFrame) -> _Picture:
        stamp_s = None if video.pts is None or video.time_base is None else float(video.pts * video.time_base)
        view = (video.width, video.height, _quarter_turns(video))
        changed, self._view = view != self._view, view  # true for the first picture as well
        return _Picture(
            video=video,
            index=self._decoder.decoded - 1,
            position_s=self._timeline.place(stamp_s),
            arrived=(self._clock.monotonic_ns(), self._clock.utc()),
            discontinuity=changed,
            motion=self._motion(video),
        )

    def _motion(self, video: VideoFrame) -> CodecMotion | None:
        if self._vectors is None:
            return None
        damaged, self._damaged_before = self._decoder.damaged != self._damaged_before, self._decoder.damaged
        return self._vectors.read(video, damaged=damaged)

    def _convert(self, video: VideoFrame) -> NDArray[np.uint8]:
        """RGB of a picture as it is to be shown. The array is a view of libav's buffer where that has no padding."""
        rgb = np.asarray(self._reformatter.reformat(video, format="rgb24", **_ONE_THREAD).to_ndarray(), np.uint8)
        return np.ascontiguousarray(np.rot90(rgb, k=_quarter_turns(video)))


def _quarter_turns(video: VideoFrame) -> int:
    """Counter-clockwise quarter turns that make the picture upright (phones store what the sensor saw)."""
    return round(video.rotation / 90) % 4


def _shown_size(video: VideoFrame) -> tuple[int, int]:
    return (video.height, video.width) if _quarter_turns(video) % 2 else (video.width, video.height)
