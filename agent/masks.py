"""Privacy masks: polygons painted black on every frame before anything else sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.capture.source import FrameSource, WrappedSource

Points = Sequence[tuple[float, float]]


def painted(image: NDArray[np.uint8], polygons: Sequence[Points]) -> NDArray[np.uint8]:
    """A copy of an RGB picture (H, W, 3) with the polygons black, outline included. Parts outside are no matter."""
    copy = np.array(image, order="C")
    corners = [np.rint(np.asarray(points, np.float64)).astype(np.int32) for points in polygons]
    cv2.fillPoly(copy, corners, (0, 0, 0))
    return copy


class MaskedSource(WrappedSource):
    """A source whose frames are painted as they are read: no one behind it can see what the masks hide."""

    def __init__(self, source: FrameSource, polygons: Sequence[Points]) -> None:
        super().__init__(source)
        self._polygons = polygons

    def read(self, timeout_s: float = 5.0) -> Frame:
        frame = self._source.read(timeout_s)
        return replace(frame, image=painted(frame.image, self._polygons), motion=None)  # vectors would tell what moves


def masked(open_source: Callable[[], FrameSource], masks: Mapping[str, Points]) -> Callable[[], FrameSource]:
    """An opener whose source is masked; the opener itself where there is nothing to hide."""
    if not masks:
        return open_source
    polygons = list(masks.values())
    return lambda: MaskedSource(open_source(), polygons)
