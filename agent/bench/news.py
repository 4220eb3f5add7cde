"""When there is news, and how many visual tokens the decoder reads for it; the same for full encodes of every frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.insight.change import SemanticChange
from engines.decoder import Decoder

Floats = NDArray[np.float32]

_SAME_S = 2.0
"""Two tellings further apart are not of the same event."""


class News:
    """Semantic changes as the agent tells them: the first picture is described, then each change. describe: takes
    features (T, D) and returns how many visual tokens were read. told_s: when each change was told."""

    def __init__(self, grid: tuple[int, int], describe: Callable[[Floats], int]) -> None:
        self._change, self._describe = SemanticChange(grid), describe
        self._first = True
        self.read = 0
        self.told_s: list[float] = []

    def process(self, features: Floats, now_s: float, *, cut: bool, ignored: NDArray[np.bool_]) -> None:
        change = self._change.update(features, now_s, cut=cut, ignored=ignored)
        if change is not None:
            self.told_s.append(now_s)
        if change is not None or self._first:
            self._first = False
            self._change.described(features)
            self.read += self._describe(features)


def reader(decoder: Decoder | None, visual_tokens: int) -> Callable[[Floats], int]:
    """Has a picture read, and says how many of its visual tokens that were: those from the first that differs from the
    picture read before. All of them where there is no language model to say."""

    def read(features: Floats) -> int:
        if decoder is None:
            return visual_tokens
        before = decoder.tokens_read
        decoder.look(features, key="bench")
        return min(visual_tokens, decoder.tokens_read - before)

    return read


def timing(ours_s: list[float], full_s: list[float]) -> dict[str, Any]:
    """How events of the coherent path lie against those of full encodes: counts, and by how much matched ones came
    later (mean, and the largest difference either way), None where nothing matches. Nearest pairs match first."""
    pairs = sorted((abs(o - f), i, j) for i, o in enumerate(ours_s) for j, f in enumerate(full_s))
    matched: dict[int, int] = {}
    for apart, i, j in pairs:
        if apart <= _SAME_S and i not in matched and j not in matched.values():
            matched[i] = j
    late = [ours_s[i] - full_s[j] for i, j in matched.items()]
    return {
        "ours": len(ours_s),
        "full": len(full_s),
        "matched": len(late),
        "late_s": float(np.mean(late)) if late else None,
        "largest_s": float(np.max(np.abs(late))) if late else None,
    }
