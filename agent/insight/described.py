"""States of the scene that have words already: one that comes back, such as the empty yard, is not put into words
anew."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

from agent.insight.reference import Reference, unit_rows

_SAME = 0.25
"""Share of the mean distance between two places up to which a token is the same: half of what is told as a change."""
_LEAST_TOKENS = 2
_MOST_BYTES = 8 << 20
_MOST_STATES = 8


class DescribedStates:
    """The last states of one camera and what was said of them. Safe to use from several threads."""

    def __init__(self) -> None:
        self._states: deque[tuple[NDArray[np.float16], str]] = deque(maxlen=_MOST_STATES)
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Of all states; what reports memory reads it."""
        with self._lock:
            return sum(unit.nbytes for unit, _ in self._states)

    def recall(self, features: NDArray[np.float32]) -> str | None:
        """What was said of a state that these features (T, D) are still those of; None when there is none."""
        unit = unit_rows(features)
        with self._lock:
            states = list(self._states)
        for known, text in reversed(states):
            if known.shape == unit.shape and _same(Reference(known.astype(np.float32)), unit):
                return text
        return None

    def remember(self, features: NDArray[np.float32], text: str) -> None:
        """The oldest go when there are too many, or too many bytes."""
        unit = unit_rows(features).astype(np.float16)
        with self._lock:
            while self._states and (len(self._states) + 1) * unit.nbytes > _MOST_BYTES:
                self._states.popleft()
            self._states.append((unit, text))


def _same(known: Reference, unit: NDArray[np.float32]) -> bool:
    """No part of it has changed, and nor has the whole (night has fallen), which the comparison of parts leaves out."""
    whole = float(np.square(unit - known.unit).sum(axis=1).mean()) / 2
    return whole < known.limit(_SAME) and int(known.drifted(unit, _SAME).sum()) < _LEAST_TOKENS
