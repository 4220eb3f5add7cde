"""What all tokens share when a picture changes, and what is each one's own.

A vision transformer mixes the whole picture into every token: when a truck drives into view, tokens of the far pavement
move as well, all in nearly the same direction. On rendered streets with the reference model that is
nearly all of what tokens on unchanged ground do; with it taken away they are told from changed ones, without it a truck
is a change of the whole picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_KEPT = 0.7
"""Share of the tokens, those nearest to the mean, that the shift is taken from: what really changed is no part of
it."""


def own_change(change: NDArray[np.float32], counted: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Changes of T tokens (T, K) without the shift that they share, a trimmed mean over the tokens `counted` (T,)."""
    rows = change if counted is None else change[counted]
    if len(rows) == 0:
        return change
    # |row − mean|² but for a constant: no further array of the size of `rows` is made, and no BLAS thread woken.
    far = np.einsum("tk,tk->t", rows, rows) - 2 * np.einsum("tk,k->t", rows, rows.mean(axis=0))
    last = int(_KEPT * (len(rows) - 1))
    kept = (far <= np.partition(far, last)[last]).astype(np.float32)
    return np.asarray(change - np.einsum("tk,t->k", rows, kept) / kept.sum(), np.float32)
