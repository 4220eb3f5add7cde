"""Which part of the picture an alarm is about, while it lasts: what is unusual outside of it is something else."""

from __future__ import annotations

from math import inf

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_KEEP_S = 5.0
"""How long a place belongs to an alarm after it was last unusual: longer than something stays behind a tree."""
_MARGIN = np.ones((13, 13), np.uint8)
"""Cells around it, of 80 across the picture: as far as something goes from one frame to the next."""


class Claim:
    """The cells (rows, cols) of one alarm. It goes along with what moves: unusual cells in a piece that comes near it
    are its own."""

    def __init__(self, unusual: Mask, now_s: float) -> None:
        self._until_s = np.where(unusual, now_s + _KEEP_S, -inf)

    def near(self, now_s: float) -> Mask:
        """bool (rows, cols): where what is unusual belongs to this alarm."""
        return np.asarray(cv2.dilate((self._until_s > now_s).astype(np.uint8), _MARGIN) > 0)

    def follow(self, unusual: Mask, now_s: float) -> None:
        """Take in the cells that are unusual now, as far as they belong to it."""
        _, pieces = cv2.connectedComponents(unusual.astype(np.uint8))
        mine = np.unique(pieces[self.near(now_s)])
        self._until_s[np.isin(pieces, mine[mine > 0])] = now_s + _KEEP_S
