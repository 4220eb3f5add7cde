"""From answers to an alert: K of the last N are yes, for long enough; over after a while without; then quiet."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

from agent.insight.hysteresis import Hysteresis
from config.settings import Rule


@dataclass(frozen=True, slots=True)
class Fired:
    """An alert begins, or is `over`. onset_s: since when K of N were yes; last_s: until when. yes: of the last
    `answers`. highest: probability so far."""

    onset_s: float
    last_s: float
    yes: int
    answers: int
    highest: float
    over: bool = False


class Firing:
    """The state of one rule. Times are seconds on one monotonic clock and never go back."""

    def __init__(self, rule: Rule) -> None:
        self._k, n = rule.k_of_n
        self._threshold, self._cooldown_s = rule.threshold, rule.cooldown_s
        self._last: deque[bool] = deque(maxlen=n)
        self._episode = Hysteresis(enter=self._k, leave=self._k, min_duration_s=rule.for_s, clear_s=rule.clear_s)
        self._quiet_until_s = -inf
        self._highest = 0.0
        self.on = False
        """An alert is open."""

    def update(self, probability: float, now_s: float) -> Fired | None:
        """Take in the answer that holds now; what begins or ends with it."""
        self._last.append(probability >= self._threshold)
        yes = sum(self._last)
        episode = self._episode.update(yes, now_s)
        self._highest = max(self._highest, probability) if self._episode.open or self.on else 0.0
        if episode is None:
            return None
        fired = Fired(episode.onset_s, episode.last_s, yes, len(self._last), self._highest, episode.ended)
        if episode.ended:
            return self._end(now_s, fired)
        if self.on or now_s < self._quiet_until_s or yes < self._k:  # the last: it only waits for its end
            return None
        self.on = True
        return fired

    def cancel(self, now_s: float) -> None:
        """Nothing is seen any more, or nothing is wanted: what is open is over, and what was answered forgotten."""
        self._end(now_s, None)
        self._episode.cancel()
        self._last.clear()

    def _end(self, now_s: float, fired: Fired | None) -> Fired | None:
        if not self.on:
            return None
        self.on, self._highest = False, 0.0
        self._quiet_until_s = now_s + self._cooldown_s
        return fired
