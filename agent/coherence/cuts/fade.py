"""Fades: the picture goes through black or white, slowly or at once.

What comes after is compared with what was before; the same picture again is a lamp, a covered lens or a lost signal,
however long it was away.
"""

from __future__ import annotations

from agent.coherence.cuts.glance import Distance, Glance, difference
from agent.coherence.cuts.recent import LOOKAHEAD, Cut, CutKind, Recent

_FALLING = 0.97
"""Contrast of a frame over that of the one before, below which it is fading."""
_STILL_RISING = 0.2
"""Share of its own pace at which a picture still counts as coming up."""
_FIRST_LIGHT = 0.5
"""Contrast above the darkest frame, grey levels, that tells a picture from noise in the dark."""


class Fade:
    """Follows the picture into nothing and out again. least: score between before and after that makes a new shot.
    `active`: it is on its way; other detectors would see cuts in every few grey levels."""

    def __init__(self, distance: Distance, *, least: float = 0.35) -> None:
        self._distance = distance
        self._least = least
        self.reset()

    def reset(self) -> None:
        self.active = False
        self._before: Glance | None = None
        self._start: int | None = None
        self._abrupt = True
        self._darkest = self._last_blank = 0.0
        self._lit = 0
        self._rising_from: int | None = None

    def judge(self, recent: Recent, place: int) -> Cut | None:
        """The verdict about the frame at `place`, for every frame in turn, best once LOOKAHEAD frames have followed."""
        contrast = recent[place].contrast
        if recent[place].blank:
            if not self.active:
                self._enter(recent, place)
            self._darkest, self._last_blank = min(self._darkest, contrast), contrast
            self._lit = place + 1
            self._note_rise(recent.index(place), contrast)
            return None
        if not self.active:
            return None
        self._note_rise(recent.index(place), contrast)
        rise = (contrast - self._last_blank) / (place - self._lit + 1)
        ahead = min(recent.last, place + LOOKAHEAD)
        if recent[ahead].contrast - contrast > _STILL_RISING * rise * (ahead - place):
            return None
        return self._leave(recent, place)

    def _note_rise(self, index: int, contrast: float) -> None:
        """Keep the frame from which the picture has come up."""
        if contrast < self._darkest + _FIRST_LIGHT:
            self._rising_from = None
        elif self._rising_from is None:
            self._rising_from = index

    def _enter(self, recent: Recent, place: int) -> None:
        """Remember the last whole picture: back along the fade to where it was brightest."""
        self.reset()
        self.active = True
        self._darkest = recent[place].contrast
        last = place
        while last - 1 >= recent.earliest and recent[last - 1].contrast * _FALLING > recent[last].contrast:
            last -= 1
        if place > recent.earliest:
            last = min(last, place - 1)
            self._before, self._start = recent[last], recent.index(last + 1)
            self._abrupt = last == place - 1

    def _leave(self, recent: Recent, place: int) -> Cut | None:
        self.active = False
        recent.shot = place
        index = recent.index(place)
        start = self._start if self._start is not None else self._rising_from
        start = index if start is None else start
        kind: CutKind = "cut" if self._abrupt and self._lit == place else "fade"
        if self._before is None:
            return Cut(index, start, kind, 1.0)
        score = difference(self._before, recent[place], self._distance).score
        return Cut(index, start, kind, score) if score >= self._least else None
