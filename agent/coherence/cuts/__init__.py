"""Scene cuts: where a new shot begins."""

from __future__ import annotations

from agent.coherence.cuts.detectors import CombinedCut, CutScore, FeatureCut, HistogramCut, token_cosines
from agent.coherence.cuts.glance import Difference, Glance
from agent.coherence.cuts.recent import Cut, CutKind
from agent.coherence.cuts.shots import CutVerdict, SceneCuts

__all__ = [
    "CombinedCut",
    "Cut",
    "CutKind",
    "CutScore",
    "CutVerdict",
    "Difference",
    "FeatureCut",
    "Glance",
    "HistogramCut",
    "SceneCuts",
    "token_cosines",
]
