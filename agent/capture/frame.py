"""The frame: one picture and the two clocks it carries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from vpi_ops.codec import CodecMotion


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of one camera.

    image: uint8 RGB, (H, W, 3), C-contiguous; never written to after it is made.
    source: camera id. index: 0-based, counts every frame the source delivered, dropped ones included.
    monotonic_ns: when it was captured, for durations. utc: the same moment as an aware UTC stamp, for people.
    media_s: position in the video in seconds, None for a live source without time stamps.
    discontinuity: True when what came before is no neighbour of this frame (first frame, reconnect, new resolution).
    motion: what the video codec knows of how blocks moved, since the frame `motion.frames` before; None when nothing.
    """

    image: NDArray[np.uint8]
    source: str
    index: int
    monotonic_ns: int
    utc: datetime
    media_s: float | None = None
    discontinuity: bool = False
    motion: CodecMotion | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in source pixels."""
        return int(self.image.shape[1]), int(self.image.shape[0])

    def following(self, dropped: Frame) -> Frame:
        """This frame when the one before it is lost: it takes over that one's discontinuity, and what led up to it."""
        return replace(
            self,
            discontinuity=self.discontinuity or dropped.discontinuity,
            motion=self.motion and self.motion.after(dropped.motion),
        )
