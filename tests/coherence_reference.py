"""The coherent path with the reference model and without a clock: what it encodes, and how true that is."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from coherence_standin import frame
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.coherence.costs import EncodeCosts
from agent.coherence.cuts import token_cosines
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.result import FrameResult
from agent.coherence.settings import CoherenceSettings
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from vpi_ops.host import HostOps

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

GRID, TOKENS, PATCH = (20, 20), 400, 14
COST_MS = {1: 1.3, 8: 2.1, 32: 4.4, 100: 10.8, 200: 18.0, 399: 35.0, 400: 27.0}
"""What encoding costs on an idle machine; given, so that plans are the same on a busy one."""


@lru_cache(maxsize=1)
def runtime() -> OnnxRuntime:
    return OnnxRuntime(load_model(find_model("reference")), threads=1, spin=False)


@lru_cache(maxsize=1)
def _judge() -> OnnxEncoder:
    return OnnxEncoder(runtime())


@dataclass(frozen=True)
class Seen:
    """What became of one frame. result: its arrays are views that later frames change; the rest is kept. cosines:
    float32 (T,), of our tokens with a full encode of the same picture, None where it was not asked for."""

    result: FrameResult
    encoded: int
    slots: NDArray[np.int64]
    changed: NDArray[np.bool_]
    cosines: Floats | None

    @cached_property
    def fidelity(self) -> float:
        assert self.cosines is not None, "not judged"
        return float(self.cosines.mean())


def watch(
    images: Iterable[Image | Frame], judged: Iterable[int] = (), settings: CoherenceSettings | None = None
) -> list[Seen]:
    """Let a new camera see `images`; compare with a full encode in the frames `judged`, counted from 0."""
    wanted, seen = set(judged), []
    vlm = TemporalVLM(
        Preprocessor(runtime().model.manifest),
        OnnxEncoder(runtime()),
        HostOps(),
        settings or CoherenceSettings(flow_deadline_ms=60_000),
        costs=EncodeCosts.of(COST_MS),
        clock=lambda: 0.0,
    )
    with closing(vlm):
        for index, image in enumerate(images):
            result = vlm.process(image if isinstance(image, Frame) else frame(image, index))
            cosines = None
            if index in wanted:
                assert result.picture is not None
                cosines = token_cosines(result.tokens.features, _judge().encode_full(result.picture))
            slots = np.arange(TOKENS) if result.dirty is None else result.dirty.copy()
            seen.append(Seen(result, result.tokens_encoded, slots, result.changed.copy(), cosines))
    assert not vlm.faults, "a fault would be hidden by its full encode"
    return seen


def slots_in(seen: Seen, box: tuple[float, float, float, float]) -> NDArray[np.int64]:
    """Slots whose patch touches a box [x, y, w, h] of the frame, source pixels."""
    assert seen.result.placement is not None
    x, y, w, h = seen.result.placement.to_picture(box)
    rows = np.arange(max(0, int(y // PATCH)), min(GRID[0], int(-(-(y + h) // PATCH))))
    cols = np.arange(max(0, int(x // PATCH)), min(GRID[1], int(-(-(x + w) // PATCH))))
    return np.asarray((rows[:, None] * GRID[1] + cols).ravel(), np.int64)
