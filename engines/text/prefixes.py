"""What has been read is kept, so that pictures that begin alike are not read again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Context:
    """What the language model has read up to where the question begins: keys and values (L, 2, Hkv, length, dh), and
    the logits (vocab,) of what comes next. Never changed, so any number of questions can start from it."""

    past: Floats
    logits: Floats

    @property
    def length(self) -> int:
        return int(self.past.shape[3])


@dataclass(frozen=True, slots=True)
class Prefix:
    """A context and what it was read from: the pictures as features (T, dim) and as visual tokens, all rows (length,
    D)."""

    features: tuple[Floats, ...]
    visual: tuple[Floats, ...]
    embeds: Floats
    context: Context

    @property
    def nbytes(self) -> int:
        arrays = (*self.features, *self.visual, self.embeds, self.context.past, self.context.logits)
        return sum(array.nbytes for array in arrays)

    def shows(self, pictures: Sequence[Floats]) -> bool:
        """Whether it was read from these pictures, bit for bit."""
        return len(pictures) == len(self.features) and all(map(_same, self.features, pictures))

    def visual_of(self, features: Floats) -> Floats | None:
        """Visual tokens of a picture that is bit for bit one of these; None of another."""
        for known, visual in zip(self.features, self.visual, strict=True):
            if _same(known, features):
                return visual
        return None


class Prefixes:
    """The last prefix of each key for one picture and for two, together at most `limit` bytes: what has not been used
    for the longest time goes first. Safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[str, int], Prefix] = OrderedDict()
        self._lock = Lock()

    def of(self, key: str) -> list[Prefix]:
        """Up to two: a pair that begins with the single picture can start from it, and the other way round."""
        with self._lock:
            return [self._kept[key, pictures] for pictures in (1, 2) if (key, pictures) in self._kept]

    def keep(self, key: str, prefix: Prefix) -> None:
        """In place of the one that this key had for as many pictures."""
        name = (key, len(prefix.features))
        with self._lock:
            self._kept.pop(name, None)
            if prefix.nbytes <= self._limit:
                self._kept[name] = prefix
            while sum(kept.nbytes for kept in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)


def same_rows(a: Floats, b: Floats) -> int:
    """How many leading rows of (n, D) and (m, D) are the same bit for bit."""
    rows = min(len(a), len(b))
    differs = (a[:rows].view(np.uint32) != b[:rows].view(np.uint32)).any(axis=1)
    return int(differs.argmax()) if differs.any() else rows


def _same(a: Floats, b: Floats) -> bool:
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))
