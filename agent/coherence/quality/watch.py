"""The detectors that run with every frame of a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.coherence.quality.flicker import Flicker, FlickerDetector
from agent.coherence.quality.ghosting import GhostDetector

Floats = NDArray[np.float32]
Slots = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quality:
    """How one frame's blended features do. ghosts: int64 (n,), tokens that kept what was gone, and were mended.
    flicker: of the last seconds, None until there were some."""

    ghosts: Slots
    flicker: Flicker | None


NOTHING_SEEN = Quality(np.zeros(0, np.int64), None)


class QualityWatch:
    """Watches the blended features of one camera and mends their ghosts."""

    def __init__(self, tokens: int, dim: int) -> None:
        self._ghosts = GhostDetector(tokens, dim)
        self._flicker = FlickerDetector(tokens, dim)

    def reset(self) -> None:
        self._ghosts.reset()
        self._flicker.reset()

    def fetch(self, source: Slots) -> None:
        """Every slot takes over what was seen of slot `source[slot]`."""
        self._ghosts.fetch(source)
        self._flicker.fetch(source)

    def process(
        self, accumulated: Floats, features: Floats, touched: NDArray[np.bool_], now_s: float, *, again: bool = False
    ) -> Quality:
        """One frame. accumulated, features: (T, D), blended and current; ghosts in `accumulated` are replaced in place.
        touched: bool (T,), tokens whose content changed or moved. now_s: when the frame was taken. again: all features
        are those of the frame before."""
        ghosts = self._ghosts.process(accumulated, features, touched)
        accumulated[ghosts] = features[ghosts]
        self._flicker.process(accumulated, now_s, again=again and not len(ghosts))
        return Quality(ghosts, self._flicker.latest)
