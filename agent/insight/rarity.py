"""How rare is a score? Each camera's own past scores, turned into "so many times a day".

Peaks over threshold (Pickands; Siffer et al. 2017) on block maxima: time is cut in blocks of 2 s, each gives its
highest score, and the excesses of the highest 2·√n blocks over the next lower one follow a generalised Pareto
distribution. Its scale and shape come from mean and variance of the excesses (Hosking & Wallis 1987). Scores are
distances in units of normal spread, which have an end, so the shape is never taken as more than 0, the exponential.

Honesty: five minutes of history say little about what happens once a day. So the scale is raised by one standard error
and the shape by two: a short history is taken for exponential and keeps quiet, half an hour of it may show that scores
have an end. `span_s` says how much was watched. Blocks in a row depend on one another, so there are fewer alarms than
blocks above the limit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import ceil, exp, inf, log, sqrt

import numpy as np

DAY_S = 86_400.0
BLOCK_S = 2.0
LEAST_BLOCKS = 5
_BLOCKS_A_DAY = DAY_S / BLOCK_S
_RAREST = 1e-3
_LEAST_SCALE, _LEAST_LIMIT = 0.05, 2.5
"""Scale of the tail and limit, at least: a score of 1 is the normal spread itself, and where the picture is so still
that nothing ever scored, a flicker of the encoder must not be an alarm."""


def many(per_day: float) -> float:
    """What alarms a day pass by chance less than once in a hundred days, where `per_day` are expected (Poisson)."""
    return per_day + 3 * sqrt(per_day) + 2


class ScoreHistory:
    """The highest scores of each 2 s of the last day of normal time, and the alarms raised in the last day.

    blocks: the maxima, oldest first. alarms: (time, peak score); times are seconds on the clock of the caller.
    """

    def __init__(self, blocks: Iterable[float] = (), alarms: Iterable[tuple[float, float]] = ()) -> None:
        self.blocks = deque(blocks, maxlen=int(_BLOCKS_A_DAY))
        self.alarms = list(alarms)
        self._open_s, self._open_max = 0.0, -inf
        self._start = self._scale = self._share = self._shape = 0.0
        self._since_fit = 0
        self._fit()

    @property
    def span_s(self) -> float:
        """Seconds of normal time behind every statement made here."""
        return len(self.blocks) * BLOCK_S

    def add(self, score: float, dt_s: float, *, span_s: float = DAY_S) -> None:
        """Take in `dt_s` seconds of normal time whose highest score was `score`, and forget what is older than the last
        `span_s` seconds of such time."""
        self._open_max = max(self._open_max, score)
        self._open_s += dt_s
        if self._open_s < BLOCK_S:
            return
        self.blocks.append(self._open_max)
        while self.span_s > max(span_s, LEAST_BLOCKS * BLOCK_S):
            self.blocks.popleft()
        self._open_s, self._open_max = 0.0, -inf
        self._since_fit += 1
        if self._since_fit > len(self.blocks) // 50:  # a full day is sorted anew every half hour, a young one at once
            self._fit()

    def add_alarm(self, peak: float, now_s: float) -> None:
        """Remember that an alarm with this highest score was raised."""
        self.alarms = [(at, score) for at, score in self.alarms if now_s - at < DAY_S] + [(now_s, peak)]

    def alarms_within_a_day(self, now_s: float) -> int:
        """How many alarms there were in the last day."""
        return sum(now_s - at < DAY_S for at, _ in self.alarms)

    def per_day(self, score: float) -> float:
        """How many normal blocks a day score at least this much: counted where there are such, extrapolated above,
        down to once in a thousand days, since no day of history can say more."""
        if score >= self._start:
            excess = (score - self._start) / self._scale
            beyond = exp(-excess) if self._shape == 0 else max(0.0, 1 + self._shape * excess) ** (-1 / self._shape)
            return max(_RAREST, float(_BLOCKS_A_DAY * self._share * beyond))
        return _BLOCKS_A_DAY * float(np.mean(np.fromiter(self.blocks, np.float64) >= score))

    def limit(self, per_day: float) -> float:
        """The score that normal time passes `per_day` times a day at most. It is about normal time alone: however many
        alarms there were, the next that is as strong is not kept silent."""
        rarer = max(1.0, _BLOCKS_A_DAY * self._share / per_day)
        excess = log(rarer) if self._shape == 0 else (rarer**self._shape - 1) / self._shape
        return max(_LEAST_LIMIT, self._start + self._scale * excess)

    @property
    def usual(self) -> float:
        """Where the tail begins: scores below it come many times a day."""
        return self._start

    def _fit(self) -> None:
        self._since_fit = 0
        n = len(self.blocks)
        if n < LEAST_BLOCKS:
            self._start, self._scale, self._share, self._shape = inf, _LEAST_SCALE, 1.0, 0.0
            return
        k = min(n - 1, ceil(2 * sqrt(n)))
        highest = np.sort(np.fromiter(self.blocks, np.float64))[n - k - 1 :]
        self._start, self._share = float(highest[0]), k / n
        excess = highest[1:] - highest[0]
        mean, variance = float(excess.mean()), float(excess.var())
        shape = (1 - mean**2 / variance) / 2 if variance > 0 else 0.0
        self._shape = min(0.0, max(shape, -0.5) + 2 / sqrt(k))
        self._scale = max(mean * (1 + 1 / sqrt(k)) * (1 - self._shape), _LEAST_SCALE)
