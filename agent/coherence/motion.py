"""Flow when it is wanted: analysis images made only then, the deadline kept, one motion per token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.coherence.deadline import Deadline
from agent.coherence.sampling import TokenSampler
from vpi_ops.interface import FlowField, VisionOps

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]


class MotionStage:
    """Backward flow between neighbouring frames of one camera. A still scene costs nothing: the picture before is kept
    as it came, and becomes an analysis image when something has moved."""

    def __init__(self, ops: VisionOps, *, deadline_s: float) -> None:
        self._ops = ops
        self._deadline: Deadline[FlowField] = Deadline(deadline_s, name="flow")
        self.reset()

    def reset(self) -> None:
        self._image: Image | None = None
        self._grey: Image | None = None
        self._before: Image | None = None

    @property
    def late(self) -> int:
        """How many flows were dropped because they were late."""
        return self._deadline.late

    @property
    def picture(self) -> Image | None:
        """The frame before, as it came."""
        return self._image

    def process(
        self, image: Image, moving: NDArray[np.bool_], sampler: TokenSampler, *, wanted: bool
    ) -> FlowField | None:
        """Flow from the frame before to `image`, uint8 RGB, around the tokens `moving` (T,); None when nothing moves,
        it isn't wanted, can't be had, or is late."""
        before, self._image = self._image, image
        grey_before, self._grey = self._grey, None
        if before is None or not wanted or not moving.any():
            return None
        self._before = self._ops.analysis(before) if grey_before is None else grey_before
        previous, current = self._before, self._ops.analysis(image)
        self._grey = current
        scale = (image.shape[1] / current.shape[1], image.shape[0] / current.shape[0])
        region = sampler.region(moving, scale, current.shape)
        return self._deadline.run(lambda: self._ops.flow(previous, current, scale, region))

    def check(self, flow: FlowField) -> FlowField | None:
        """The flow of this frame with its consistency error, None when that is late."""
        previous, current = self._before, self._grey
        if previous is None or current is None:
            return None
        return self._deadline.run(lambda: self._ops.check(flow, previous, current))

    def close(self) -> None:
        self._deadline.close()


def motion_share(backward: Floats) -> Floats:
    """Motion per token, 0 (still) to 1: length of (T, 2) source pixels a frame over 20 px, clipped."""
    share: Floats = np.minimum(np.hypot(backward[:, 0], backward[:, 1]) / np.float32(20), np.float32(1))
    return share
