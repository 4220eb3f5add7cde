"""What those who follow a camera are shown of each judged frame, besides change and anomaly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.insight.regions import PixelBox


@dataclass(frozen=True, slots=True)
class Sight:
    """One frame as the frame loop knows it. features: float32 (T, D), accumulated, valid until the call returns.
    broken: tokens are not to be compared with those of the frame before (a cut, a gap, a picture that slid).
    counted: bool (T,), tokens that see picture and no ignored area. zones: tokens of each, bool (T,). boxes: the
    connected areas of tokens (T,) as boxes in source pixels, the largest first. moved: bool (T,), tokens whose content
    has moved since the frame before; empty where that is not known."""

    frame: Frame
    features: NDArray[np.float32]
    broken: bool
    counted: NDArray[np.bool_]
    zones: Mapping[str, NDArray[np.bool_]]
    boxes: Callable[[NDArray[np.bool_]], tuple[PixelBox, ...]]
    moved: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    @property
    def now_s(self) -> float:
        """When the frame was captured, monotonic seconds."""
        return self.frame.monotonic_ns / 1e9


class Follower(Protocol):
    """Called from the frame loop, which it must not keep waiting."""

    def see(self, sight: Sight) -> None: ...

    def interrupted(self, reason: str) -> None:
        """Nothing more will be seen for now."""
        ...
