"""Every alternative that a user would pick, on the same frames, encoder and threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.bench import eventful, every_n
from agent.bench.gates import MotionGate, PreviousFrameGate
from agent.capture.frame import Frame
from agent.coherence.costs import EncodeCosts
from config.errors import ConfigError
from engines.onnx.runtime import OnnxRuntime

FULL = "full"


class Rival(Protocol):
    """The whole path of a frame, one clip long. setting: what sets its place between speed and fidelity."""

    name: str
    setting: Mapping[str, float]

    def process(self, frame: Frame) -> NDArray[np.float32]:
        """Features (T, D), valid until the next call."""
        ...


def _motion_gates(runtime: OnnxRuntime, costs: EncodeCosts) -> Sequence[Rival]:
    return [MotionGate(runtime, threshold) for threshold in (10.0, 20.0, 30.0, 50.0)]


def _previous_frame_gates(runtime: OnnxRuntime, costs: EncodeCosts) -> Sequence[Rival]:
    return [PreviousFrameGate(runtime, costs, threshold) for threshold in (3.0, 6.0, 12.0, 24.0)]


def _eventful(runtime: OnnxRuntime, costs: EncodeCosts) -> Sequence[Rival]:
    return eventful.rivals(runtime, thresholds=(1.0, 2.0, 4.0, 8.0), shares=(0.1, 0.5))


_MAKERS: Mapping[str, Callable[[OnnxRuntime, EncodeCosts], Sequence[Rival]]] = {
    MotionGate.name: _motion_gates,
    PreviousFrameGate.name: _previous_frame_gates,
    eventful.NAME: _eventful,
}
NAMES = (FULL, every_n.NAME, *_MAKERS)
"""`full` is measured always; `every-n` is made of its frames."""


def rivals_of(names: Sequence[str], runtime: OnnxRuntime, costs: EncodeCosts) -> list[Rival]:
    """New rivals, in several settings each, for one clip. Raises ConfigError for a name that is none of NAMES."""
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"--against: found {name!r}, expected some of {','.join(NAMES)}")
    return [rival for name in names if name in _MAKERS for rival in _MAKERS[name](runtime, costs)]
