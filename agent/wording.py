"""Texts compared sentence by sentence: what is said now and was not said before, and the other way round."""

from __future__ import annotations

import re
from collections import Counter

_END = re.compile(r"(?<=[.!?])\s+")


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order."""
    return [sentence for sentence in _END.split(text.strip()) if sentence]


def only_in(text: str, other: str) -> str:
    """The sentences of `text` that `other` does not have, in order; one that it has once is left out once."""
    there = Counter(sentences(other))
    own = []
    for sentence in sentences(text):
        if there[sentence]:
            there[sentence] -= 1
        else:
            own.append(sentence)
    return " ".join(own)
