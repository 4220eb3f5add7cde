"""What to re-encode: staleness per token, what it costs, and the plan that follows from both.

A patch has changed when its residual against the *reference* (the pixels its token was made from) exceeds the patch's
own threshold; slow change adds up until it does. Changed tokens are encoded, the most stale first; what a budget
leaves over waits, and its urgency is error × waiting time. Of the others as many are encoded anew, the most stale
first, as the floor of fidelity asks for: the mean error that is expected to be left must not exceed what is allowed.
Staleness grows with *pressure* (how much the tokens around have moved) and urgency with age, so each token has its
turn; oldest first, as in a video codec, leaves half as much error again. When the scene has come to rest, all that are
worth it are refreshed once; then nothing is encoded until something changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.coherence.costs import EncodeCosts
from agent.coherence.detail import Hierarchy
from agent.coherence.fidelity import FidelityControl
from agent.coherence.noise import PatchNoise
from agent.coherence.quality.correlation import WARP_ERROR_LIMIT, warp_error
from agent.coherence.reckoning import Assessment, Expected, TokenState, reckoning
from agent.coherence.settings import CoherenceSettings
from agent.coherence.warping import Fetch
from engines.plan import EncodePlan, Mode

Floats = NDArray[np.float32]
Slots = NDArray[np.int64]
Mask = NDArray[np.bool_]

_NONE = np.zeros(0, np.int64)
_KEPT_BACK, _KEPT = 0.12, 0.2
"""Shares of what has changed since the last full encode that may be left undone, and that all error together may come
to: a floor alone could be held for long by never updating."""
_UNNOTICED = 1.5
"""Change since the last full encode that counts in any case, over what the floor allows to be wrong."""
_SAMPLED = 16
"""One in so many of the changing tokens that are left undone is encoded all the same: what was learned of such changes
may not hold for this one, as when the light changes."""
_AT_ONCE = 0.25
"""Where nothing has changed, so much more is refreshed at once that some frames go without: a run of the network costs
more than the first few tokens in it."""
_SELDOM = 60
"""Frames between samples where nothing has changed."""
_FEW, _LONG = 12, 32
"""At rest so few tokens that have drifted wait until there are more, or for so many frames."""
_TURN = 64
"""Frames after which a token is twice as urgent."""


class Planner:
    """The planning state of one camera. seen: bool (T,), tokens that see picture; the others are never refreshed."""

    def __init__(
        self,
        grid: tuple[int, int],
        settings: CoherenceSettings,
        costs: EncodeCosts,
        seen: Mask,
        control: FidelityControl,
    ) -> None:
        self._grid = grid
        self.settings = settings
        self._costs = costs
        self._seen = seen
        self._seen_count = max(1, int(seen.sum()))
        self._tokens = grid[0] * grid[1]
        self._noise = PatchNoise(self._tokens)
        self._hierarchy = Hierarchy(grid)
        self._control = control
        kept = TokenState.of(self._noise, control.staleness, seen)
        self._hold, self._pressure, self._travelled = kept.hold, kept.pressure, kept.travelled
        self._age, self._waiting = kept.age, kept.waiting
        self._reckoning = reckoning(kept, grid)
        self.reset()

    def reset(self) -> None:
        """Forget everything, the noise too: the next frame is of another scene."""
        self._noise.reset()
        for each in (self._hold, self._pressure, self._travelled, self._waiting, self._age):
            each[...] = 0
        self._ratio: Floats = np.zeros(self._tokens, np.float32)
        self._still: int = 0
        self._since_sample: int = 0
        self._differs: float = 0.0
        self.coarse: Mask = np.zeros(self._tokens, bool)
        self.expected: float = 0.0

    @property
    def budget(self) -> int:
        """The most tokens that a selective plan may encode now."""
        return _budget(self.settings, self._costs)

    def slid(self, source: Slots, steps: tuple[int, int]) -> None:
        """The grid has stepped by so many columns and rows: slot `i` shows what slot `source[i]` showed."""
        self._noise.fetch(source)
        for each in (self._hold, self._waiting, self._age, self._pressure):
            each[...] = each[source]
        self._travelled[...] = self._travelled[source] + np.array(steps, np.float32)

    def assess(self, residual: Floats, difference: Floats, since_full: float) -> Assessment:
        """residual: (T,) against the reference, difference: (T,) against the frame before, grey levels. since_full: by
        how much the tokens have changed since the last full encode, sum of 1 − cosine."""
        allowed, scale = 1 - self._control.floor, self._control.staleness.scale
        self._differs = max(since_full / self._seen_count, _UNNOTICED * allowed) / scale
        kept_back = _KEPT_BACK * self._differs * self._seen_count
        look = self._reckoning.assess(residual, difference, self.settings, allowed, kept_back)
        self._ratio = look.ratio
        return look

    def plan(self, residual: Floats, assessment: Assessment, fetch: Fetch | None = None) -> EncodePlan:
        """The plan for this frame. fetch: tokens that other slots' tokens will replace."""
        s = self.settings
        stale = assessment.stale
        self._still = 0 if stale.any() else self._still + 1
        if fetch is not None:
            stale = stale.copy()
            stale[fetch.fetched] = False
        changed = self._hierarchy.whole(np.flatnonzero(stale), self.coarse) if self._still == 0 else _NONE
        refresh = self._to_refresh(stale, assessment)
        if len(changed) and len(refresh) and self.coarse.any():  # a clean token of a coarse cell that has changed
            refresh = refresh[~np.isin(refresh, changed)]
        wanted = len(changed) + len(refresh)
        if not wanted and fetch is None:
            return EncodePlan(Mode.REUSE, _NONE)
        budget = self.budget
        may_be_full = budget >= self._tokens
        if may_be_full and warp_error(stale, self._seen) > WARP_ERROR_LIMIT:
            return EncodePlan(Mode.FULL, None, reasons=_counts(warp_error=len(changed), refresh=len(refresh)))
        if may_be_full and wanted and self._costs.ms(wanted) >= s.full_above * self._costs.full_ms:
            return EncodePlan(Mode.FULL, None, reasons=_counts(changed=len(changed), refresh=len(refresh)))
        cells: Slots | None = None
        if len(changed) > budget:
            urgency = residual / assessment.threshold * (1 + self._waiting)
            changed, cells, left = self._hierarchy.choose(changed, urgency, budget)
            self._waiting[left] += 1
            refresh = refresh[~np.isin(refresh, cells[:, None] + [0, 1, self._grid[1], self._grid[1] + 1])]
        coarse = 0 if cells is None else len(cells)
        refresh = self._within(refresh, budget - len(changed) - coarse)
        dirty = np.sort(np.concatenate([changed, refresh]))
        inconsistent = 0 if fetch is None else min(fetch.inconsistent, len(changed))
        reasons = _counts(
            changed=len(changed) - inconsistent, inconsistent=inconsistent, coarse=coarse, refresh=len(refresh)
        )
        cells = cells if coarse else None
        if fetch is not None:
            return EncodePlan(Mode.WARPING, dirty, fetch.source, reasons, cells)
        return EncodePlan(Mode.HIERARCHICAL_DIFF if reasons else Mode.REUSE, dirty, None, reasons, cells)

    def encoded(
        self, dirty: Slots | None, error: Floats, stale: Mask, source: Slots | None = None, coarse: Mask | None = None
    ) -> None:
        """The plan was carried out. dirty: slots encoded, fine or coarse, None = all. error: (n,), 1 − cosine between
        what was given out for them before and their new value. stale: (T,), tokens whose content has changed. source:
        the fetch of the plan. coarse: (T,), slots that are part of a coarse token now."""
        every = dirty is None
        slots = np.arange(self._tokens) if dirty is None else dirty
        if source is not None:
            for each in (self._age, self._pressure, self._travelled):
                each[...] = each[source]
        stale = stale | self.coarse  # a refined cell is news to the tokens around it
        self.coarse[:] = False if coarse is None else coarse
        if every:
            if len(error):
                way = np.hypot(*self._travelled.T)
                self._control.staleness.observe(error, self._ratio, self._pressure, way)
            for each in (self._age, self._pressure, self._travelled, self._waiting):
                each[...] = 0
            self.expected = self._control.staleness.fresh
        elif len(slots):
            self._reckoning.learn(slots, error, stale, self._ratio)
        self._control.frame(self.expected, len(slots))

    def _within(self, refresh: Slots, room: int) -> Slots:
        """As many of the tokens to refresh as there is room for; a coarse cell is refined as a whole or not at all."""
        refresh = refresh[:room]
        whole = self._hierarchy.whole(refresh, self.coarse)
        return whole if len(whole) <= room else refresh[~self.coarse[refresh]]

    def _to_refresh(self, stale: Mask, look: Assessment) -> Slots:
        """Clean tokens to encode anew, most stale first: as many as the floor of fidelity asks for while the scene
        moves, all that drifted once it rests."""
        s, control = self.settings, self._control
        found = self._reckoning.expect(look, stale, self.coarse)
        expected, total, fresh = found.error, found.total, np.float32(control.staleness.fresh)
        self.expected = total / self._seen_count
        settled = self._still >= s.settle_frames
        excess, samples = 0.0, 0
        if not settled:
            limit = min(control.allowed, _KEPT * self._differs) * self._seen_count
            excess = total - limit
            calls = bool(stale.any())  # the network runs anyway
            if excess > 0 and not calls:
                excess += _AT_ONCE * limit
            samples = self._samples(found, calls)
            if excess <= 0 and not samples:
                return _NONE
        candidates = self._worth(stale, expected, fresh, settled)
        if settled and len(candidates) < _FEW and self._still > s.settle_frames and self._still % _LONG:
            return _NONE
        urgency = expected[candidates] * (1 + self._age[candidates] / _TURN)
        candidates = candidates[np.argsort(-urgency, kind="stable")]
        gains = np.cumsum(np.maximum(expected[candidates] - fresh, 0))
        count = len(candidates)
        if not settled:
            needed = int(np.searchsorted(gains, excess)) + 1 if excess > 0 else 0
            count = min(count, max(needed, samples))
        self.expected = (total - (float(gains[count - 1]) if count else 0.0)) / self._seen_count
        return candidates[:count]

    def _worth(self, stale: Mask, expected: Floats, fresh: np.float32, settled: bool) -> Slots:
        """Clean tokens that may gain by being encoded anew."""
        if settled:
            scale = np.float32(self._control.staleness.scale)
            worth = (expected - fresh) * scale > self.settings.settle_drift
        else:
            worth = (self._pressure > 0) | (expected > fresh)
        return np.flatnonzero(self._seen & ~stale & (worth | self.coarse))

    def _samples(self, found: Expected, calls: bool) -> int:
        """How many tokens to encode anew only to learn from them. calls: whether the network runs anyway."""
        self._since_sample = 0 if calls else self._since_sample + 1
        if not calls and found.changing < _SAMPLED and self._since_sample % _SELDOM:
            return 0
        often = self.settings.refresh_tokens if found.changing or found.pressed else 0
        return often + found.changing // _SAMPLED


def _counts(**reasons: int) -> dict[str, int]:
    return {name: count for name, count in reasons.items() if count}


def _budget(settings: CoherenceSettings, costs: EncodeCosts) -> int:
    tokens = costs.tokens if settings.budget_tokens is None else min(settings.budget_tokens, costs.tokens)
    return tokens if settings.budget_ms is None else max(1, min(tokens, costs.within(settings.budget_ms)))
