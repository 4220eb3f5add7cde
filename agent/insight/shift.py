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


def own_change(change: NDArray[np.float32]) -> NDArray[np.float32]:
    """Changes of T tokens (T, K) without the shift that they share, a trimmed mean over the tokens."""
    if len(change) == 0:
        return change
    return np.asarray(change - _shift(change, np.einsum("tk,tk->t", change, change)), np.float32)


def own_distance(change: NDArray[np.float32], counted: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Squared length (T,) of what `own_change` leaves, the shift being that of the tokens `counted` (T,)."""
    square = np.einsum("tk,tk->t", change, change)
    if counted is None or counted.all():
        rows, of_rows = change, square
    else:
        rows, of_rows = change[counted], square[counted]
    if len(rows) == 0:
        return np.asarray(square)
    shift = _shift(rows, of_rows)
    return np.asarray(np.maximum(0, square - 2 * (change @ shift) + shift @ shift), np.float32)


def _shift(rows: NDArray[np.float32], square: NDArray[np.float32]) -> NDArray[np.float32]:
    """(K,) that the rows (n, K) share. square: their squared lengths (n,)."""
    mean = np.full(len(rows), 1 / len(rows), np.float32) @ rows
    far = square - 2 * (rows @ mean)  # |row − mean|² but for a constant
    last = int(_KEPT * (len(rows) - 1))
    kept = (far <= np.partition(far, last)[last]).astype(np.float32)
    return np.asarray((kept / kept.sum()) @ rows, np.float32)
