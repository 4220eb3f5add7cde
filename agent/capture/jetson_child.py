"""The process that holds a jetson-utils source: it can hang, leak or crash, and be killed, and the agent goes on."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

from agent.capture.handover import Line, SlotWriter, shortened
from agent.capture.jetson_camera import CameraOptions, RingCamera, RingFrame
from agent.capture.timing import RateLimit
from config.errors import EndOfStream, SourceError, StillwatchError

_POLL_S = 1.0
_ORDER_WITHIN_S = 60.0


class Child:
    """Serves one connection until it is closed. The first message says what to open."""

    def __init__(self, connection: socket.socket) -> None:
        self._line = Line(connection)
        message = self._line.receive(_ORDER_WITHIN_S)
        assert message is not None, "an order comes before the process is there"
        order = message.header
        del order["source_id"]  # for the command line only
        self._slots = SlotWriter(int(order.pop("slots")), self._announce)
        fps = order.pop("fps")
        self._limit = RateLimit(fps) if fps else None
        size = order.pop("size")
        self._options = CameraOptions(size=tuple(size) if size else None, **order)
        self._index = -1
        self._dropped = 0
        self._rate = 0.0
        self._size: tuple[int, int] | None = None
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
            self._line.send({"end": shortened(str(end))})
        except (StillwatchError, ImportError) as error:
            self._line.send({"error": shortened(str(error))})

    def _hand_over(self, frame: RingFrame, camera: RingCamera) -> None:
        now_ns, now_s = time.monotonic_ns(), time.time()
        self._index += 1
        position_s = frame.stamp_ns / 1e9
        if self._limit is not None and not self._limit.keeps(position_s if self._options.recorded else now_ns / 1e9):
            return
        if self._size is None:
            self._size, self._rate = frame.size, camera.rate
        elif frame.size != self._size:
            raise SourceError(f"{self._options.name}: the picture is now {frame.size}, was {self._size}")
        if self._options.recorded:
            self._slots.wait(frame.size)  # a file waits for its reader
        claimed = self._slots.claim(frame.size)
        if claimed is None:
            self._dropped += 1  # a camera doesn't: the next picture is newer anyway
            return
        slot, memory = claimed
        frame.copy_into(memory)
        self._line.send(
            {"slot": slot, "index": self._index, "ns": now_ns, "utc": now_s, "at": position_s, "lost": self._dropped}
        )

    def _announce(self, size: tuple[int, int], first: int, handle: int) -> None:
        self._line.send({"open": size, "first": first, "rate": self._rate}, handle=handle)

    def _listen(self) -> None:
        """Slots that come back. When the agent is gone, so are we, whatever the source is doing."""
        while True:
            try:
                back = self._line.socket.recv(256)
            except OSError:
                back = b""
            if not back:
                os._exit(0)
            self._slots.returned(back)


if __name__ == "__main__":
    Child(socket.socket(fileno=int(sys.argv[1]))).run()
