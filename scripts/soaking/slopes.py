"""How what an agent uses grows over its lives: one slope for all of them, each with a level of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from scripts.soaking.process import Sample


@dataclass(frozen=True, slots=True)
class Slope:
    """Per hour, with its standard error, which takes samples to be independent and so is on the low side."""

    per_hour: float
    error: float


@dataclass(frozen=True, slots=True)
class Growth:
    """After the warm-up of each life. hours: how long that is altogether; None = no life was long enough to tell."""

    hours: float
    resident_mb: Slope | None
    descriptors: Slope | None
    threads: Slope | None

    @classmethod
    def of(cls, samples: Sequence[Sample], warm_up_s: float) -> Growth:
        warm = [sample for sample in samples if sample.at_s >= warm_up_s]
        lives = [list(life) for _, life in groupby(warm, key=lambda sample: sample.life)]
        lives = [life for life in lives if len(life) >= 3]
        hours = sum(life[-1].at_s - life[0].at_s for life in lives) / 3600
        return cls(
            hours,
            slope([[(one.at_s, one.resident_mb) for one in life] for life in lives]),
            slope([[(one.at_s, float(one.descriptors)) for one in life] for life in lives]),
            slope([[(one.at_s, float(one.threads)) for one in life] for life in lives]),
        )


def slope(lives: Sequence[Sequence[tuple[float, float]]]) -> Slope | None:
    """Of (seconds, value) within lives, by least squares; that a life starts higher than the last is no growth."""
    if not lives:
        return None
    centred = [np.array(life) - np.mean(life, axis=0) for life in lives]
    at_h, value = np.concatenate(centred).T * np.array([[1 / 3600], [1.0]])
    spread, free = float(at_h @ at_h), len(value) - len(lives) - 1
    if spread == 0 or free < 1:
        return None
    per_hour = float(at_h @ value) / spread
    rest = value - per_hour * at_h
    return Slope(round(per_hour, 3), round(float(np.sqrt(rest @ rest / free / spread)), 3))
