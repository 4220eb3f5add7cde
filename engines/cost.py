"""What encoding costs here and now: the planner's measure of when a full encode is cheaper."""

from __future__ import annotations

import statistics
import time

import numpy as np

from engines.plan import EncodePlan, Encoder, Mode

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)


def encode_cost(encoder: Encoder, budget_s: float = 0.5) -> dict[int, float]:
    """Milliseconds of one `encode` by tokens encoded: n < T through the selective path, T through the full one.

    Medians of as many rounds as fit the budget, at least one after a warm-up. Resets the encoder. Raises EngineFault.
    """
    rows, columns = encoder.grid
    tokens, p = rows * columns, encoder.patch_size
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (rows * p, columns * p, 3), dtype=np.uint8)
    plans = {tokens: EncodePlan(Mode.FULL, None)}
    for share in SHARES:
        n = max(1, round(tokens * share))
        plans[n] = EncodePlan(Mode.WARPING, np.sort(rng.permutation(tokens)[:n]))
    end = time.perf_counter() + budget_s
    spent: dict[int, list[float]] = {n: [] for n in plans}
    for plan in plans.values():
        encoder.encode(picture, plan)
    while not spent[tokens] or time.perf_counter() < end:
        for n, plan in plans.items():
            start = time.perf_counter()
            encoder.encode(picture, plan)
            spent[n].append((time.perf_counter() - start) * 1000)
    encoder.reset()
    return {n: statistics.median(times) for n, times in sorted(spent.items())}
