"""A clip: footage in a container, its pictures exactly as they came."""

from __future__ import annotations

from pathlib import Path

import av

from agent.evidence.files import write_whole
from agent.evidence.packets import av_packet
from agent.evidence.ring import Footage


def write_clip(path: Path, footage: Footage) -> int:
    """Write `footage` as the file `path`, whole or not at all; returns its size. An mp4 has its index first, so that a
    browser can begin to play it. Raises OSError when the disk refuses, ValueError and av.error.FFmpegError when the
    container does not take the stream."""
    return write_whole(path, lambda part: _mux(part, footage))


def _mux(path: Path, footage: Footage) -> None:
    stream = footage.stream
    options = {"movflags": "+faststart"} if stream.suffix == "mp4" else {}
    zero_s = footage.packets[0].pts_s
    with av.open(str(path), "w", format=stream.format, container_options=options) as out:
        copied = stream.add_to(out)
        for packet in footage.packets:
            out.mux(av_packet(packet, copied, zero_s))
