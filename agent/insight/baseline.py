"""What is normal to look at, at each place of one camera's picture.

Three questions to a token, each answered in units of normal spread, the least of the answers counts. How far is it from
the Gaussian of its place (PaDiM's idea, learned on line)? How far, by what is unlike its place in normal time: walkers
differ from the ground and from each other in few directions of the feature space, a cart differs in others? And how far
from the nearest token of a memory of such (PatchCore's)?

All is weighted by time, not by frames, so that frame rate doesn't matter, and ages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.insight.memory import TokenMemory
from agent.insight.shift import own_change

Floats = NDArray[np.float32]
Slots = NDArray[np.int64]

WIDTH = 192
"""Dimensions of a projected token, at most."""
_LEAST_DISTANCE = 0.015
"""Cosine distance that always counts as noise: cached tokens are themselves no truer than this."""
_PRIOR_S = 10.0
"""Seconds of what is usual all over the picture that a place's own appearance is mixed with."""
_UNLIKE = 0.1
"""Squared distance from which a token is something else than its place."""
_ELSE = 0.5
"""Squared distance from which it is so for certain, not what a passer-by left in a token that was not encoded since."""
_PLAIN = 0.6
"""Score up to which the memory isn't asked."""
_STEP = 0.15
"""Length of what is learned of one token at most: the mean becomes a median, and those who walk by no part of the
pavement (Huber)."""
_RIDGE = 1e-3
"""Variance of what is unlike its place, per dimension, that is always allowed for."""
_REFRESH = 1.1
_SHARED_BY = 0.5
"""Share of the tokens that must be looked at to tell what they share."""


def random_signs(dim: int, seed: int) -> Floats:
    """float32 (D,) of ±1, drawn from the seed: the random part of `project`."""
    return np.asarray(np.random.default_rng(seed).integers(0, 2, dim) * 2 - 1, dtype=np.float32)


def project(features: Floats, signs: Floats) -> Floats:
    """Token directions (n, D) → (n, K), K = min(192, D): a feature hashing (Weinberger et al. 2009), each output the
    sum of every K-th dimension with random signs. Squared distances are kept on average.

    Unlike a PCA nothing is fitted, so a baseline means the same from its first second; unlike a dense random matrix it
    costs next to nothing. Length is dropped: it follows contrast and exposure more than content.
    """
    norm = np.sqrt(np.einsum("td,td->t", features, features))[:, None]
    signed = features * (signs / np.maximum(norm, 1e-12))
    if signed.shape[1] <= WIDTH:
        return np.asarray(signed, np.float32)
    points = np.zeros((len(features), WIDTH), np.float32)
    for first in range(0, len(signs), WIDTH):
        part = signed[:, first : first + WIDTH]
        points[:, : part.shape[1]] += part
    return points


class Appearance:
    """seconds: float32 (T,), time behind each place. mean, variance: float32 (T, K). spread: float32 (K, K), second
    moments of what was unlike its place, spread_s: time behind them. memory: of what was unlike its place."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        tokens = grid[0] * grid[1]
        self.seconds = np.zeros(tokens, np.float32)
        self.mean = np.zeros((tokens, width), np.float32)
        self.variance = np.zeros((tokens, width), np.float32)
        self.spread = np.zeros((width, width), np.float32)
        self.spread_s = np.zeros((), np.float32)
        self.memory = TokenMemory(grid)
        self._precision: Floats | None = None
        self._whiten: Floats | None = None
        self._whitened_s = 0.0

    def score(self, points: Floats, slots: Slots) -> tuple[Floats, NDArray[np.bool_]]:
        """Of the projected tokens (n, K) in `slots` (n,): float32 (n,), how strange they are, squared, 1 is as usual;
        and bool (n,), which are something else than their place, strange or not."""
        away = self._away(points, slots)
        square = np.einsum("nk,nk->n", away, away)
        width = points.shape[1]
        score = np.einsum("nk,nk->n", away * away, self._place_precision()[slots]) / width
        unlike = np.flatnonzero(square > 0.5 * _UNLIKE)
        if len(unlike):
            white = away[unlike] @ self._white()
            by_kind = np.einsum("nk,nk->n", white, white)
            part = np.minimum(1, square[unlike] / _UNLIKE) / width
            score[unlike] = np.minimum(score[unlike], by_kind * part)
            doubtful = score[unlike] > _PLAIN
            if doubtful.any():
                asked, least = unlike[doubtful], by_kind[doubtful]
                near = self.memory.distance(white[doubtful], slots[asked], float(least.max()) + 1)
                score[asked] = np.minimum(score[asked], near * part[doubtful])
        return np.asarray(score, np.float32), square > _ELSE

    def learn(self, points: Floats, dt_s: float, age_s: float, paused: NDArray[np.bool_] | None = None) -> None:
        """Take in `dt_s` seconds of all projected tokens (T, K), but at the places that are `paused` (T,)."""
        slots = np.arange(len(points), dtype=np.int64)
        known = self.seconds > 0
        self.mean[~known] = points[~known]
        away = self._away(points, slots)
        self.seconds = np.minimum(self.seconds + np.float32(dt_s), np.float32(age_s))
        share = (np.float32(dt_s) / self.seconds)[:, None]
        if paused is not None:
            share[paused] = 0
            known &= ~paused
        self._learn_unlike(away, slots[known], dt_s, age_s)
        length = np.sqrt(np.einsum("nk,nk->n", away, away))[:, None]
        self.mean += share * away * np.minimum(1, _STEP / np.maximum(length, 1e-6))
        self.variance = (1 - share) * (self.variance + share * away * away)
        self._precision = None

    def forget(self, places: NDArray[np.bool_], points: Floats) -> None:
        """Start these places (T,) anew, with what is there now (T, K) as their only memory."""
        self.seconds[places] = 1.0
        self.mean[places] = points[places]
        self.variance[places] = 0.0
        self._precision = None

    def _away(self, points: Floats, slots: Slots) -> Floats:
        away = points - self.mean[slots]
        return own_change(away) if len(slots) >= _SHARED_BY * len(self.mean) else away

    def _learn_unlike(self, away: Floats, slots: Slots, dt_s: float, age_s: float) -> None:
        away = away[slots]
        unlike = np.einsum("nk,nk->n", away, away) > _UNLIKE
        if not unlike.any():
            return
        rows = away[unlike]
        seen_s = np.float32(dt_s * len(rows))
        self.spread_s = np.minimum(self.spread_s + seen_s, np.float32(age_s * len(self.mean)))
        self.spread += (rows.T @ rows / len(rows) - self.spread) * min(np.float32(1), seen_s / self.spread_s)
        self.memory.learn(rows, slots[unlike])

    def _white(self) -> Floats:
        """(K, K) that gives unlike tokens unit spread in all directions. Brought up to date when a tenth more was
        seen."""
        if self._whiten is None or self.spread_s > _REFRESH * self._whitened_s:
            ridge = np.float32(_RIDGE * 192 / len(self.spread)) * np.eye(len(self.spread), dtype=np.float32)
            self._whiten = np.asarray(np.linalg.inv(np.linalg.cholesky(self.spread + ridge)).T, np.float32)
            self._whitened_s = float(self.spread_s)
            self.memory.measure(self._whiten)
        return self._whiten

    def _place_precision(self) -> Floats:
        """Variances are shrunk to the mean one and never below the noise of a token."""
        if self._precision is None:
            seconds = self.seconds[:, None]
            variance = (seconds * self.variance + _PRIOR_S * self.variance.mean(axis=0)) / (seconds + _PRIOR_S)
            self._precision = 1 / np.maximum(variance, np.float32(2 * _LEAST_DISTANCE / self.mean.shape[1]))
        return self._precision
