"""Dissolves: a mixture of two shots that goes from the one to the other at an even pace.

So each frame lies on the straight line between the first and the last one, at a place that rises evenly, and the two
ends are different shots. Movement fails this: in the middle of a pan the picture is like neither end nor their mixture.
"""

from __future__ import annotations

import numpy as np

from agent.coherence.cuts.glance import Floats
from agent.coherence.cuts.recent import LOOKAHEAD, Cut, Recent

_REACHES = (6, 10, 16, 24, 36, 52)
"""Frames to look back over, shortest first."""
_LEAST_LEVELS = 6.0
"""Root mean square change in the last frames, grey levels, below which nothing is looked at."""
_SHORTEST = 4
_BEGUN = 0.1
_UNEVEN = 0.17
_OFF_LINE = 0.27
_OTHER_STRUCTURE = 0.06
"""Structural distance below which the two ends are one shot under other light."""
_STILL_GOING = 0.12
"""Share of its own pace at which a transition still counts as going on."""
_ONWARD = 0.15
_SLACK = 0.02


class Dissolve:
    """Says whether a frame is the first after a dissolve. least: score between its two ends."""

    def __init__(self, *, least: float = 0.35) -> None:
        self._least = least

    def judge(self, recent: Recent, place: int) -> Cut | None:
        """The verdict about the frame at `place`, when LOOKAHEAD frames have followed."""
        if place + LOOKAHEAD > recent.last or place - recent.earliest < _SHORTEST:
            return None
        if recent[place].blank or _still_going(recent, max(recent.earliest, place - _REACHES[0]), place):
            return None
        for reach in _REACHES:
            first = max(recent.earliest, place - reach)
            found = self._between(recent, first, place)
            if found is not None or first == recent.earliest:
                return found
        return None

    def _between(self, recent: Recent, first: int, place: int) -> Cut | None:
        """A dissolve within the stretch from `first` that ends before `place`."""
        end = place - first
        shares = _shares(recent, first, place)
        begun = np.flatnonzero(shares[:end] <= _BEGUN)
        start = int(begun[-1]) if len(begun) else 0
        length = end - start
        if length < _SHORTEST or (start < _BEGUN * length + 1 and first != recent.earliest):
            return None  # too short, or it has begun before what is looked at here
        old = first + max(0, start - round(max(0.0, float(shares[start])) * length))
        length = place - old
        shares = _shares(recent, old, place)
        if shares[length - 1] >= 1 or shares[-1] - 1 > _STILL_GOING * LOOKAHEAD / length + _SLACK:
            return None
        if not _even(shares[: length + 1]) or _off_line(recent, shares[: length + 1], old, place) > _OFF_LINE:
            return None
        change = recent.difference(old, place)
        if change.score < self._least or change.structure < _OTHER_STRUCTURE:
            return None
        return Cut(recent.index(place), recent.index(old + 1), "dissolve", change.score)


def _still_going(recent: Recent, before: int, place: int) -> bool:
    """Whether the picture has changed too little since `before`, or goes on in the same direction after `place`. A
    quick look that spares most frames the long one."""
    after = place + LOOKAHEAD
    to_place = recent.products(place, before, after)
    to_before = recent.products(before, before, after)
    whole = float(to_place[-1 - LOOKAHEAD] - 2 * to_place[0] + to_before[0])
    if whole < _LEAST_LEVELS**2 * recent[place].luma.size:
        return True
    onward = to_place[-1] - to_before[-1] - to_place[-1 - LOOKAHEAD] + to_before[-1 - LOOKAHEAD]
    return float(onward) > _ONWARD * whole


def _shares(recent: Recent, old: int, new: int) -> Floats:
    """How far each picture, from `old` (0) to LOOKAHEAD after `new` (1), has come from the one to the other."""
    last = new + LOOKAHEAD
    along = recent.products(new, old, last) - recent.products(old, old, last)
    shares: Floats = (along - along[0]) / max(float(along[new - old] - along[0]), 1e-6)
    return shares


def _even(shares: Floats) -> bool:
    pace = np.linspace(0, 1, len(shares), dtype=np.float32)
    return bool(np.abs(shares - pace).max() <= _UNEVEN)


def _off_line(recent: Recent, shares: Floats, old: int, new: int) -> float:
    """Mean distance of the pictures from the line between picture `old` and picture `new`, over the line's length."""
    to_old = recent.products(old, old, new)
    distances = recent.squares(old, new) - 2 * to_old + to_old[0]
    whole = max(float(distances[-1]), 1e-6)
    rest = np.maximum(distances - shares * shares * whole, 0)
    return float(np.sqrt(rest[1:-1] / whole).mean())
