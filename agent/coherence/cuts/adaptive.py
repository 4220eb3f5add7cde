"""Hard cuts by comparison with what goes on around them.

Two neighbouring frames differ more than a limit, and
- more than what was usual before and is usual after (ratio to the rolling mean): fast pans and fast action are no cuts;
- the picture stays away: in the next two frames it is still far from the old one, and near the new one. With the next
  point this is the guard against flashes: light that comes and goes within two frames;
- it was not there just before: the end of a flash or of a lost signal and the beat of a strobe lead back to what was
  seen a moment ago;
- it was not already on its way: a dissolve and a ramp of exposure go in one direction for many frames, a cut once.
One or two frames may be mixed of both shots, as conversion of frame rates makes them. After the adaptive detector of
PySceneDetect, which has the ratio alone.
"""

from __future__ import annotations

import numpy as np

from agent.coherence.cuts.recent import LOOKAHEAD, Cut, Recent

_LEAST_STEP = 0.12
"""Score between neighbours below which no shot has begun, mixed frames or not; a look at most frames ends here."""
_LEAST_RATIO = 2.4
_RATIO_FLOOR = 0.05
"""Added to the rolling mean, so that a cut out of a still picture and noise are told apart by their size."""
_PEAK_SHARE = 0.625
"""How much the highest step counts beside the mean of all."""
_WINDOW = 8
_RETURN = 8
"""Frames back within which a picture that is seen again is no new shot."""
_KEEP = 0.6
_SETTLED = 0.5
_BACK = 0.5
_ONWARD = 0.25
_LONGEST_MIX = 2
_MIX_ERROR = 0.3
_MIX_LEAST = 0.08


class AdaptiveCut:
    """Says whether a frame is the first of a new shot. least: score below which nothing is a cut."""

    def __init__(self, *, least: float = 0.32) -> None:
        self._least = least

    def judge(self, recent: Recent, place: int) -> Cut | None:
        """The verdict about the frame at `place`, best once LOOKAHEAD frames have followed."""
        if place <= recent.earliest or recent[place].blank or recent.step(place) < _LEAST_STEP:
            return None
        for old in range(place - 1, max(recent.earliest, place - 1 - _LONGEST_MIX) - 1, -1):
            if recent[old].blank:
                return None
            if self._is_cut(recent, old, place):
                return Cut(recent.index(place), recent.index(old + 1), "cut", recent.score(old, place))
        return None

    def _is_cut(self, recent: Recent, old: int, new: int) -> bool:
        """Whether a shot ends with `old` and another begins with `new`; what lies between is mixed of both."""
        jump = recent.score(old, new)
        if jump < self._least or not _mixed(recent, old, new):
            return False
        after = range(new + 1, min(recent.last, new + LOOKAHEAD) + 1)
        if any(recent.score(old, later) < _KEEP * jump for later in after):
            return False
        if after and recent.step(new + 1) > _SETTLED * jump:
            return False
        if _on_its_way(recent, old, new) or jump < _LEAST_RATIO * _usual(recent, old, new, after):
            return False
        before = range(max(recent.oldest, old - _RETURN), old)
        return not any(recent.score(k, later) < _BACK * jump for k in before for later in (new, *after[:1]))


def _usual(recent: Recent, old: int, new: int, after: range) -> float:
    """The mean difference around a jump, or a share of the highest one where that is more; over as many frames as the
    jump takes."""
    width = new - old
    steps = [recent.step(k) for k in range(max(recent.earliest + 1, old - _WINDOW + 1), old + 1)]
    steps += [recent.step(k) for k in after]
    if width > 1:
        if old - width >= recent.earliest:
            steps.append(recent.score(old - width, old))
        if len(after) == LOOKAHEAD:
            steps.append(recent.score(new, after[-1]))
    if not steps:
        return _RATIO_FLOOR
    return max(float(np.mean(steps)) + _RATIO_FLOOR, _PEAK_SHARE * (max(steps) + _RATIO_FLOOR))


def _mixed(recent: Recent, old: int, new: int) -> bool:
    """Whether every frame between the two is a mixture of them, ever more of the new one."""
    if new - old == 1:
        return True
    whole = recent[new].luma - recent[old].luma
    length = float(np.sum(whole * whole)) or 1.0
    reached = 0.0
    for place in range(old + 1, new):
        part = recent[place].luma - recent[old].luma
        share = float(np.sum(part * whole)) / length
        rest = part - share * whole
        if not reached + _MIX_LEAST < share < 1 - _MIX_LEAST or np.sum(rest * rest) > _MIX_ERROR**2 * length:
            return False
        reached = share
    return True


def _on_its_way(recent: Recent, old: int, new: int) -> bool:
    """Whether the picture moved in the direction of the jump before it, or goes on in it."""
    whole = recent[new].luma - recent[old].luma
    length = float(np.sum(whole * whole)) or 1.0
    moves = []
    if old - LOOKAHEAD >= recent.earliest:
        moves.append(recent[old].luma - recent[old - LOOKAHEAD].luma)
    if new + LOOKAHEAD <= recent.last:
        moves.append(recent[new + LOOKAHEAD].luma - recent[new].luma)
    return any(float(np.sum(move * whole)) > _ONWARD * length for move in moves)
