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
_OFF_LINE = 0.3
_OTHER_STRUCTURE = 0.06
"""Structural distance below which the two ends are one shot under other light."""
_STILL_GOING = 0.2
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
        shortly_before = max(recent.earliest, place - _REACHES[0])
        if recent[place].blank or _still_going(recent.luma(shortly_before, place + LOOKAHEAD)):
            return None
        for reach in _REACHES:
            first = max(recent.earliest, place - reach)
            found = self._between(recent, first, place)
            if found is not None or first == recent.earliest:
                return found
        return None

    def _between(self, recent: Recent, first: int, place: int) -> Cut | None:
        """A dissolve within the stretch from `first` that ends before `place`."""
        pictures = recent.luma(first, place + LOOKAHEAD)
        end = place - first
        shares = _shares(pictures, 0, end)
        begun = np.flatnonzero(shares[:end] <= _BEGUN)
        start = int(begun[-1]) if len(begun) else 0
        length = end - start
        if length < _SHORTEST or (start < _BEGUN * length + 1 and first != recent.earliest):
            return None  # too short, or it has begun before what is looked at here
        start = max(0, start - round(max(0.0, float(shares[start])) * length))
        length = end - start
        shares = _shares(pictures, start, end)
        if shares[end - 1] >= 1 or shares[-1] - 1 > _STILL_GOING * LOOKAHEAD / length + _SLACK:
            return None
        if not _even(shares, start, end) or _off_line(pictures, shares, start, end) > _OFF_LINE:
            return None
        change = recent.difference(first + start, place)
        if change.score < self._least or change.structure < _OTHER_STRUCTURE:
            return None
        return Cut(recent.index(place), recent.index(first + start + 1), "dissolve", change.score)


def _still_going(pictures: Floats) -> bool:
    """Whether the pictures (n, cells), of which LOOKAHEAD came after the one in question, have changed too little
    before it, or go on in the same direction after it. A quick look that spares most frames the long one."""
    before = pictures[-1 - LOOKAHEAD] - pictures[0]
    length = float(np.einsum("i,i->", before, before))
    if length < _LEAST_LEVELS**2 * before.size:
        return True
    after = pictures[-1] - pictures[-1 - LOOKAHEAD]
    return float(np.einsum("i,i->", before, after)) > _ONWARD * length


def _shares(pictures: Floats, start: int, end: int) -> Floats:
    """How far each picture (n, cells) has come from picture `start` (0) to picture `end` (1), float32 (n,)."""
    whole = pictures[end] - pictures[start]
    along = np.einsum("ij,j->i", pictures, whole)
    shares: Floats = (along - along[start]) / max(float(along[end] - along[start]), 1e-6)
    return shares


def _even(shares: Floats, start: int, end: int) -> bool:
    pace = np.linspace(0, 1, end - start + 1, dtype=np.float32)
    return bool(np.abs(shares[start : end + 1] - pace).max() <= _UNEVEN)


def _off_line(pictures: Floats, shares: Floats, start: int, end: int) -> float:
    """Mean distance of the pictures between from the line between the two, over the line's length."""
    whole = pictures[end] - pictures[start]
    rest = pictures[start + 1 : end] - pictures[start] - shares[start + 1 : end, None] * whole
    return float(np.sqrt(np.square(rest).sum(axis=1)).mean() / max(float(np.linalg.norm(whole)), 1e-6))
