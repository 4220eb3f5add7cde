"""`profile: auto`: what is decided, why, and that it holds."""

from __future__ import annotations

import numpy as np
import pytest

from agent.coherence.result import FrameResult
from agent.coherence.tuning import AutoTune
from engines.plan import Mode, TokenMap

TOKENS = 100


def result(moving: float, fast: float = 0.0, *, cut: bool = False) -> FrameResult:
    """A frame of which these shares move, and move fast."""
    nothing, motion = np.zeros(TOKENS, bool), np.zeros((TOKENS, 2), np.float32)
    motion[: round(fast * TOKENS), 0] = 15
    features = np.zeros((TOKENS, 4), np.float32)
    return FrameResult(
        frame_index=0,
        mode=Mode.SCENE_CUT_FULL if cut else Mode.HIERARCHICAL_DIFF,
        tokens_encoded=0,
        avg_motion=0.0,
        tokens=TokenMap(features, (10, 10), 0),
        accumulated=features,
        dirty=None if cut else np.zeros(0, np.int64),
        residual=np.zeros(TOKENS, np.float32),
        changed=nothing,
        moving=np.arange(TOKENS) < round(moving * TOKENS),
        motion=motion,
        seen=~nothing,
        cut=cut,
    )


@pytest.mark.parametrize(
    ("moving", "fast", "every_s", "profile"),
    [
        (0.01, 0, None, "webcam"),
        (0.1, 0, None, "conversation"),
        (0.5, 0, None, "general"),
        (0.2, 0.1, None, "sports"),
        (0.3, 0.1, 10, "movie"),
    ],
)
def test_content_is_told_from_what_moves(moving: float, fast: float, every_s: int | None, profile: str) -> None:
    tune = AutoTune()
    decisions = []
    for step in range(600):
        cut = every_s is not None and step % (10 * every_s) == 0
        decision = tune.process(result(moving, fast, cut=cut), step / 10)
        if decision is not None:
            decisions.append((step / 10, decision))
    assert decisions[0][0] == pytest.approx(5, abs=0.2)
    assert decisions[-1][1].profile == profile
    assert decisions[-1][1].reason
    assert len(decisions) <= 2


def test_what_passes_changes_nothing_and_what_stays_does() -> None:
    tune = AutoTune()
    told = {}
    for step in range(3000):
        t = step / 10
        lorry, match = 60 < t < 63, t > 150
        decision = tune.process(result(0.4, 0.2) if lorry or match else result(0.0), t)
        if decision is not None:
            told[t] = decision.profile
    assert list(told.values()) == ["webcam", "sports"]
    assert 170 < list(told)[1] < 200
