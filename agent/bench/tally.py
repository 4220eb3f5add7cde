"""What is counted of the coherent path over one clip."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.bench.side import Side
from agent.coherence.cuts import token_cosines
from agent.coherence.result import FrameResult
from engines.plan import Mode

Floats = NDArray[np.float32]


class Tally:
    """ours: before blending in time. blended: what insight and decoder read. copied: the full encode of the frame
    before, in place of this one's. floor: fidelity below which the last full anchor no longer serves."""

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self.ours, self.blended, self.copied = Side("ours"), Side("blended"), Side("copy-last")
        self.frames = self.encoded = 0
        self._modes: Counter[str] = Counter()
        self._stages_ms: defaultdict[str, float] = defaultdict(float)
        self._errors: list[tuple[float, float, bool]] = []
        self._anchor: Floats | None = None

    def count(self, result: FrameResult, ms: float) -> None:
        self.ours.ms.append(ms)
        self.frames += 1
        self.encoded += result.tokens_encoded
        self._modes[result.mode.value] += 1
        for stage, stage_ms in result.stages_ms.items():
            self._stages_ms[stage] += stage_ms

    def compare(self, result: FrameResult, truth: Floats, full: Floats, before: Floats | None) -> None:
        """The same frame. truth: the full encode of the picture that our tokens are of. full, before: those of this
        frame and, where it is known, of the one before, as the camera gives them."""
        seen = result.seen
        self.ours.compare(result.tokens.features, truth, seen)
        self.blended.compare(result.accumulated, truth, seen)
        if before is not None:
            self.copied.compare(before, full, seen)
        if self._anchor is not None:
            error = float(np.square(result.tokens.features[seen] - truth[seen]).sum())
            anchor_error = float(np.square(self._anchor[seen] - truth[seen]).sum())
            stale = float(token_cosines(self._anchor[seen], truth[seen]).mean()) < self._floor
            self._errors.append((error, anchor_error, stale))
        if result.dirty is None:
            self._anchor = truth.copy()

    @property
    def skill(self) -> float | None:
        """1 − Σ|ours − full|² / Σ|last full anchor − full|²; None when the anchor has stayed right."""
        return _skill(self._errors)

    @property
    def skill_where_stale(self) -> float | None:
        """The same over the frames for which the anchor alone would miss the floor; None without such frames."""
        return _skill([each for each in self._errors if each[2]])

    @property
    def modes(self) -> dict[str, int]:
        return {mode.value: self._modes[mode.value] for mode in Mode if self._modes[mode.value]}

    @property
    def stages_ms(self) -> dict[str, float]:
        """Mean over the frames."""
        return {stage: ms / self.frames for stage, ms in self._stages_ms.items()}

    def fidelity_ema(self) -> dict[str, Any]:
        found = self.blended.fidelity
        return {"mean": found["mean"], "p5": found["p5"]}


def _skill(errors: Sequence[tuple[float, float, bool]]) -> float | None:
    anchors = sum(anchor for _, anchor, _ in errors)
    return 1 - sum(ours for ours, _, _ in errors) / anchors if anchors else None
