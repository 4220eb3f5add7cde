"""How the next token is chosen from the logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """temperature: 0 always takes the likeliest token. top_k: of so many likeliest tokens, None = of all. top_p: of
    the fewest likeliest tokens whose probabilities reach this sum. seed: the same seed gives the same text.

    Applied in the order of `transformers`: temperature, top_k, top_p. Raises ValueError.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        expected = [
            ("temperature", self.temperature, "0 or more, and finite", 0 <= self.temperature < math.inf),
            ("top_p", self.top_p, "more than 0, up to 1", 0 < self.top_p <= 1),
            ("top_k", self.top_k, "1 or more, or None for all", self.top_k is None or self.top_k >= 1),
            ("seed", self.seed, "0 or more", self.seed >= 0),
        ]
        for name, found, wanted, holds in expected:
            if not holds:
                raise ValueError(f"{name}: found {found!r}, expected {wanted}")

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of every token, (vocab,), from its logits (vocab,). Tokens as likely as the last of `top_k` stay in too."""
        score: NDArray[np.float64] = logits.astype(np.float64) - logits.max()
        if self.temperature == 0:
            return np.asarray(np.arange(len(score)) == score.argmax(), np.float64)
        score /= self.temperature
        if self.top_k is not None and self.top_k < len(score):
            score[score < np.partition(score, -self.top_k)[-self.top_k]] = -np.inf
        p: NDArray[np.float64] = np.exp(score)
        p /= p.sum()
        if self.top_p < 1:
            order = np.argsort(-logits, kind="stable")  # p has rounded near ties away
            likelier = np.cumsum(p[order]) - p[order]
            p[order[likelier >= self.top_p]] = 0
            p /= p.sum()
        return p

    def choose(self, logits: NDArray[np.float32], random: np.random.Generator) -> int:
        """The next token. Draws once from `random`, not at all with temperature 0."""
        if self.temperature == 0:
            return int(logits.argmax())
        p = self.probabilities(logits)
        possible = np.flatnonzero(p)
        reached = np.cumsum(p[possible])
        return int(possible[min(np.searchsorted(reached, random.random() * reached[-1], "right"), len(possible) - 1)])


GREEDY = Sampling()
