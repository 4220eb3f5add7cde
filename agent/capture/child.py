"""The process that reads one camera for the agent, and opens it exactly as the agent would.

A decoder can crash, hang and leak, and whoever sends it pictures can flood it. All of that stays in here: the kernel
ends this process with the agent, and before the agent where memory is short; more than a camera can mean is slowed
down where it comes in.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agent.capture.handover import Line, SlotWriter, shortened
from config.errors import EndOfStream, SourceError, StillwatchError, in_words

if TYPE_CHECKING:
    from agent.capture.frame import Frame
    from agent.evidence.packets import Packet, Stream

_ORDER_WITHIN_S = 60.0
_PARTING_S = 0.3
"""To give a camera its session back after the agent has let go."""
_DATA_BYTES = 2 * 2**30
"""Of private memory: a 4K decoder with all its references takes a quarter of it."""
_MOST_FPS = 120.0
_MOST_BYTES_S = 20e6
"""Of packets: several times what a 4K camera sends."""
_PDEATHSIG = 1


class Child:
    """Serves one connection until it is closed. The first message says what to open."""

    def __init__(self, connection: socket.socket) -> None:
        self._line = Line(connection)
        message = self._line.receive(_ORDER_WITHIN_S)
        assert message is not None, "an order comes before the process is there"
        self._order = message.header
        self._slots = SlotWriter(int(self._order.pop("slots")), self._announce)
        self._parting = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def run(self) -> None:
        """Read the source until it ends or fails, and say how."""
        from agent.capture.opening import open_directly
        from agent.capture.ring import Ring
        from agent.evidence.tap import RingTap

        self._frames = Ring(3)
        listened = self._order.pop("packets")
        sender = threading.Thread(target=self._send_frames, daemon=True)
        try:
            self._line.send({"ready": True})
            timeout_s = float(self._order["timeout_s"])
            self._source = open_directly(**self._order, tap=RingTap(_Relay(self._line)) if listened else None)
            info = self._source.info
            self._live = info.live
            self._line.send({"info": [info.width, info.height, info.fps, info.frames, info.live]})
            sender.start()
            while not self._parting.is_set():
                self._frames.put(self._source.read(timeout_s), block=not info.live)
            self._source.close()
            os._exit(0)
        except EndOfStream as end:
            last = {"end": str(end)}
        except StillwatchError as error:
            last = {"error": str(error), "kind": type(error).__name__}
        except Exception as error:  # whatever it is, another process may not meet it
            last = {"error": f"{self._order['name']}: {in_words(error)}", "kind": SourceError.__name__}
        self._frames.close()
        if sender.ident is not None:
            sender.join()
        self._line.send({key: shortened(text) for key, text in last.items()})

    def _send_frames(self) -> None:
        """Frames go as fast as slots come back. Meanwhile the newest wait, and older ones are dropped if it is live."""
        size: tuple[int, int] | None = None
        due_s = 0.0
        while True:
            self._slots.wait(size)
            if self._live:
                time.sleep(max(0.0, due_s - time.monotonic()))
                due_s = time.monotonic() + 1 / _MOST_FPS
            frame = self._frames.get()
            if frame is None:
                return
            size = frame.size
            self._slots.wait(size)
            claimed = self._slots.claim(size)
            assert claimed is not None, "nobody else claims slots"
            slot, memory = claimed
            memory[:] = frame.image
            self._tell(frame, slot)

    def _tell(self, frame: Frame, slot: int) -> None:
        motion = frame.motion
        steps = () if motion is None else motion.steps
        self._line.send(
            {
                "slot": slot,
                "index": frame.index,
                "ns": frame.monotonic_ns,
                "utc": frame.utc.isoformat(),
                "media": frame.media_s,
                "cut": frame.discontinuity,
                "motion": None if motion is None else [motion.size, [len(step) for step in steps]],
                "damaged": int(getattr(self._source, "damaged", 0)),
            },
            b"".join(step.tobytes() for step in steps),
        )

    def _announce(self, size: tuple[int, int], first: int, handle: int) -> None:
        self._line.send({"memory": size, "first": first}, handle=handle)

    def _listen(self) -> None:
        """Slots that come back. When the agent is gone, so are we, whatever the source is doing."""
        while True:
            try:
                back = self._line.socket.recv(256)
            except OSError:
                back = b""
            if not back:
                self._parting.set()
                time.sleep(_PARTING_S)
                os._exit(0)
            self._slots.returned(back)


class _Relay:
    """What `PacketRing` is to whoever fills it (`agent.evidence.tap.Recorder`), at the other end of the line."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._due_s = 0.0

    def connect(self, owner: object) -> None:
        """The agent has begun one of its own."""

    def begin(self, owner: object, stream: Stream) -> None:
        headers = stream.headers
        self._send(
            {"stream": [stream.suffix, len(stream.sample), headers is not None]}, stream.sample + (headers or b"")
        )

    def add(self, owner: object, packet: Packet) -> None:
        self._send({"packet": [packet.dts_s, packet.pts_s, packet.key, packet.stamp]}, packet.data)
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - 1.0) + len(packet.data) / _MOST_BYTES_S
        if self._due_s > now_s:
            time.sleep(self._due_s - now_s)

    def shown(self, owner: object, stamp: int | None, monotonic_ns: int) -> None:
        self._send({"shown": [stamp, monotonic_ns]})

    def end(self, owner: object) -> None:
        """The agent sees for itself."""

    def _send(self, header: dict[str, Any], body: bytes = b"") -> None:
        with suppress(OSError):  # the agent has let go: the listener knows
            self._line.send(header, body)


def main() -> None:
    """The process. Signals that are meant for the agent reach its whole group: it ends us in its own time."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _confine()
    import cv2

    from agent.logs import set_up_logs

    set_up_logs()
    cv2.setNumThreads(1)
    child = Child(socket.socket(fileno=int(sys.argv[1])))
    with suppress(BrokenPipeError, ConnectionResetError):
        child.run()
    os._exit(0)  # a source that is stuck must not hold up the end


def _confine() -> None:
    """The end of the agent's thread is ours, and so is what memory runs out for."""
    import ctypes
    import resource
    from pathlib import Path

    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES))


if __name__ == "__main__":
    main()
