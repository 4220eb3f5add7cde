"""Cameras through jetson-utils: decoded by the Jetson's own engines.

A dead RTSP source or an unplugged camera gives nothing for ever, can't be reopened, and leaks when it is made anew; a
decoder that crashes takes its process along. So by default the source lives in a process of its own, which is killed
when it stops giving frames, and hands each over with one copy. In a thread of the agent (`capture=thread`) there is no
copy, and no protection either. `CaptureWorker` opens lost sources again, with its back-off.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.capture.clock import Clock
from agent.capture.frame import Frame
from agent.capture.jetson_camera import CameraOptions, RingCamera, RingFrame
from agent.capture.jetson_child import MESSAGE_BYTES
from agent.capture.source import SourceInfo
from agent.capture.timing import RateLimit
from config.errors import EndOfStream, SourceError

Image = NDArray[np.uint8]

SLOTS = 10
"""Frames in shared memory: a ring's three, those that the frame loop compares, and some to write into."""
_SPARE = 3
"""Slots that the process always has to write into: with fewer left, frames are copied out and given back at once."""
THREAD_BUFFERS = 16
"""Ring of jetson-utils where frames stay in it: as many as are ever held, and some."""
_KILLED_WITHIN_S = 1.0
_PATIENCE_S = 0.3

_log = structlog.get_logger(__name__)


class ProcessSource:
    """A source in a process of its own. `read` may be called from one thread, `close` from any.

    copied: frames that were copied a second time, because many were held. lost: frames that found no free slot.
    Raises SourceError when there is no first frame within `timeout_s`.
    """

    def __init__(
        self, options: CameraOptions, *, source_id: str, fps: float | None, timeout_s: float, slots: int = SLOTS
    ) -> None:
        self._name, self._source_id = options.name, source_id
        self._recorded = options.recorded
        self.copied = self.lost = 0
        self._closed = threading.Event()
        self._held: set[int] = set()  # changed by whatever thread lets go of a frame
        self._told_lost = 0
        self._first = True
        self._waiting: deque[dict[str, Any]] = deque()
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "agent.capture.jetson_child", str(theirs.fileno())]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        try:
            self._connection.send(json.dumps({**asdict(options), "fps": fps, "slots": slots}).encode())
            size, rate = self._open(timeout_s, slots)
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
        return self._process.pid

    def read(self, timeout_s: float = 5.0) -> Frame:
        """The newest frame of a camera, the next one of a file. Raises EndOfStream, SourceError."""
        until = time.monotonic() + timeout_s
        while not self._waiting:
            self._waiting.append(self._receive(until, timeout_s))
        while not self._recorded and "slot" in self._waiting[-1]:
            more = self._receive(0.0, 0.0, wait=False)
            if more is None:
                break
            self._waiting.append(more)
        message = self._waiting.popleft()
        while self._waiting and "slot" in self._waiting[0] and not self._recorded:
            self._give_back(message["slot"])
            self.lost += 1
            message = self._waiting.popleft()
        if "end" in message:
            raise EndOfStream(message["end"])
        if "error" in message:
            raise SourceError(message["error"])
        self.lost += max(0, message["lost"] - self._told_lost)
        self._told_lost = message["lost"]
        stamp = datetime.fromtimestamp(message["utc"], timezone.utc)
        first = self._first
        self._first = False
        media_s = message["at"] if self._recorded else None
        return Frame(
            self._take(message["slot"]), self._source_id, message["index"], message["ns"], stamp, media_s, first
        )

    def close(self) -> None:
        """Kill the process: a capture that hangs can't be asked. Frames that were read stay as they are."""
        self._closed.set()
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # wakes a read in another thread
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # it waits in a driver: the kernel ends it when that returns
            self._process.wait(_KILLED_WITHIN_S)

    def __enter__(self) -> ProcessSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, timeout_s: float, slots: int) -> tuple[tuple[int, int], float]:
        self._connection.settimeout(timeout_s)
        try:
            message, handles, _, _ = socket.recv_fds(self._connection, MESSAGE_BYTES, 1)
        except TimeoutError:
            raise SourceError(f"{self._name}: no frame from jetson-utils within {timeout_s:g} s") from None
        opened: dict[str, Any] = json.loads(message) if message else {"error": self._died()}
        if "end" in opened:
            raise EndOfStream(opened["end"])
        if "error" in opened:
            raise SourceError(opened["error"])
        width, height = opened["open"]
        try:
            memory = mmap.mmap(handles[0], slots * width * height * 3)
        finally:
            os.close(handles[0])
        self._slots: Image = np.frombuffer(memory, np.uint8).reshape(slots, height, width, 3)
        return (width, height), float(opened["rate"])

    def _receive(self, until: float, timeout_s: float, *, wait: bool = True) -> Any:
        """The next message; without `wait` None when there is none."""
        self._connection.settimeout(max(0.0, until - time.monotonic()) if wait else 0.0)
        try:
            message = self._connection.recv(MESSAGE_BYTES)
        except (BlockingIOError, TimeoutError):
            if not wait:
                return None
            raise SourceError(f"{self._name}: no frame within {timeout_s:g} s") from None
        except OSError:
            message = b""
        if message:
            return json.loads(message)
        return {"error": f"{self._name}: closed" if self._closed.is_set() else self._died()}

    def _died(self) -> str:
        try:
            status = self._process.wait(_KILLED_WITHIN_S)
        except subprocess.TimeoutExpired:
            return f"{self._name}: the capture process went silent"
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"{self._name}: the capture process died ({how})"

    def _take(self, slot: int) -> Image:
        if len(self._held) >= len(self._slots) - _SPARE:
            image: Image = self._slots[slot].copy()
            self.copied += 1
            self._give_back(slot)
            return image
        lease = _Lease(self._slots[slot])
        self._held.add(slot)
        weakref.finalize(lease, self._returned, slot).atexit = False
        return np.asarray(lease)

    def _returned(self, slot: int) -> None:
        self._held.discard(slot)
        self._give_back(slot)

    def _give_back(self, slot: int) -> None:
        with suppress(OSError):  # nobody wants it any more
            self._connection.send(bytes([slot]))


class _Lease:
    """Stands under a frame's image; when that and its views are gone, the slot goes back."""

    def __init__(self, slot: Image) -> None:
        self._slot = slot
        self.__array_interface__ = slot.__array_interface__


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
