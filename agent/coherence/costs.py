"""What encoding costs on this machine: measured at start, corrected by every encode since, so that no plan is slower
than a full encode however the machine is loaded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engines.cost import encode_cost
from engines.plan import Encoder

_RATE = 0.05
_OUTLIER = 4.0
"""A call that took so many times longer was interrupted; it counts as no more than that."""


class EncodeCosts:
    """Milliseconds to encode `counts` tokens (ascending); the last count is the whole grid through the full graph.

    Cameras share one: the machine's load is the same for all. What is measured while running moves two factors: the
    load, which both ways of encoding feel, and how much more the full graph feels of it."""

    def __init__(self, counts: tuple[int, ...], counts_ms: tuple[float, ...]) -> None:
        self.counts = counts
        self.counts_ms = counts_ms
        self.load = 1.0
        self.full_factor = 1.0
        self._selective_ms = np.interp(np.arange(counts[-1]), counts, counts_ms)
        self._selective_ms[0] = 0.0

    @classmethod
    def of(cls, cost_ms: Mapping[int, float]) -> EncodeCosts:
        """From milliseconds by tokens encoded. A larger count never counts as cheaper than a smaller selective one."""
        counts = sorted(cost_ms)
        selective = np.maximum.accumulate([cost_ms[n] for n in counts[:-1]])
        return cls(tuple(counts), (*(float(ms) for ms in selective), cost_ms[counts[-1]]))

    @classmethod
    def measure(cls, encoder: Encoder) -> EncodeCosts:
        """Half a second of measuring. Resets the encoder. Raises EngineFault."""
        return cls.of(encode_cost(encoder))

    @property
    def tokens(self) -> int:
        return self.counts[-1]

    @property
    def full_ms(self) -> float:
        return self.counts_ms[-1] * self.load * self.full_factor

    def ms(self, count: int) -> float:
        """Expected milliseconds for `count` dirty tokens, between the measured counts in proportion; 0 for none."""
        return self.full_ms if count >= self.tokens else self.load * float(self._selective_ms[count])

    def within(self, budget_ms: float) -> int:
        """The most tokens that can be encoded in `budget_ms`: all of them when a full encode fits."""
        if self.full_ms <= budget_ms:
            return self.tokens
        return int(np.searchsorted(self._selective_ms, budget_ms / self.load, side="right")) - 1

    def observed(self, count: int, ms: float) -> None:
        """An encode of `count` tokens took so long."""
        expected = self.ms(count)
        if expected <= 0 or ms <= 0:
            return
        ratio = min(max(ms / expected, 1 / _OUTLIER), _OUTLIER)
        if count >= self.tokens:
            self.full_factor = float(np.clip(self.full_factor * ratio**_RATE, 0.5, 2.0))
        else:
            self.load *= ratio**_RATE
