"""What an answer said the time before is a guess at what it says now: of a scene that has hardly changed, much is said
again word for word. Guessed tokens are read in one run and believed as far as the model would have chosen the same, so
that only what is new is made token by token (prompt lookup: Saxena 2023; speculative decoding: Leviathan et al. 2023).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

_LONGEST_GUESS = 24
_KEPT = 64


def continued(before: Sequence[int], said: Sequence[int]) -> Sequence[int]:
    """How the answer before went on after what has been said now: from its beginning, or from the last place where its
    last two tokens are the same. Empty where it has no such place."""
    if not said:
        return before[:_LONGEST_GUESS]
    if len(said) < 2:
        return []
    pair = list(said[-2:])
    near = [end for end in range(2, len(before)) if list(before[end - 2 : end]) == pair]
    end = min(near, key=lambda place: abs(place - len(said)), default=len(before))
    return before[end : end + _LONGEST_GUESS]


class Drafts:
    """The last answer to each question under each key, as tokens. Safe to use from several threads."""

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[str, str], list[int]] = OrderedDict()
        self._lock = Lock()

    def of(self, key: str, question: str) -> Sequence[int]:
        with self._lock:
            return self._said.get((key, question), [])

    def keep(self, key: str, question: str, said: list[int]) -> None:
        """The longest unused of too many goes."""
        with self._lock:
            self._said[key, question] = said
            self._said.move_to_end((key, question))
            if len(self._said) > _KEPT:
                self._said.popitem(last=False)
