"""A slow pan made of footage that stands still: a window that slides over the frames and turns back at the borders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent.capture.frame import Frame
from agent.capture.source import FrameSource, SourceInfo, WrappedSource
from config.errors import ConfigError

_SHARE = 0.75
"""The window's part of the frame, along each side."""


class PannedSource(WrappedSource):
    """The frames of `source` through a window that moves by `step` = (dx, dy) pixels a frame. Raises ConfigError when
    the window has not even one step to go."""

    def __init__(self, source: FrameSource, step: tuple[float, float]) -> None:
        super().__init__(source)
        self._step = step
        size = source.info.width, source.info.height
        self._window = int(size[0] * _SHARE), int(size[1] * _SHARE)
        self._room = size[0] - self._window[0], size[1] - self._window[1]
        if not all(abs(by) <= room for by, room in zip(step, self._room, strict=True)):
            most = "{},{}".format(*self._room)
            raise ConfigError(f"--pan {step[0]:g},{step[1]:g}: expected {most} or less in {size[0]}×{size[1]} pixels")
        self._read = 0

    @property
    def info(self) -> SourceInfo:
        """The source's own, but for the size."""
        return replace(self._source.info, width=self._window[0], height=self._window[1])

    def read(self, timeout_s: float = 5.0) -> Frame:
        """The next frame as the window shows it. Raises what the source raises."""
        frame = self._source.read(timeout_s)
        x, y = (_bounce(by, room, self._read) for by, room in zip(self._step, self._room, strict=True))
        self._read += 1
        width, height = self._window
        # Made anew, not copied: whatever else a frame carries (motion vectors) is of the picture that stands still.
        return Frame(
            np.ascontiguousarray(frame.image[y : y + height, x : x + width]),
            frame.source,
            frame.index,
            frame.monotonic_ns,
            frame.utc,
            frame.media_s,
            frame.discontinuity,
        )


def _bounce(step: float, room: int, count: int) -> int:
    """Where something is after `count` steps between 0 and `room`; steps below 0 start at the far end."""
    if room == 0:
        return 0
    way = (step * count + (room if step < 0 else 0)) % (2 * room)
    return round(min(way, 2 * room - way))
