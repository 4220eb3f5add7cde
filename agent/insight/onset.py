"""When does a level that wobbles begin to be an episode, and when is that over? A cumulative sum decides."""

from __future__ import annotations

from math import inf

from agent.insight.hysteresis import Episode

_MOST = 2.0
"""Times `enter` that a level counts for: however high, a single frame proves nothing."""
_LONGEST_STEP_S = 1.0


class Onset:
    """What the level is above the middle of the two thresholds adds up over time (CUSUM, Page 1954), what it is below
    is taken away. An episode is real when the sum is what a level of `enter` gathers in `min_duration_s`, sooner for
    a higher level; it ends when the level has been below `leave` for `clear_s`. Levels and times are the caller's."""

    def __init__(self, *, enter: float, leave: float, min_duration_s: float, clear_s: float) -> None:
        self._enter, self._leave, self._clear_s = enter, leave, clear_s
        self._drift = (enter + leave) / 2
        self._enough = min_duration_s * (enter - self._drift)
        self._now_s = -inf
        self._onset_s, self._last_s, self._real, self._sum = inf, inf, False, 0.0

    def update(self, level: float, now_s: float) -> Episode | None:
        """The episode that is going on, or ends with this call; None when there is none, or none that has lasted."""
        step_s, self._now_s = min(now_s - self._now_s, _LONGEST_STEP_S), now_s
        if not self._real:
            self._sum = max(0.0, self._sum + step_s * (min(level, _MOST * self._enter) - self._drift))
            if self._sum == 0:
                self._onset_s = inf
                return None
            self._onset_s = min(self._onset_s, now_s)
            if level < self._enter or self._sum < self._enough:
                return None
            self._real, self._last_s = True, now_s
        if level >= self._leave:
            self._last_s = now_s
        elif now_s - self._last_s >= self._clear_s:
            episode = Episode(self._onset_s, self._last_s, ended=True)
            self.cancel()
            return episode
        return Episode(self._onset_s, self._last_s)

    def cancel(self) -> None:
        """Forget what is open, without an end."""
        self._onset_s, self._last_s, self._real, self._sum = inf, inf, False, 0.0

    @property
    def open(self) -> bool:
        """Whether something adds up and the episode isn't over, real or not yet."""
        return self._onset_s < inf
