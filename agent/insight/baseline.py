"""What is normal at each place of one camera's picture: running statistics of appearance and of motion.

Both are weighted by time, not by frames, so that frame rate doesn't matter, and age: once `age_s` seconds have been
seen, old ones fade exponentially. Scores are surprises without an upper end, turned into probabilities elsewhere
(`agent.insight.rarity`) by what this camera's scores usually are.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.insight.shift import own_change

Floats = NDArray[np.float32]

WIDTH = 48
"""Dimensions of a projected token, at most."""
_LEAST_DISTANCE = 0.015
"""Cosine distance that always counts as noise: cached tokens are themselves no truer than this."""
_PRIOR_S = 10.0
"""Seconds of what is usual all over the picture that a place's own appearance is mixed with."""
_MOVING_CELLS_S = 0.4
"""Speed, in cells per second, below which flow is taken for noise of the flow."""
_MOTION_PRIOR = (0.5, 50.0)
"""A place that was never watched is taken to have moved for 0.5 s of 50 s."""


def random_signs(dim: int, seed: int) -> Floats:
    """float32 (D,) of ±1, drawn from the seed: the random part of `project`."""
    return np.asarray(np.random.default_rng(seed).integers(0, 2, dim) * 2 - 1, dtype=np.float32)


def project(features: Floats, signs: Floats) -> Floats:
    """Token directions (n, D) → (n, K), K = min(48, D): a feature hashing (Weinberger et al. 2009), each output the sum
    of every K-th dimension with random signs. Squared distances are kept on average, within about ±20 %.

    A quarter of the memory and time of 192 dimensions; unlike a PCA nothing is fitted, so a baseline means the same
    from its first second; unlike a dense random matrix no BLAS is woken, whose threads cost more than the product where
    the cores are busy. Length is dropped: it follows contrast and exposure more than content.
    """
    norm = np.sqrt(np.einsum("td,td->t", features, features))[:, None]
    signed = features * (signs / np.maximum(norm, 1e-12))
    points = np.zeros((len(features), min(WIDTH, len(signs))), np.float32)
    for first in range(0, len(signs), WIDTH):
        part = signed[:, first : first + WIDTH]
        points[:, : part.shape[1]] += part
    return points


class Appearance:
    """Diagonal Gaussian of the projected token at each of T places (PaDiM's idea, learned on line).

    seconds: float32 (T,), time behind each place. mean, variance: float32 (T, K).
    """

    def __init__(self, tokens: int, width: int) -> None:
        self.seconds = np.zeros(tokens, np.float32)
        self.mean = np.zeros((tokens, width), np.float32)
        self.variance = np.zeros((tokens, width), np.float32)
        self._precision: Floats | None = None

    def away(self, points: Floats, counted: NDArray[np.bool_] | None = None) -> Floats:
        """How far the projected tokens (T, K) are from normal, without the shift that all tokens `counted` share."""
        return own_change(points - self.mean, counted)

    def learn(
        self,
        points: Floats,
        dt_s: float,
        age_s: float,
        counted: NDArray[np.bool_] | None = None,
        paused: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take in `dt_s` seconds of projected tokens (T, K), but at the places that are `paused` (T,)."""
        away = self.away(points, counted) if self.seconds.any() else points - self.mean
        self.seconds = np.minimum(self.seconds + np.float32(dt_s), np.float32(age_s))
        share = (dt_s / self.seconds)[:, None]
        if paused is not None:
            share[paused] = 0
        self.mean += share * away
        self.variance = (1 - share) * (self.variance + share * away * away)
        self._precision = None

    def forget(self, places: NDArray[np.bool_], points: Floats, counted: NDArray[np.bool_] | None = None) -> None:
        """Start these places (T,) anew, with what is there now (T, K) as their only memory."""
        self.seconds[places] = 1.0
        self.mean[places] += self.away(points, counted)[places]
        self.variance[places] = 0.0
        self._precision = None

    def score(self, points: Floats, counted: NDArray[np.bool_] | None = None) -> Floats:
        """Squared distance from normal in units of normal variance, mean over dimensions, of projected tokens (T, K);
        about 1 is usual. Variances are shrunk to the mean one and never below the noise of a token."""
        if self._precision is None:
            seconds = self.seconds[:, None]
            variance = (seconds * self.variance + _PRIOR_S * self.variance.mean(axis=0)) / (seconds + _PRIOR_S)
            self._precision = 1 / np.maximum(variance, 2 * _LEAST_DISTANCE / self.mean.shape[1])
        away = self.away(points, counted)
        return np.asarray(np.einsum("tk,tk,tk->t", away, away, self._precision) / self.mean.shape[1], dtype=np.float32)


class Motion:
    """At each place: how much of the time something moves, and the 2-D Gaussian of its velocity when it does.

    seconds: float32 (), time watched. moments: float32 (rows, cols, 6), means over that time of 1, x, y, xx, yy, xy
    of the velocities that are movement, spread over neighbouring cells: who walks here may walk one cell beside. A
    Gaussian over all time instead would call every speed between standing and running normal.
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        self.seconds = np.zeros((), np.float32)
        self.moments = np.zeros((*grid, 6), np.float32)

    def learn(self, velocity: Floats, dt_s: float, age_s: float) -> None:
        """Take in `dt_s` seconds of velocities (T, 2) in cells per second."""
        self.seconds = np.minimum(self.seconds + np.float32(dt_s), np.float32(age_s))
        share = dt_s / self.seconds
        x, y = velocity.T
        seen = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1) * is_moving(velocity)[:, None]
        seen = cv2.blur(seen.reshape(self.moments.shape), (3, 3), borderType=cv2.BORDER_REPLICATE)
        self.moments += np.float32(share) * (seen - self.moments)

    def forget(self, places: NDArray[np.bool_], velocity: Floats) -> None:
        """Take these places (T,), moving as they do now (T, 2), for places that always move so."""
        x, y = velocity.T
        seen = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1).reshape(self.moments.shape)
        chosen = (places & is_moving(velocity)).reshape(self.moments.shape[:2])
        self.moments[chosen] = seen[chosen]

    def score(self, velocity: Floats) -> Floats:
        """−2 log of the probability that a place moves at all and that much unlike its usual movement, for velocities
        (T, 2) in cells per second; 0 where nothing moves."""
        score = np.zeros(len(velocity), np.float32)
        places = np.flatnonzero(is_moving(velocity))
        if len(places) == 0:
            return score
        moments = self.moments.reshape(-1, 6)
        moved_s = moments[places, 0] * self.seconds
        moving_share = (moved_s + _MOTION_PRIOR[0]) / (self.seconds + _MOTION_PRIOR[1])
        prior = self._usual_square()
        sums = moments[places, 1:] * self.seconds
        x, y, xx, yy, xy = ((sums + np.array([0, 0, prior, prior, 0])) / (moved_s + 1)[:, None]).T
        xx, yy, xy = xx - x * x + _MOVING_CELLS_S**2, yy - y * y + _MOVING_CELLS_S**2, xy - x * y
        dx, dy = (velocity[places] - np.stack([x, y], axis=1)).T
        mahalanobis = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / (xx * yy - xy * xy)
        score[places] = mahalanobis - 2 * np.log(moving_share)
        return score

    def _usual_square(self) -> float:
        """Mean square of one component of what moves anywhere in the picture; (1 cell/s)² until something has."""
        moving, xx, yy = self.moments[..., [0, 3, 4]].reshape(-1, 3).mean(axis=0) * self.seconds
        return float((xx + yy + 2.0) / (2 * moving + 2.0))


def is_moving(velocity: Floats) -> NDArray[np.bool_]:
    """bool (T,): cells whose velocity (T, 2), cells per second, is movement rather than noise of the flow."""
    return np.asarray(np.einsum("tc,tc->t", velocity, velocity) >= _MOVING_CELLS_S**2)
