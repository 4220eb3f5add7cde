"""The plainest rival: a full encode of every n-th frame, and its result again until the next.

Its frames are frames that are encoded in full anyway, so it needs no time of its own: n is chosen when the clip is over
and our own cost is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.bench.side import Side

Floats = NDArray[np.float32]

NAME = "every-n"
_SPARSE = (2, 4, 8, 16, 32, 64)
_DENSE = (*range(2, 17), 18, 20, 22, 24, 28, 32, 40, 48, 64, 96, 128, 256)


class EveryN:
    """sampled: not every frame is encoded in full; then fewer n are tried, since each wants frames of its own."""

    def __init__(self, *, sampled: bool) -> None:
        self._sides = {n: Side(NAME, {"n": n}) for n in (_SPARSE if sampled else _DENSE)}
        self._held: dict[int, tuple[int, Floats]] = {}

    def wants(self, index: int, compared: Callable[[int], bool]) -> bool:
        """Whether frame `index` must be encoded in full for the sake of a later frame that is `compared`."""
        return any(index % n == 0 and any(map(compared, range(index, index + n))) for n in self._sides)

    def take(self, index: int, truth: Floats) -> None:
        """A frame that was encoded in full."""
        for n in self._sides:
            if index % n == 0:
                self._held[n] = (index, truth)

    def compare(self, index: int, truth: Floats, seen: NDArray[np.bool_]) -> None:
        for n, side in self._sides.items():
            since, held = self._held[n]
            if since == index - index % n:
                side.compare(held, truth, seen)

    def curve(self, frames: int) -> list[tuple[Side, float]]:
        """Each n with its speed-up over `frames` frames; holding a result costs nothing."""
        return [(side, frames / math.ceil(frames / n)) for n, side in self._sides.items() if side.means and n <= frames]

    def reports(self, frames: int, speedup: float) -> list[dict[str, Any]]:
        """The n whose cost is nearest to ours (`equal_cost`), then the powers of two."""
        curve = self.curve(frames)
        if not curve:
            return []
        nearest = min(curve, key=lambda point: abs(1 / point[1] - 1 / speedup))[0]
        return [
            side.report(faster) | {"equal_cost": side is nearest}
            for side, faster in sorted(curve, key=lambda point: point[0] is not nearest)
            if side is nearest or side.setting["n"] in _SPARSE
        ]
