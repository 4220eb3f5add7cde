"""Rotary position embedding: how fast each pair of a head's dimensions turns.

`llama3` (as Llama 3.1 has it; `transformers` modeling_rope_utils): slow pairs, whose wavelength exceeds the context of
the first training, are slowed by `factor`; fast ones stay; those between are blended.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.checkpoint import Rope


def frequencies(rope: Rope, size: int) -> NDArray[np.float32]:
    """Radians per position, float32 (size / 2,), of a head of `size` dimensions."""
    theta = np.float32(rope.rope_theta)
    base = 1 / theta ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
    if rope.rope_type == "default":
        return np.asarray(base, np.float32)
    factor = np.float32(rope.factor)
    if rope.rope_type == "linear":
        return np.asarray(base / factor, np.float32)
    low, high = np.float32(rope.low_freq_factor), np.float32(rope.high_freq_factor)
    turns = np.float32(rope.original_max_position_embeddings) * base / np.float32(2 * np.pi)  # within that context
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray((1 - kept) * base / factor + kept * base, np.float32)
