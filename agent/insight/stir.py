"""Whether something moves in front of a camera, as a plain yes or no that does not flutter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from agent.insight.hysteresis import Hysteresis
from agent.insight.sight import Sight

_BEGIN, _END = 2.0, 1.0
"""Tokens that move, to begin and to go on."""


class Stir:
    """Follows a camera. Begins when two tokens have moved for `for_s`, ends when none has for `clear_s`; `say` is
    called with each change, from the frame loop."""

    def __init__(self, say: Callable[[bool], None], *, for_s: float = 0.15, clear_s: float = 4.0) -> None:
        self._say = say
        self._episode = Hysteresis(enter=_BEGIN, leave=_END, min_duration_s=for_s, clear_s=clear_s)
        self.moving = False

    def see(self, sight: Sight) -> None:
        if sight.moved.size and not sight.broken:
            count = np.count_nonzero(sight.moved & sight.counted)
            episode = self._episode.update(float(count), sight.now_s)
            self._tell(episode is not None and not episode.ended)

    def interrupted(self, reason: str) -> None:
        self._episode.cancel()
        self._tell(False)

    def _tell(self, moving: bool) -> None:
        if moving != self.moving:
            self.moving = moving
            self._say(moving)
