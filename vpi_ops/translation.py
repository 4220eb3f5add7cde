"""How far a camera has moved its picture: the one translation that most corners agree on.

Corners of a key image are followed into the current one (Shi and Tomasi, 1994; pyramidal Lucas–Kanade), and the
translation is the median of those that agree with the densest cluster. Always measured against a key image, not the
frame before, so that errors don't add up. Phase correlation, the obvious way, locks on to the fixed frame of the window
where there is little texture.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]

_CORNERS = 64
_QUALITY = 0.004
_APART = 14
_WINDOW = (13, 13)
_LEVELS, _FAR_LEVELS = 1, 3
"""Pyramid levels above the image: near the guess, and where that is not found, from further away."""
_FOUND = 0.6
"""Agreement with which it counts as found."""
_NEAR_PX = 0.7
"""Corners whose displacement differs by less agree."""
LEAST_CORNERS = 8


class Translation(NamedTuple):
    """Content lies (x, y) pixels from where it lies in the key image. agreement: share of the corners, 0–1, that the
    translation explains."""

    x: float
    y: float
    agreement: float


class Key:
    """A grey image uint8 (h, w) with its corners."""

    def __init__(self, image: Grey) -> None:
        self._image = image
        found = cv2.goodFeaturesToTrack(image, _CORNERS, _QUALITY, _APART)
        self._corners = np.zeros((0, 1, 2), np.float32) if found is None else np.asarray(found, np.float32)

    def follow(self, image: Grey, guess: tuple[float, float]) -> Translation | None:
        """Where the picture has gone, in pixels of these images; None when fewer than eight corners can be followed."""
        if len(self._corners) < LEAST_CORNERS:
            return None
        near = self._found(image, guess, _LEVELS)
        if near is not None and near.agreement >= _FOUND:
            return near
        far = self._found(image, guess, _FAR_LEVELS)
        return max((each for each in (near, far) if each is not None), key=lambda each: each.agreement, default=None)

    def _found(self, image: Grey, guess: tuple[float, float], levels: int) -> Translation | None:
        start = self._corners + np.array(guess, np.float32)
        ends, status, _ = cv2.calcOpticalFlowPyrLK(
            self._image,
            image,
            self._corners,
            start,
            winSize=_WINDOW,
            maxLevel=levels,
            criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03),
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        height, width = image.shape
        at = np.asarray(ends)[:, 0]
        kept = (np.asarray(status)[:, 0] > 0) & (at > 2).all(axis=1) & (at < (width - 3, height - 3)).all(axis=1)
        moves = (at - self._corners[:, 0])[kept]
        if len(moves) < LEAST_CORNERS:
            return None
        near_x, near_y = (np.abs(along[:, None] - along) < _NEAR_PX for along in moves.T)
        agree = near_x & near_y
        cluster = moves[agree[int(agree.sum(axis=1).argmax())]]
        x, y = np.median(cluster, axis=0)
        return Translation(float(x), float(y), len(cluster) / len(moves))
