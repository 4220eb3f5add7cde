"""What to re-encode: staleness per token, what it costs, and the plan that follows from both.

A patch is stale when its residual against the *reference* (the pixels its token was made from) exceeds the patch's own
threshold; slow change adds up until it does. The most stale go first; what a budget leaves over waits, and its
urgency is error × waiting time. Clean tokens age through their context: how much the tokens around them have moved is
their *pressure*, and those with the highest pressure × age are refreshed while the scene moves, so that each has its
turn; oldest first, as in a video codec, leaves half as much drift again. When the scene has come to rest, all that
are worth it are refreshed once; then nothing is encoded until something changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.coherence.costs import EncodeCosts
from agent.coherence.noise import PatchNoise
from agent.coherence.settings import CoherenceSettings
from agent.coherence.warping import Fetch
from engines.plan import EncodePlan, Mode

Floats = NDArray[np.float32]
Slots = NDArray[np.int64]
Mask = NDArray[np.bool_]

_HOLD_FRAMES = 2
"""Frames for which a patch that changed keeps the lower threshold."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """stale: bool (T,), tokens whose pixels no longer fit. moving: bool (T,), patches that differ from the frame
    before. threshold: float32 (T,), grey levels, what `stale` was measured against."""

    stale: Mask
    moving: Mask
    threshold: Floats


class Planner:
    """The planning state of one camera. seen: bool (T,), tokens that see picture; the others are never refreshed."""

    def __init__(self, grid: tuple[int, int], settings: CoherenceSettings, costs: EncodeCosts, seen: Mask) -> None:
        self._grid = grid
        self._settings = settings
        self._costs = costs
        self._seen = seen
        self._tokens = grid[0] * grid[1]
        self._budget = _budget(settings, costs)
        self._noise = PatchNoise(self._tokens)
        self.reset()

    def reset(self) -> None:
        """Forget everything, the noise too: the next frame is of another scene."""
        self._noise.reset()
        self._hold: Slots = np.zeros(self._tokens, np.int64)
        self._waiting: Floats = np.zeros(self._tokens, np.float32)
        self._age: Slots = np.zeros(self._tokens, np.int64)
        self._pressure: Floats = np.zeros(self._tokens, np.float32)
        self._still: int = 0

    @property
    def budget(self) -> int:
        """The most tokens that a selective plan may encode."""
        return self._budget

    def assess(self, residual: Floats, difference: Floats) -> Assessment:
        """residual: (T,) against the reference, difference: (T,) against the frame before, grey levels."""
        s = self._settings
        self._noise.process(difference)
        threshold = self._noise.threshold(s.residual, s.noise_factor, s.residual * s.noise_ceiling)
        limit = np.where(self._hold > 0, np.float32(s.leave) * threshold, threshold)
        stale = residual > limit
        self._hold = np.where(stale, _HOLD_FRAMES, np.maximum(self._hold - 1, 0))
        return Assessment(stale, difference > threshold, limit)

    def plan(self, residual: Floats, assessment: Assessment, fetch: Fetch | None = None) -> EncodePlan:
        """The plan for this frame. fetch: tokens that other slots' tokens will replace."""
        s = self._settings
        stale = assessment.stale.copy()
        if fetch is not None:
            stale[fetch.fetched] = False
        changed = np.flatnonzero(stale)
        self._still = 0 if assessment.stale.any() else self._still + 1
        refresh = self._to_refresh(stale)
        wanted = len(changed) + len(refresh)
        may_be_full = self._budget >= self._tokens
        if may_be_full and wanted and self._costs.ms(wanted) >= s.full_above * self._costs.full_ms:
            return EncodePlan(Mode.FULL, None, reasons=_counts(changed=len(changed), refresh=len(refresh)))
        if len(changed) > self._budget:
            urgency = residual[changed] / assessment.threshold[changed] * (1 + self._waiting[changed])
            order = np.argsort(-urgency, kind="stable")
            self._waiting[changed[order[self._budget :]]] += 1
            changed = changed[order[: self._budget]]
        refresh = refresh[: self._budget - len(changed)]
        dirty = np.sort(np.concatenate([changed, refresh]))
        if fetch is None:
            mode = Mode.HIERARCHICAL_DIFF if len(dirty) else Mode.REUSE
            return EncodePlan(mode, dirty, reasons=_counts(changed=len(changed), refresh=len(refresh)))
        reasons = _counts(
            changed=len(changed) - min(fetch.inconsistent, len(changed)),
            inconsistent=min(fetch.inconsistent, len(changed)),
            refresh=len(refresh),
        )
        return EncodePlan(Mode.WARPING, dirty, fetch.source, reasons)

    def encoded(self, dirty: Slots | None, moved: Floats | None = None, source: Slots | None = None) -> None:
        """The plan was carried out. dirty: slots encoded, None = all. moved: (n,), 1 − cosine between old and new
        value of the dirty tokens, 0 where the content is the same. source: the fetch of the plan."""
        if dirty is None or moved is None:
            self._age[...] = 0
            self._pressure[...] = 0
            self._waiting[...] = 0
            return
        if source is not None:
            self._age, self._pressure = self._age[source], self._pressure[source]
        self._age += 1
        if len(dirty):
            cause = np.zeros(self._tokens, np.float32)
            cause[dirty] = moved
            near = cv2.GaussianBlur(cause.reshape(self._grid), (0, 0), 1.5, borderType=cv2.BORDER_REPLICATE)
            self._pressure += near.reshape(-1) + cause.mean()
            self._age[dirty] = 0
            self._pressure[dirty] = 0
            self._waiting[dirty] = 0

    def _to_refresh(self, stale: Mask) -> Slots:
        """Clean tokens to refresh, most urgent first: a few while the scene moves, all that drifted once it rests."""
        s = self._settings
        if self._still >= s.settle_frames:
            drifted = np.flatnonzero(self._seen & (self._pressure > s.settle_drift))
            return drifted[np.argsort(-self._pressure[drifted], kind="stable")]
        candidates = np.flatnonzero(self._seen & ~stale & (self._pressure > 0))
        urgency = self._pressure[candidates] * self._age[candidates]
        return candidates[np.argsort(-urgency, kind="stable")[: s.refresh_tokens]]


def _counts(**reasons: int) -> dict[str, int]:
    return {name: count for name, count in reasons.items() if count}


def _budget(settings: CoherenceSettings, costs: EncodeCosts) -> int:
    tokens = costs.tokens if settings.budget_tokens is None else min(settings.budget_tokens, costs.tokens)
    return tokens if settings.budget_ms is None else max(1, min(tokens, costs.within(settings.budget_ms)))
