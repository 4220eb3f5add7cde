"""`profile: auto`: what kind of content a camera shows, from what its frames cost anyway.

Decided after the first seconds, said in words, and looked at again for ever: a decision changes only when the other
one has held for a while, so a lorry that passes doesn't make a road a sports field.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from agent.coherence.motion import motion_share
from agent.coherence.result import FrameResult

_FIRST_S = 5.0
_PERSIST_S = 20.0
_WINDOW_S = 30.0
_CUTS_S = 120.0
_MOVIE_CUTS = 4
"""Cuts in two minutes that make it edited film."""
_STILL, _TALK = 0.03, 0.2
"""Share of patches that move, most of the time: up to here a still scene, up to here people in front of a camera."""
_FAST, _FAST_SHARE = 0.5, 0.02
"""Motion (share of 20 px a frame), and the share of patches as fast as that, from which on it is sport."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A profile's name, and the measured reason in words."""

    profile: str
    reason: str


class AutoTune:
    """Watches the results of one camera."""

    def __init__(self) -> None:
        self._frames: deque[tuple[float, float, float]] = deque()
        self._cuts: deque[float] = deque()
        self._began: float | None = None
        self._decided = ""
        self._other, self._since = "", 0.0

    def process(self, result: FrameResult, time_s: float) -> Decision | None:
        """A frame's result at its time in seconds; a decision when there is a new one."""
        if self._began is None:
            self._began = time_s
        moving = float(result.moving[result.seen].mean()) if result.dirty is not None else np.nan
        fast = float((motion_share(result.motion)[result.seen] > _FAST).mean())
        self._frames.append((time_s, moving, fast))
        if result.cut:
            self._cuts.append(time_s)
        while self._frames[0][0] < time_s - _WINDOW_S:
            self._frames.popleft()
        while self._cuts and self._cuts[0] < time_s - _CUTS_S:
            self._cuts.popleft()
        if time_s - self._began < _FIRST_S:
            return None
        found = self._judge()
        if found.profile == self._decided:
            self._other = ""
            return None
        if self._decided and found.profile != self._other:
            self._other, self._since = found.profile, time_s
        if self._decided and time_s - self._since < _PERSIST_S:
            return None
        self._decided, self._other = found.profile, ""
        return found

    def _judge(self) -> Decision:
        values = np.array([frame[1:] for frame in self._frames])
        known = values[np.isfinite(values[:, 0])]
        moving, fast = np.median(known, axis=0) if len(known) else (1.0, 0.0)
        if len(self._cuts) >= _MOVIE_CUTS:
            return Decision("movie", f"{len(self._cuts)} cuts in two minutes")
        if fast > _FAST_SHARE:
            return Decision("sports", f"{fast:.0%} of the picture moves by more than 10 px a frame")
        if moving <= _STILL:
            return Decision("webcam", f"{moving:.1%} of the picture moves, and nothing of it fast")
        if moving <= _TALK:
            return Decision("conversation", f"{moving:.0%} of the picture moves, and nothing of it fast")
        return Decision("general", f"{moving:.0%} of the picture moves")
