"""What encoding costs on this machine, measured once at start, so that no plan is slower than a full encode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engines.cost import encode_cost
from engines.plan import Encoder


@dataclass(frozen=True, slots=True)
class EncodeCosts:
    """Milliseconds to encode `counts` tokens (ascending); the last count is the whole grid through the full graph."""

    counts: tuple[int, ...]
    counts_ms: tuple[float, ...]

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
        return self.counts_ms[-1]

    def ms(self, count: int) -> float:
        """Expected milliseconds for `count` dirty tokens, between the measured counts in proportion; 0 for none."""
        return float(np.interp(count, self.counts, self.counts_ms)) if count else 0.0

    def within(self, budget_ms: float) -> int:
        """The most tokens that can be encoded in `budget_ms`: all of them when a full encode fits."""
        if self.full_ms <= budget_ms:
            return self.tokens
        fitting = [n for n in range(self.tokens) if self.ms(n) <= budget_ms]
        return fitting[-1]
