"""Who is faster at equal fidelity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Point = tuple[float, float]
"""(fidelity, speed-up) of one setting."""


def speedup_at(fidelity: float, points: Sequence[Point]) -> float:
    """What a rival with these settings reaches at this fidelity or above.

    Between two settings it may take turns, so cost is linear in fidelity; it may also encode in full, (1, 1). Settings
    that another one beats in both are left aside. Below its lowest fidelity it has no more to give.
    """
    front: list[Point] = []
    for point in sorted([(1.0, 1.0), *points], key=lambda p: (-p[1], -p[0])):
        if not front or point[0] > front[-1][0]:
            front.append(point)
    return float(1 / np.interp(fidelity, [f for f, _ in front], [1 / s for _, s in front]))
