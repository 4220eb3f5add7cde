"""What shows whether coherence goes well: how alike neighbouring frames are, and whether what is given out ghosts,
flickers, or moves where nothing happens."""

from __future__ import annotations

from agent.coherence.quality.consistency import Consistency, FeatureConsistency
from agent.coherence.quality.correlation import Coherence, correlation, warp_error
from agent.coherence.quality.flicker import Flicker, FlickerDetector
from agent.coherence.quality.ghosting import GhostDetector
from agent.coherence.quality.watch import NOTHING_SEEN, Quality, QualityWatch
from agent.coherence.quality.words import TextConsistency, TextReport, word_cosine

__all__ = [
    "NOTHING_SEEN",
    "Coherence",
    "Consistency",
    "FeatureConsistency",
    "Flicker",
    "FlickerDetector",
    "GhostDetector",
    "Quality",
    "QualityWatch",
    "TextConsistency",
    "TextReport",
    "correlation",
    "warp_error",
    "word_cosine",
]
