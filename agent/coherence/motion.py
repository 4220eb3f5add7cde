"""Flow when it is wanted: analysis images made only then, the deadline kept, one motion per token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.coherence.deadline import Deadline
from agent.coherence.sampling import TokenSampler
from vpi_ops.codec import UNKNOWN
from vpi_ops.interface import FlowField, VisionOps

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_ENOUGH = 0.7
"""Share of the moving tokens whose motion the codec must know."""
_UNASKED = 4
"""Frames for which it is not asked again after it knew too little."""


class MotionStage:
    """Backward flow between neighbouring frames of one camera: the codec's, where frames carry it and it knows enough,
    else dense. A still scene costs nothing: the frame before is kept as it came, and becomes an analysis image when
    something has moved."""

    def __init__(self, ops: VisionOps, *, deadline_s: float) -> None:
        self._ops = ops
        self._deadline: Deadline[FlowField] = Deadline(deadline_s, name="flow")
        self.reset()

    def reset(self) -> None:
        self._frame: Frame | None = None
        self._grey: Image | None = None
        self._before: Image | None = None
        self._unasked = 0

    @property
    def late(self) -> int:
        """How many flows were dropped because they were late."""
        return self._deadline.late

    @property
    def picture(self) -> Image | None:
        """The frame before, as it came."""
        return None if self._frame is None else self._frame.image

    def process(
        self, frame: Frame, moving: Mask, sampler: TokenSampler, *, wanted: bool, dense: bool
    ) -> FlowField | None:
        """Flow from the frame before to `frame` around the tokens `moving` (T,); None when nothing moves, it isn't
        wanted, can't be had, or is late. dense: whether dense flow is worth its price."""
        before, self._frame = self._frame, frame
        grey_before, self._grey = self._grey, None
        if before is None or not wanted or not moving.any():
            return None
        flow = None
        if self._unasked:
            self._unasked -= 1
        elif _leads_to(before, frame):
            flow = _of_codec(frame, moving, sampler)
            self._unasked = _UNASKED if flow is None else 0
        if flow is not None or not dense:
            return flow
        self._before = self._ops.analysis(before.image) if grey_before is None else grey_before
        previous, current = self._before, self._ops.analysis(frame.image)
        self._grey = current
        scale = (frame.size[0] / current.shape[1], frame.size[1] / current.shape[0])
        region = sampler.region(moving, scale, current.shape)
        return self._deadline.run(lambda: self._ops.flow(previous, current, scale, region))

    def check(self, flow: FlowField) -> FlowField | None:
        """The flow of this frame with its consistency error, None when that is late. The codec's has it already."""
        if flow.error is not None:
            return flow
        previous, current = self._before, self._grey
        if previous is None or current is None:
            return None
        return self._deadline.run(lambda: self._ops.check(flow, previous, current))

    def close(self) -> None:
        self._deadline.close()


def _leads_to(before: Frame, frame: Frame) -> bool:
    """Whether the codec's motion goes back to just that frame."""
    return frame.motion is not None and frame.motion.frames == frame.index - before.index


def _of_codec(frame: Frame, moving: Mask, sampler: TokenSampler) -> FlowField | None:
    """What the codec knows, if it covers enough of what moves."""
    assert frame.motion is not None
    flow = frame.motion.flow(sampler.box(moving))
    known = sampler.error(flow)[moving] <= UNKNOWN / 2
    return flow if known.mean() >= _ENOUGH else None


def motion_share(backward: Floats) -> Floats:
    """Motion per token, 0 (still) to 1: length of (T, 2) source pixels a frame over 20 px, clipped."""
    share: Floats = np.minimum(np.hypot(backward[:, 0], backward[:, 1]) / np.float32(20), np.float32(1))
    return share
