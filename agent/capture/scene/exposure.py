"""Changes of light: now and then a cloud, or the camera's exposure, takes some of it away for some seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLOCK_S = 60.0  # at most one change in this long


@dataclass(frozen=True, slots=True)
class Dimming:
    """The picture's gain falls by `depth` (0–1) during the first `ramp_s`, and comes back during the last."""

    start_s: float
    end_s: float
    depth: float
    ramp_s: float


def dimming(seed: int, block: int) -> Dimming | None:
    """The change of light in a block of 60 s, in seconds of the scene; None when there is none."""
    rng = np.random.default_rng([seed, 11, block])
    if rng.random() < 0.5:
        return None
    start = block * _BLOCK_S + float(rng.uniform(14, 40))
    return Dimming(start, start + float(rng.uniform(9, 16)), float(rng.uniform(0.12, 0.26)), 2.0)


def dimmings(seed: int, until_s: float) -> list[Dimming]:
    """All changes of light that begin before a time or a little later."""
    found = (dimming(seed, block) for block in range(int(until_s // _BLOCK_S) + 1))
    return [d for d in found if d is not None]


def gain(seed: int, t: float) -> float:
    """Gain of the whole picture at a time, 1 = undimmed."""
    d = dimming(seed, int(t // _BLOCK_S))
    if d is None:
        return 1.0
    return 1.0 - d.depth * min(1.0, max(0.0, min(t - d.start_s, d.end_s - t) / d.ramp_s))
