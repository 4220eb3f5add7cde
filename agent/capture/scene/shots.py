"""When a cutting camera cuts: three shots in every 24 s."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

_BLOCK_S = 24.0


@dataclass(frozen=True, slots=True)
class Shot:
    """A stretch of the scene without a cut. Shots are numbered from 0; `own_s` is the time of its view at its start."""

    number: int
    start_s: float
    end_s: float
    own_s: float

    def own_time(self, t: float) -> float:
        """A time of the scene in the time of the shot's view."""
        return t - self.start_s + self.own_s


UNCUT = Shot(0, 0.0, inf, 0.0)


def shot_at(seed: int, t: float) -> Shot:
    """The shot of a cutting camera at a time. Later views are met when the life in them is under way."""
    block = int(t // _BLOCK_S)
    second, third = (float(v) for v in np.random.default_rng([seed, 8, block]).uniform(-2.5, 2.5, 2))
    start = block * _BLOCK_S
    bounds = (start, start + 8.0 + second, start + 16.0 + third, start + _BLOCK_S)
    within = sum(t >= b for b in bounds[1:3])
    number = block * 3 + within
    return Shot(number, bounds[within], bounds[within + 1], 5.0 + 7 * number % 29 if number else 0.0)
