"""Where the packets of a video can be listened to, before they are decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from av.packet import Packet
from av.video.stream import VideoStream

if TYPE_CHECKING:
    from agent.evidence import packets


class PacketTap(Protocol):
    """Hears what one connection brings, in the thread that reads it. Must not raise, wait, or keep what it is given:
    both belong to a container that may be closed at any time."""

    def packet(self, packet: Packet[VideoStream], stream: VideoStream, *, arrived_s: float | None) -> None:
        """The next packet. arrived_s: when it came, monotonic, where its own time stamps mean nothing."""
        ...

    def shown(self, pts: int | None, monotonic_ns: int) -> None:
        """The picture with this time stamp of the container became the frame of that moment."""
        ...

    def begin(self, stream: packets.Stream) -> None:
        """Packets of this stream follow, which another process has listened to."""
        ...

    def add(self, packet: packets.Packet) -> None:
        """The next of them."""
        ...
