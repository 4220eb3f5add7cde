"""Temporal consistency of what is said: how long a description holds, and how often one changes and changes back.

Both go by time and not by frames: the same words, said at ten or at sixty frames a second, have the same numbers. A
flicker is a description that is left and comes back soon; a change that stays is none, however many there are.
"""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

_WORD = re.compile(r"\w+")


def word_cosine(a: str, b: str) -> float:
    """Cosine of word counts, 0–1, case and order ignored; 1 for two empty texts. Cheap, the same everywhere, and right
    for the texts of one model about one camera."""
    if a == b:
        return 1.0
    first, second = (Counter(_WORD.findall(text.lower())) for text in (a, b))
    if not first or not second:
        return float(not first and not second)
    product = sum(count * second[word] for word, count in first.items())
    lengths = math.prod(sum(count * count for count in counts.values()) for counts in (first, second))
    return product / math.sqrt(lengths)


@dataclass(frozen=True, slots=True)
class TextReport:
    """consistency: mean similarity, 0–1, between what is said and what was said `lag_s` earlier; None before. changes:
    descriptions that took the place of another. returns: changes that were taken back. flicker_hz: returns a second, a
    return being a whole cycle there and back. seconds: the time looked at."""

    consistency: float | None
    changes: int
    returns: int
    flicker_hz: float
    seconds: float


class TextConsistency:
    """The measure of one camera or clip.

    lag_s: seconds between the texts that are compared. within_s: a text that comes back later than this has not
    flickered. same: least similarity of two texts that say the same."""

    def __init__(
        self,
        *,
        lag_s: float = 1.0,
        within_s: float = 10.0,
        same: float = 0.9,
        similarity: Callable[[str, str], float] = word_cosine,
    ) -> None:
        self._lag_s, self._within_s, self._same, self._similarity = lag_s, within_s, same, similarity
        self._changes = self._returns = 0
        self._seconds = self._likeness = self._compared_s = 0.0
        self.reset()

    def reset(self) -> None:
        """What comes next is another scene: no text of before can come back. The totals stay."""
        self._said: deque[tuple[float, str]] = deque()  # since when each text of the last `lag_s` was said
        self._before: tuple[float, str] | None = None  # when the text before the present one ended, and what it was
        self._last_s: float | None = None

    def process(self, text: str, now_s: float) -> None:
        """What is said at this moment, seconds. As often as you like: between two calls the earlier text holds."""
        if self._last_s is not None:
            self._hold(self._last_s, now_s)
        self._last_s = now_s
        if not self._said:
            self._said.append((now_s, text))
            return
        present = self._said[-1][1]
        if text == present:
            return
        if self._similarity(text, present) < self._same:
            self._changes += 1
            if (
                self._before is not None
                and now_s - self._before[0] <= self._within_s
                and self._similarity(text, self._before[1]) >= self._same
            ):
                self._returns += 1
                self._before = None  # the next cycle begins here: there and back is one
            else:
                self._before = (now_s, present)
        self._said.append((now_s, text))

    @property
    def report(self) -> TextReport:
        return TextReport(
            self._likeness / self._compared_s if self._compared_s else None,
            self._changes,
            self._returns,
            self._returns / self._seconds if self._seconds else 0.0,
            self._seconds,
        )

    def _hold(self, start_s: float, end_s: float) -> None:
        """The present text was said from `start_s` to `end_s`: compare it with what was said `lag_s` before."""
        self._seconds += end_s - start_s
        present = self._said[-1][1]
        for index, (since_s, text) in enumerate(self._said):
            until_s = self._said[index + 1][0] if index + 1 < len(self._said) else end_s
            compared_s = min(until_s + self._lag_s, end_s) - max(since_s + self._lag_s, start_s)
            if compared_s > 0:
                self._compared_s += compared_s
                self._likeness += compared_s * self._similarity(present, text)
        while len(self._said) > 1 and self._said[1][0] <= end_s - self._lag_s:
            self._said.popleft()
