"""What encoding costs here and now, and from where on a full encode is cheaper."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping

import numpy as np

from engines.plan import EncodePlan, Encoder, Mode

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)


def encode_cost(encoder: Encoder, budget_s: float = 0.5) -> dict[int, float]:
    """Milliseconds of one `encode` by tokens encoded: n < T through the selective path, T through the full one.

    Medians of as many rounds as fit the budget, at least one after a warm-up. Resets the encoder, and sets its
    crossover to what was found. Raises EngineFault.
    """
    rows, columns = encoder.grid
    tokens, p = rows * columns, encoder.patch_size
    encoder.crossover = tokens
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
    costs = {n: statistics.median(times) for n, times in sorted(spent.items())}
    encoder.crossover = crossover(costs)
    return costs


def crossover(cost_ms: Mapping[int, float]) -> int:
    """The count of tokens, at most T, from which on a full encode is no dearer, by milliseconds as `encode_cost` gives
    them: between measured counts in proportion, beyond the last two as they go on."""
    *counts, tokens = sorted(cost_ms)
    full = cost_ms[tokens]
    spent = [cost_ms[n] for n in counts]
    if len(counts) > 1:
        slope = max(0.0, (spent[-1] - spent[-2]) / (counts[-1] - counts[-2]))
        spent.append(spent[-1] + slope * (tokens - counts[-1]))
        counts.append(tokens)
    cheaper = [i for i, ms in enumerate(spent) if ms < full]
    if not cheaper:
        return counts[0]
    last = cheaper[-1]
    if last + 1 == len(counts):
        return tokens
    share = (full - spent[last]) / (spent[last + 1] - spent[last])
    return math.ceil(counts[last] + share * (counts[last + 1] - counts[last]))
