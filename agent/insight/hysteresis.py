"""When does a level that wobbles count as one episode? Two thresholds, a minimum duration and a clear delay."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Episode:
    """A run of high level. last_s: when it was last above `leave`; ended: it has been below since `clear_s`."""

    onset_s: float
    last_s: float
    ended: bool = False


class Hysteresis:
    """An episode opens when the level reaches `enter` and is real after `min_duration_s` without falling below
    `leave`; it ends when the level has been below `leave` for `clear_s`. Levels and times are the caller's."""

    def __init__(self, *, enter: float, leave: float, min_duration_s: float, clear_s: float) -> None:
        self._enter, self._leave = enter, leave
        self._min_duration_s, self._clear_s = min_duration_s, clear_s
        self._onset_s, self._last_s, self._real = inf, inf, False

    def update(self, level: float, now_s: float) -> Episode | None:
        """The episode that is going on, or ends with this call; None when there is none, or none that has lasted."""
        if not self.open:
            if level < self._enter:
                return None
            self._onset_s = now_s
        if level >= self._leave:
            self._last_s = now_s
            self._real = self._real or now_s - self._onset_s >= self._min_duration_s
        elif not self._real or now_s - self._last_s >= self._clear_s:
            episode = Episode(self._onset_s, self._last_s, ended=True) if self._real else None
            self.cancel()
            return episode
        return Episode(self._onset_s, self._last_s) if self._real else None

    def cancel(self) -> None:
        """Forget what is open, without an end."""
        self._onset_s, self._last_s, self._real = inf, inf, False

    @property
    def open(self) -> bool:
        """Whether the level has reached `enter` and the episode isn't over, real or not yet."""
        return self._onset_s < inf
