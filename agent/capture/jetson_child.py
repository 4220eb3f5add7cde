"""The process that holds a jetson-utils source: it can hang, leak or crash, and be killed, and the agent goes on.

Pictures go into shared memory that has no name (memfd), so that nothing is left behind whoever dies first. A slot has
one owner at a time: the message that names it passes it to the agent, a byte passes it back. Nothing is locked.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import sys
import threading
import time
from collections import deque
from typing import Any

import numpy as np

from agent.capture.jetson_camera import CameraOptions, RingCamera, RingFrame
from agent.capture.timing import RateLimit
from config.errors import EndOfStream, StillwatchError

MESSAGE_BYTES = 4096
_POLL_S = 1.0


class Child:
    """Serves one connection until it is closed. The first message says what to open."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        order: dict[str, Any] = json.loads(connection.recv(MESSAGE_BYTES))
        self._slots = int(order.pop("slots"))
        fps = order.pop("fps")
        self._limit = RateLimit(fps) if fps else None
        size = order.pop("size")
        self._options = CameraOptions(size=tuple(size) if size else None, **order)
        self._free = deque(range(self._slots))
        self._index = -1
        self._dropped = 0
        self._size: tuple[int, int] | None = None
        self._memory: np.ndarray[Any, np.dtype[np.uint8]]
        threading.Thread(target=self._listen, daemon=True).start()

    def run(self) -> None:
        """Capture until the source ends or fails, and say how."""
        try:
            camera = RingCamera(self._options)
            while True:
                frame = camera.capture(_POLL_S)
                if frame is not None:
                    self._hand_over(frame, camera)
        except EndOfStream as end:
            self._send({"end": str(end)})
        except (StillwatchError, ImportError) as error:
            self._send({"error": str(error)})

    def _hand_over(self, frame: RingFrame, camera: RingCamera) -> None:
        now_ns, now_s = time.monotonic_ns(), time.time()
        self._index += 1
        position_s = frame.stamp_ns / 1e9
        if self._limit is not None and not self._limit.keeps(position_s if self._options.recorded else now_ns / 1e9):
            return
        if frame.size != self._size:
            if self._size is not None:
                raise StillwatchError(f"{self._options.name}: the picture is now {frame.size}, was {self._size}")
            self._open(frame, camera)
        while self._options.recorded and not self._free:
            time.sleep(0.002)  # a file waits for its reader
        if not self._free:
            self._dropped += 1  # a camera doesn't: the next picture is newer anyway
            return
        slot = self._free.popleft()
        frame.copy_into(self._memory[slot])
        self._send(
            {"slot": slot, "index": self._index, "ns": now_ns, "utc": now_s, "at": position_s, "lost": self._dropped}
        )

    def _open(self, frame: RingFrame, camera: RingCamera) -> None:
        """Make the slots, and send them ahead of the first picture."""
        self._size = width, height = frame.size
        each = width * height * 3
        handle = os.memfd_create("stillwatch-frames")
        os.ftruncate(handle, each * self._slots)
        memory = mmap.mmap(handle, each * self._slots)
        self._memory = np.frombuffer(memory, np.uint8).reshape(self._slots, height, width, 3)
        message = json.dumps({"open": [width, height], "rate": camera.rate}).encode()
        socket.send_fds(self._connection, [message], [handle])
        os.close(handle)

    def _send(self, message: dict[str, Any]) -> None:
        self._connection.send(json.dumps(message).encode())

    def _listen(self) -> None:
        """Slots that come back. When the agent is gone, so are we, whatever the source is doing."""
        while True:
            try:
                back = self._connection.recv(256)
            except OSError:
                back = b""
            if not back:
                os._exit(0)
            self._free.extend(back)


if __name__ == "__main__":
    Child(socket.socket(fileno=int(sys.argv[1]))).run()
