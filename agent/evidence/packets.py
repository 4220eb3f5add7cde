"""Encoded pictures apart from the container they came in, with time stamps that can be trusted."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
from av.container import OutputContainer
from av.packet import Packet as AvPacket
from av.video.stream import VideoStream

from agent.capture.timing import Timeline

TIME_BASE = Fraction(1, 90_000)
_IN_MP4 = frozenset({"h264", "hevc", "av1"})
_LONGEST_REORDER_S = 2.0
"""No codec shows a picture so long after it was to be decoded: a larger difference is a damaged stamp."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One encoded picture. dts_s, pts_s: when it is to be decoded and shown, seconds; dts_s rises from packet to
    packet, pts_s is never before it. key: decoding can begin here. stamp: the container's own time of showing, by which
    its picture is recognised."""

    data: bytes
    dts_s: float
    pts_s: float
    key: bool
    stamp: int | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """What a muxer must know of a stream, as a file with one picture in it: it outlives the connection it came from,
    and holds whatever the container keeps (rotation, colours). suffix: `mp4` or `mkv`. headers: of the codec, in the
    form that the packets have; in the file they are in that of the container."""

    sample: bytes
    suffix: str
    headers: bytes | None

    def add_to(self, out: OutputContainer) -> VideoStream:
        """A stream like it in a container that is being written."""
        with av.open(io.BytesIO(self.sample)) as described:
            added: VideoStream = out.add_stream_from_template(described.streams.video[0], opaque=True)
        added.codec_context.extradata = self.headers
        return added

    @property
    def format(self) -> str:
        """libav's name of the container."""
        return container(self.suffix)


def container(suffix: str) -> str:
    """libav's name of the container: what `mkv` stands for is called matroska."""
    return {"mkv": "matroska"}.get(suffix, suffix)


def stream_of(stream: VideoStream, key: bytes) -> Stream:
    """The description of libav's stream, by its first key picture. Raises av.error.FFmpegError and ValueError for a
    codec that no container of ours can hold."""
    suffix = "mp4" if stream.codec_context.codec.canonical_name in _IN_MP4 else "mkv"
    sample = io.BytesIO()
    with av.open(sample, "w", format=container(suffix)) as out:
        copied = out.add_stream_from_template(stream, opaque=True)
        out.mux(av_packet(Packet(key, 0.0, 0.0, True), copied))
    return Stream(sample.getvalue(), suffix, stream.codec_context.extradata)


def av_packet(packet: Packet, stream: VideoStream, zero_s: float = 0.0) -> AvPacket[VideoStream]:
    """The packet as libav takes it, its times counted from `zero_s`."""
    made = cast("AvPacket[VideoStream]", AvPacket(packet.data))
    made.time_base = TIME_BASE
    made.dts = round((packet.dts_s - zero_s) / TIME_BASE)
    made.pts = max(made.dts, round((packet.pts_s - zero_s) / TIME_BASE))
    made.is_keyframe = packet.key
    made.stream = stream
    return made


class Restamp:
    """Gives the packets of one connection times that rise, whatever the container's time stamps do.

    Decoding times are repaired as `Timeline` does it for pictures; the time of showing keeps its distance, if that is
    one that a codec can have.
    """

    def __init__(self, *, period_s: float) -> None:
        self._timeline = Timeline(period_s=period_s)

    def place(self, dts_s: float | None, pts_s: float | None) -> tuple[float, float]:
        """(dts_s, pts_s) of the next packet, given the container's (None = it has none)."""
        decoded_s = self._timeline.place(pts_s if dts_s is None else dts_s)
        if dts_s is None or pts_s is None or not 0 <= pts_s - dts_s <= _LONGEST_REORDER_S:
            return decoded_s, decoded_s
        return decoded_s, decoded_s + (pts_s - dts_s)
