"""From libav's packets to a camera's ring: what is copied, and when it is."""

from __future__ import annotations

from typing import Protocol

import av.error
import structlog
from av.packet import Packet as AvPacket
from av.video.stream import VideoStream

from agent.evidence.packets import Packet, Restamp, Stream, stream_of

log = structlog.get_logger()

_USUAL_FPS = 25.0


class Recorder(Protocol):
    """Takes the packets of one connection at a time; `agent.evidence.ring.PacketRing` is one, and says what each of
    these means."""

    def connect(self, owner: object) -> None: ...

    def begin(self, owner: object, stream: Stream) -> None: ...

    def add(self, owner: object, packet: Packet) -> None: ...

    def shown(self, owner: object, stamp: int | None, monotonic_ns: int) -> None: ...

    def end(self, owner: object) -> None: ...


class RingTap:
    """Listens to one connection (`agent.capture.tap.PacketTap`). The bytes are copied: some hundred kilobytes a second,
    and libav's own buffers go when the connection does."""

    def __init__(self, ring: Recorder) -> None:
        self._ring = ring
        self._restamp: Restamp | None = None
        self._mute = False
        ring.connect(self)

    def packet(self, packet: AvPacket[VideoStream], stream: VideoStream, *, arrived_s: float | None) -> None:
        if self._mute or not packet.size:
            return
        data = bytes(packet)
        if self._restamp is None:
            if not packet.is_keyframe:
                return
            try:
                described = stream_of(stream, data)
            except (av.error.FFmpegError, ValueError) as error:
                self._mute = True
                log.warning("the packets of this video can't be kept as they are", reason=str(error))
                return
            self._restamp = Restamp(period_s=1 / float(stream.average_rate or _USUAL_FPS))
            self._ring.begin(self, described)
        pts_s, dts_s = (_seconds(stamp, packet) for stamp in (packet.pts, packet.dts))
        if arrived_s is not None:
            pts_s = dts_s = arrived_s
        dts_s, pts_s = self._restamp.place(dts_s, pts_s)
        self._ring.add(self, Packet(data, dts_s, pts_s, bool(packet.is_keyframe), packet.pts))

    def shown(self, pts: int | None, monotonic_ns: int) -> None:
        self._ring.shown(self, pts, monotonic_ns)

    def begin(self, stream: Stream) -> None:
        self._ring.begin(self, stream)

    def add(self, packet: Packet) -> None:
        self._ring.add(self, packet)

    def close(self) -> None:
        """The connection is over."""
        self._ring.end(self)


def _seconds(stamp: int | None, packet: AvPacket[VideoStream]) -> float | None:
    return None if stamp is None or packet.time_base is None else float(stamp * packet.time_base)
