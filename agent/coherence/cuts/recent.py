"""The last frames, and how different any two of them are."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agent.coherence.cuts.glance import SAME, Difference, Distance, Floats, Glance, difference

LOOKAHEAD = 2
"""Frames after the first of a new shot that the verdict waits for."""
_REMEMBERED = 64
"""Frames kept: the longest dissolve that is found, and what goes before and after it."""

_MID_GREY = np.float32(128)

CutKind = Literal["cut", "dissolve", "fade"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A new shot. frame: index of the first frame that is wholly of it. start: of the first that is no longer wholly of
    the old one; for a cut of no length the same. score: 0 to 1, how different the two shots are."""

    frame: int
    start: int
    kind: CutKind
    score: float


class Recent:
    """Frames by their place: 0 for the first one since `clear`, and rising. `last` is the place of the newest frame,
    `shot` that of the first one of the shot that goes on now."""

    def __init__(self, distance: Distance) -> None:
        self._distance = distance
        self._luma = self._products = np.zeros((0, 0), np.float32)
        self.clear()

    def clear(self) -> None:
        self.last = -1
        self.shot = 0
        self._base = 0
        self._frames: deque[tuple[int, Glance]] = deque(maxlen=_REMEMBERED)
        self._differences: dict[tuple[int, int], Difference] = {}

    def add(self, index: int, glance: Glance) -> None:
        """The next frame; index: its number in the video. The glance of the frame before may be given again. Call
        `clear` before frames of another grid."""
        again = bool(self._frames) and self._frames[-1][1] is glance
        self._frames.append((index, glance))
        self.last += 1
        if self._luma.shape[1] != glance.luma.size:
            self._luma = np.zeros((2 * _REMEMBERED, glance.luma.size), np.float32)
            self._products = np.zeros((2 * _REMEMBERED, 2 * _REMEMBERED), np.float32)
        if self.last - self._base == len(self._luma):
            self._make_room()
        row, first = self.last - self._base, self.oldest - self._base
        if again:
            self._luma[row] = self._luma[row - 1]
            products = self._products[row - 1, first : row + 1]
            products[-1] = products[-2]
        else:
            np.subtract(glance.luma.ravel(), _MID_GREY, out=self._luma[row])
            products = np.einsum("ij,j->i", self._luma[first : row + 1], self._luma[row])
        self._products[row, first : row + 1] = self._products[first : row + 1, row] = products
        if len(self._differences) > 4 * _REMEMBERED:
            self._differences = {pair: d for pair, d in self._differences.items() if pair[0] >= self.oldest}

    def _make_room(self) -> None:
        """Rows lie in order, so that a stretch of frames is a slice; those of old frames are given up now and then."""
        kept = np.s_[_REMEMBERED:]
        self._luma[:_REMEMBERED] = self._luma[kept]
        self._products[:_REMEMBERED, :_REMEMBERED] = self._products[kept, kept]
        self._base += _REMEMBERED

    @property
    def oldest(self) -> int:
        return self.last - len(self._frames) + 1

    @property
    def earliest(self) -> int:
        """The first frame of this shot that is still known."""
        return max(self.shot, self.oldest)

    def __getitem__(self, place: int) -> Glance:
        return self._frames[place - self.oldest][1]

    def index(self, place: int) -> int:
        """The number in the video of the frame at a place."""
        return self._frames[place - self.oldest][0]

    def difference(self, a: int, b: int) -> Difference:
        """Between the frames at two places."""
        pair = (a, b)
        if pair not in self._differences:
            one, other = self[a], self[b]
            self._differences[pair] = SAME if one is other else difference(one, other, self._distance)
        return self._differences[pair]

    def score(self, a: int, b: int) -> float:
        return self.difference(a, b).score

    def step(self, place: int) -> float:
        """The score between a frame and the one before it."""
        return self.score(place - 1, place)

    def products(self, place: int, first: int, last: int) -> Floats:
        """Scalar products of the luma image at a place with those of a stretch, float32 (n,); grey levels count from
        the middle. They give every length, distance and direction among these pictures."""
        base = self._base
        return self._products[place - base, first - base : last + 1 - base]

    def squares(self, first: int, last: int) -> Floats:
        """The scalar product of each luma image of a stretch with itself, float32 (n,)."""
        stretch = np.s_[first - self._base : last + 1 - self._base]
        return self._products[stretch, stretch].diagonal()
