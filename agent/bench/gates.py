"""Rivals that look at pixels: what a network video recorder does, and selective encoding without a memory."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.coherence.costs import EncodeCosts
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode
from engines.preprocess import Preprocessor
from vpi_ops.choice import host_ops, host_shrink

Floats = NDArray[np.float32]

_HEIGHT = 100
_AVERAGED = 0.01
_WAIT_FRAMES = 10
_LEAST_AREA = 10.0
_CONTRAST = (4, 96)


class MotionGate:
    """A full encode when something moves, else the last result again.

    Motion as network video recorders find it, with the values that Frigate ships: the grey picture at 100 px height,
    contrast stretched between its percentiles, blurred, against a running average (0.01 a frame; while something moves
    only after ten frames); differences above `threshold` (30), dilated, with a contour of more than 10 px.
    """

    name = "motion-gate"

    def __init__(self, runtime: OnnxRuntime, threshold: float) -> None:
        self.setting: Mapping[str, float] = {"threshold": threshold}
        self._preprocessor = Preprocessor(runtime.model.manifest, host_shrink())
        self._encoder = OnnxEncoder(runtime)
        self._average: Floats | None = None
        self._moving_frames = 0
        self._features: Floats | None = None

    def process(self, frame: Frame) -> Floats:
        if self._moves(frame.image) or self._features is None:
            self._features = self._encoder.encode_full(self._preprocessor.picture(frame.image))
        return self._features

    def _moves(self, image: NDArray[np.uint8]) -> bool:
        height, width = image.shape[:2]
        size = (max(1, round(_HEIGHT * width / height)), _HEIGHT)
        small = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), cv2.COLOR_RGB2GRAY)
        low, high = np.percentile(small, _CONTRAST)
        if high > low:
            small = (np.clip((small - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        small = cv2.GaussianBlur(small, (3, 3), 1)
        if self._average is None:
            self._average = small.astype(np.float32)
        difference = cv2.absdiff(small, cv2.convertScaleAbs(self._average))
        _, above = cv2.threshold(difference, self.setting["threshold"], 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(
            cv2.dilate(above, np.ones((3, 3), np.uint8)), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        moves = any(cv2.contourArea(contour) > _LEAST_AREA for contour in contours)
        self._moving_frames = self._moving_frames + 1 if moves else 0
        if not moves or self._moving_frames >= _WAIT_FRAMES:
            cv2.accumulateWeighted(small, self._average, _AVERAGED)
        return moves


class PreviousFrameGate:
    """Our encoder, told to encode the patches that differ from the frame before by more than `threshold` grey levels;
    all of them where that is cheaper. No reference frame and no refresh: slow change is never seen, and what a token
    has missed stays wrong."""

    name = "previous-frame-gate"

    def __init__(self, runtime: OnnxRuntime, costs: EncodeCosts, threshold: float) -> None:
        self.setting: Mapping[str, float] = {"threshold": threshold}
        self._preprocessor = Preprocessor(runtime.model.manifest, host_shrink())
        self._encoder, self._costs, self._ops = OnnxEncoder(runtime), costs, host_ops()
        self._current, self._previous = (
            self._ops.pyramid(self._encoder.grid, self._encoder.patch_size) for _ in range(2)
        )
        self._first = True

    def process(self, frame: Frame) -> Floats:
        picture = self._preprocessor.picture(frame.image)
        self._current, self._previous = self._previous, self._current
        self._ops.fill(self._current, picture)
        plan = EncodePlan(Mode.FULL, None)
        if not self._first:
            residual = self._ops.residual(self._current, self._previous).patch
            dirty = np.flatnonzero(residual > self.setting["threshold"])
            if self._costs.ms(len(dirty)) < self._costs.full_ms:
                plan = EncodePlan(Mode.HIERARCHICAL_DIFF, dirty)
        self._first = False
        return self._encoder.encode(picture, plan).features
