"""What can be set about temporal coherence, and the starting values for each kind of content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from config.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CoherenceSettings:
    """fidelity_floor: mean cosine between our tokens and those of a full encode that is held. audit_frames: frames in
    which something was encoded between full encodes that check it.

    residual: least difference in grey levels that makes a patch dirty. noise_factor: a noisy patch's own
    threshold, in median absolute deviations above its median. noise_ceiling: that threshold is at most so many times
    `residual`. leave: share of the threshold at which a patch that just changed still counts as changing.

    budget_tokens, budget_ms: the most a frame may re-encode; None = whatever is cheaper than a full encode. full_above:
    share of a full encode's cost from which the full encode is taken instead.

    refresh_tokens: the fewest clean tokens re-encoded per frame while the scene moves: samples of staleness.
    settle_frames: still frames after which what has drifted is refreshed. settle_drift: expected drift of a token
    (1 − cosine) that is worth it. drift_transfer: share of the movement seen on refreshed tokens that the other clean
    tokens' output takes on.

    motion_low: motion (share of 20 source px) left after whole patches up to which a token may be fetched from where it
    was. flow_error_px: consistency error above which flow is not believed. flow_deadline_ms: a later flow is dropped.
    flow_rest_frames: frames that go without flow after one whose flow found nothing to fetch; the motion last seen
    stands in.

    cut_reset: difference between neighbouring frames (score of agent.coherence.cuts) that is worth a full encode, as
    one is suspected; cut_features: mean cosine below which it is one at once, without two more frames to tell.
    ema_static, ema_fast: how much of the accumulated features is kept, standing still and moving fast.
    """

    fidelity_floor: float = 0.985
    audit_frames: int = 300
    residual: float = 24.0
    noise_factor: float = 4.0
    noise_ceiling: float = 2.0
    leave: float = 0.9
    budget_tokens: int | None = None
    budget_ms: float | None = None
    full_above: float = 0.85
    refresh_tokens: int = 1
    settle_frames: int = 3
    settle_drift: float = 0.002
    drift_transfer: float = 0.8
    motion_low: float = 0.2
    flow_error_px: float = 1.0
    flow_deadline_ms: float = 10.0
    flow_rest_frames: int = 3
    cut_reset: float = 0.15
    cut_features: float = 0.7
    ema_static: float = 0.9
    ema_fast: float = 0.3

    def __post_init__(self) -> None:
        budget = self.budget_tokens
        rules = (
            ("fidelity_floor", 0.5 <= self.fidelity_floor < 1, "0.5 or more, below 1"),
            ("audit_frames", self.audit_frames >= 1, "1 frame or more"),
            ("residual", self.residual > 0, "above 0 grey levels"),
            ("noise_factor", self.noise_factor >= 0, "0 or more"),
            ("noise_ceiling", self.noise_ceiling >= 1, "1 or more"),
            ("leave", 0 < self.leave <= 1, "above 0, at most 1"),
            ("budget_tokens", budget is None or budget >= 1, "1 token or more, or nothing"),
            ("budget_ms", self.budget_ms is None or self.budget_ms > 0, "above 0 ms, or nothing"),
            ("full_above", 0 < self.full_above <= 1, "above 0, at most 1"),
            ("refresh_tokens", self.refresh_tokens >= 0, "0 or more"),
            ("refresh_tokens", budget is None or self.refresh_tokens <= budget, f"at most budget_tokens ({budget})"),
            ("settle_frames", self.settle_frames >= 1, "1 frame or more"),
            ("settle_drift", self.settle_drift > 0, "above 0"),
            ("drift_transfer", 0 <= self.drift_transfer <= 1, "0 to 1"),
            ("motion_low", 0 <= self.motion_low <= 1, "0 to 1"),
            ("flow_error_px", self.flow_error_px > 0, "above 0 px"),
            ("flow_deadline_ms", self.flow_deadline_ms > 0, "above 0 ms"),
            ("flow_rest_frames", self.flow_rest_frames >= 0, "0 or more"),
            ("cut_reset", 0 < self.cut_reset < 1, "between 0 and 1"),
            ("cut_features", -1 < self.cut_features < 1, "between -1 and 1"),
            ("ema_static", 0 <= self.ema_static < 1, "0 or more, below 1"),
            ("ema_fast", 0 <= self.ema_fast <= self.ema_static, "0 to ema_static"),
        )
        for name, holds, expected in rules:
            if not holds:
                raise ConfigError(f"coherence.{name}: found {getattr(self, name)!r}, expected {expected}")


PROFILES: Mapping[str, CoherenceSettings] = MappingProxyType(
    {
        "general": CoherenceSettings(),
        "webcam": CoherenceSettings(ema_static=0.98, motion_low=0.1),
        "conversation": CoherenceSettings(ema_static=0.9, motion_low=0.15),
        "sports": CoherenceSettings(ema_static=0.7, ema_fast=0.2, motion_low=0.3),
        "movie": CoherenceSettings(cut_reset=0.12, ema_static=0.85),
        "security": CoherenceSettings(ema_static=0.98, motion_low=0.1, fidelity_floor=0.99),
    }
)
"""Starting values by content. The published movie profile lowers a histogram threshold from 0.5 to 0.4: here the same
share is taken off `cut_reset`. Its upper limit of motion for sports has no use here: what moves too far is encoded.
 `auto` is none of them: it begins with `general` and chooses (agent.coherence.tuning)."""
AUTO = "auto"
