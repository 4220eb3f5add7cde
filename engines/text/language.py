"""What the decoder asks of a runtime: rows in, logits out, and what has been read kept to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Reading(Protocol):
    """A text in the course of being read; from one thread at a time."""

    @property
    def length(self) -> int:
        """Rows that are kept."""
        ...

    @property
    def past(self) -> Floats:
        """Keys and values (L, 2, Hkv, length, dh) of what has been read; never written again."""
        ...

    def read(self, embeds: Floats, parents: Sequence[int] | None = None, answer: Sequence[int] = (-1,)) -> Floats:
        """Read s rows (s, D); the logits (a, vocab) of what comes after those in `answer`. Raises EngineFault.

        parents: for each row the one that it follows, -1 for what has been read before: rows see those that they follow
        and no others, so that texts that begin alike are read side by side. They are not kept. None: each row follows
        the one before, and all are kept.
        """
        ...


class Language(Protocol):
    """A language model. Safe to use from several threads. Methods raise EngineFault."""

    @property
    def nothing(self) -> Floats:
        """Keys and values (L, 2, Hkv, 0, dh) of no text at all."""
        ...

    @property
    def tokens_read(self) -> int:
        """Rows that went through it."""
        ...

    def visual_tokens(self, features: Floats) -> Floats:
        """(T / merge², D) of features (T, dim)."""
        ...

    def embed(self, ids: Sequence[int] | NDArray[np.int64]) -> Floats:
        """(s, D) of s token ids."""
        ...

    def close(self) -> None:
        """Give back what it holds on a GPU; nothing can be read afterwards."""
        ...

    def read_on(self, past: Floats, room: int) -> Reading:
        """Go on from keys and values (L, 2, Hkv, p, dh), which are copied, with room for so many rows more."""
        ...
