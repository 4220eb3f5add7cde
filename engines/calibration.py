"""What a model's yes is worth: log-odds of yes against no, turned into a probability that keeps its word."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_CERTAIN = 1e-12


def fit_yes_no(log_odds: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """(slope, offset) for which sigmoid(slope·log_odds + offset) fits the truth best; both arrays (n,).

    Logistic regression by Newton's method with backtracking, the targets drawn in from 0 and 1 so that there is a best
    fit even where yes and no never overlap (Platt 1999; Lin, Lin, Weng 2007, "A note on Platt's probabilistic
    outputs"). Raises ValueError unless the log-odds are finite and the truth holds both answers.
    """
    truth = np.asarray(truth, bool)
    odds = np.asarray(log_odds, np.float64)
    yes, no = int(truth.sum()), int((~truth).sum())
    if not (yes and no and np.isfinite(odds).all()):
        raise ValueError(f"found {yes} × yes, {no} × no, expected both, with finite log-odds")
    scale = float(np.abs(odds).max()) or 1.0
    x = np.stack([odds / scale, np.ones(len(truth))], axis=1)
    target = np.where(truth, (yes + 1) / (yes + 2), 1 / (no + 2))

    def loss(fit: NDArray[np.float64]) -> float:
        z = x @ fit
        return float((np.logaddexp(0, z) - target * z).sum())

    fit = np.array([0.0, math.log((yes + 1) / (no + 1))])
    for _ in range(100):
        p = sigmoid(x @ fit)
        slope = x.T @ (p - target)
        if np.abs(slope).max() < 1e-9 * len(truth):
            break
        curve = (x * (p * (1 - p))[:, None]).T @ x + _CERTAIN * np.eye(2)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while size > 1e-10 and loss(fit - size * step) > loss(fit) - 1e-4 * size * float(slope @ step):
            size /= 2
        fit = fit - size * step
    return float(fit[0]) / scale, float(fit[1])


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-z)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -z)), np.float64)


def expected_calibration_error(p: NDArray[np.floating], truth: NDArray[np.bool_], bins: int = 15) -> float:
    """0 (of all that is called 80 % likely, 80 % are so) to 1: the gap between mean probability and share of truth, in
    equal bins of p, weighted by how many fall into each (Guo et al. 2017, "On calibration of modern neural networks",
    on the probability of yes). p, truth: (n,). Raises ValueError for nothing, and for a p outside 0–1."""
    p, truth = np.asarray(p, np.float64), np.asarray(truth, bool)
    if not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"found {len(p)} probabilities {p}, expected some, all between 0 and 1")
    of = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(of, weights=p - truth, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))
