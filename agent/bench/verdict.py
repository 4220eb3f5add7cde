"""Who is faster at equal fidelity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]
"""(fidelity, speed-up) of one setting."""


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats in both, by rising fidelity."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (-p[1], -p[0])):
        if not found or point[0] > found[-1][0]:
            found.append(point)
    return found


def speedup_at(fidelity: float, points: Sequence[Point]) -> float:
    """What a rival with these settings reaches at this fidelity or above.

    Between two settings it may take turns, so cost is linear in fidelity; it may also encode in full, (1, 1). Below its
    lowest fidelity it has no more to give.
    """
    best = front([(1.0, 1.0), *points])
    return float(1 / np.interp(fidelity, [f for f, _ in best], [1 / s for _, s in best]))
