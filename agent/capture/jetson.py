"""Cameras through jetson-utils: decoded by the Jetson's own engines.

A dead RTSP source or an unplugged camera gives nothing for ever, can't be reopened, and leaks when it is made anew; a
decoder that crashes takes its process along. So by default the source lives in a process of its own, which is killed
when it stops giving frames, and hands each over with one copy. In a thread of the agent (`capture=thread`) there is no
copy, and no protection either. `CaptureWorker` opens lost sources again, with its back-off.
"""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import asdict
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.capture.clock import Clock
from agent.capture.frame import Frame
from agent.capture.handover import SLOTS, SlotReader
from agent.capture.jetson_camera import CameraOptions, RingCamera, RingFrame
from agent.capture.process import CaptureProcess
from agent.capture.source import SourceInfo
from agent.capture.timing import RateLimit
from config.errors import EndOfStream, SourceError

Image = NDArray[np.uint8]

THREAD_BUFFERS = 16
"""Ring of jetson-utils where frames stay in it: as many as are ever held, and some."""
_PATIENCE_S = 0.3

_log = structlog.get_logger(__name__)


class ProcessSource:
    """A source in a process of its own. `read` may be called from one thread, `close` from any.

    lost: frames that found no free slot. Raises SourceError when there is no first frame within `timeout_s`.
    """

    def __init__(
        self, options: CameraOptions, *, source_id: str, fps: float | None, timeout_s: float, slots: int = SLOTS
    ) -> None:
        self._name, self._source_id = options.name, source_id
        self._recorded = options.recorded
        self.lost = self._told_lost = 0
        self._first = True
        self._waiting: deque[dict[str, Any]] = deque()
        order = {**asdict(options), "fps": fps, "slots": slots, "source_id": source_id}
        self._capture = CaptureProcess("agent.capture.jetson_child", options.name, order)
        self._process, self._connection = self._capture.process, self._capture.connection
        self._slots = SlotReader(self._connection, slots)
        try:
            size, rate = self._open(timeout_s)
        except BaseException:
            self.close()
            raise
        self._info = SourceInfo(size[0], size[1], min(rate, fps) if fps else rate, None, not self._recorded)

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def pid(self) -> int:
        """Of the process that captures."""
        return self._capture.pid

    @property
    def copied(self) -> int:
        """Frames that were copied a second time, because many were held."""
        return self._slots.copied

    def read(self, timeout_s: float = 5.0) -> Frame:
        """The newest frame of a camera, the next one of a file. Raises EndOfStream, SourceError."""
        until = time.monotonic() + timeout_s
        while not self._waiting:
            first = self._receive(until - time.monotonic())
            if first is None:
                raise SourceError(f"{self._name}: no frame within {timeout_s:g} s")
            self._waiting.append(first)
        while not self._recorded and "slot" in self._waiting[-1]:
            more = self._receive(0.0)
            if more is None:
                break
            self._waiting.append(more)
        message = self._waiting.popleft()
        while self._waiting and "slot" in self._waiting[0] and not self._recorded:
            self._slots.give_back(message["slot"])
            self.lost += 1
            message = self._waiting.popleft()
        if "end" in message:
            raise EndOfStream(message["end"])
        if "error" in message:
            raise SourceError(message["error"])
        self.lost += max(0, message["lost"] - self._told_lost)
        self._told_lost = message["lost"]
        stamp = datetime.fromtimestamp(message["utc"], timezone.utc)
        first_frame, self._first = self._first, False
        media_s = message["at"] if self._recorded else None
        image = self._slots.take(message["slot"])
        return Frame(image, self._source_id, message["index"], message["ns"], stamp, media_s, first_frame)

    def close(self) -> None:
        """Kill the process: a capture that hangs can't be asked. Frames that were read stay as they are."""
        self._capture.close()

    def __enter__(self) -> ProcessSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, timeout_s: float) -> tuple[tuple[int, int], float]:
        message = self._capture.receive(timeout_s)
        if message is None:
            raise SourceError(f"{self._name}: no frame from jetson-utils within {timeout_s:g} s")
        opened = message.header
        if "end" in opened:
            raise EndOfStream(opened["end"])
        if "error" in opened:
            raise SourceError(opened["error"])
        assert message.handle is not None
        width, height = opened["open"]
        try:
            self._slots.open((width, height), opened["first"], message.handle)
        finally:
            os.close(message.handle)
        return (width, height), float(opened["rate"])

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message; None when there is none in time. That the process is gone is a message, too: pictures
        before it are still to be seen."""
        try:
            message = self._capture.receive(timeout_s)
        except SourceError as gone:
            return {"error": str(gone)}
        return None if message is None else message.header


class ThreadSource:
    """A source in this process; belongs in a `DetachedSource`, and to the one thread that made it.

    Frames of a camera lie in the ring of jetson-utils, which can't be captured into while one of them is in its way.
    When somebody keeps a frame for that long, the camera is opened anew, and from then on frames are copied: `copying`.
    Those of a file always are. Raises ImportError, SourceError.
    """

    def __init__(
        self, options: CameraOptions, *, source_id: str, fps: float | None, timeout_s: float, clock: Clock
    ) -> None:
        self._options, self._source_id, self._clock = options, source_id, clock
        self._limit = RateLimit(fps) if fps else None
        self._index = -1
        self._size: tuple[int, int] | None = None
        self.copying = options.recorded
        self._camera = RingCamera(options)
        try:
            self._first: Frame | None = self._next(timeout_s)
        except BaseException:
            self._camera.close()
            raise
        width, height = self._first.size
        rate = self._camera.rate
        self._info = SourceInfo(width, height, min(rate, fps) if fps else rate, None, not options.recorded)

    @property
    def info(self) -> SourceInfo:
        return self._info

    def read(self, timeout_s: float = 5.0) -> Frame:
        """The newest frame of a camera, the next one of a file. Raises EndOfStream, SourceError."""
        first, self._first = self._first, None
        return first or self._next(timeout_s)

    def close(self) -> None:
        self._camera.close()

    def __enter__(self) -> ThreadSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, timeout_s: float) -> Frame:
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0:
            if self._camera.full:
                self._wait_for_room()
            frame = self._camera.capture(min(1.0, left))
            kept = None if frame is None else self._kept(frame)
            if kept is not None:
                return kept
        raise SourceError(f"{self._options.name}: no frame within {timeout_s:g} s")

    def _wait_for_room(self) -> None:
        """Until the frame in the way is given back; no longer than a moment."""
        until = time.monotonic() + _PATIENCE_S
        while self._camera.full and time.monotonic() < until:
            time.sleep(0.002)
        if self._camera.full:
            _log.warning("a frame is kept for long: the camera is opened anew, and frames are copied from now on")
            self.copying = True
            self._camera.close()
            self._camera = RingCamera(self._options)

    def _kept(self, frame: RingFrame) -> Frame | None:
        self._index += 1
        now_ns, media_s = self._clock.monotonic_ns(), frame.stamp_ns / 1e9
        if self._size not in (None, frame.size):
            raise SourceError(f"{self._options.name}: the picture is now {frame.size}, was {self._size}")
        self._size = frame.size
        if self._limit is not None and not self._limit.keeps(media_s if self._options.recorded else now_ns / 1e9):
            return None
        position_s = media_s if self._options.recorded else None
        if self.copying:
            image = np.empty((frame.size[1], frame.size[0], 3), np.uint8)
            frame.copy_into(image)
        else:
            image = frame.lease()
        first = self._index == 0
        return Frame(image, self._source_id, self._index, now_ns, self._clock.utc(), position_s, first)
