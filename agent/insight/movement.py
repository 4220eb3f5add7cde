"""How things move where, at the size of things: speed, way and presence of movement, learned per place.

Dense flow is read through windows about as large as a small figure, over the pixels that move alone: the mean of a
whole cell would take the ground around a walker for part of him, and a single pixel takes a swinging foot for a runner.
What is usual is kept in small maps and read through a wide blur, wider across than up and down: at the same height of
the picture things are about as far away, so a place where nobody has walked so far borrows from its row.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vpi_ops.interface import FlowField

Floats = NDArray[np.float32]

CELL_PX = 4
"""Side of a cell in analysis pixels."""
_STILL_PX = 0.35
"""Flow, analysis pixels a frame, below which it is noise."""
_WINDOWS = (3, 5, 7, 9)
"""Sides of the windows in cells."""
_WINDOW_S = 1.7
"""A window is as wide as what moves there usually goes in so long. Whatever walks goes about its own height in that
time, near or far, so speed tells how large things are at a place: a near walker's foot is not taken for something small
and fast."""
_WHOLE = 0.5
"""Of a window must move to count in full: less is a foot, or the seam of two things."""
_LEAST_SHARE = 0.2
"""Of a window must move for its speed to count."""
_BLUR = (0.5, 0.04)
"""Standard deviation of the blur of what is usual: share of the picture's width, of its height."""
_LEAST_SPREAD = 0.15
"""Spread of speeds, at least, as a share of their mean."""
_PRIOR = 0.02
"""Weight of what is usual all over the picture where a place has seen nothing."""
_WAYS = 8
_RAREST_WAY = 3.0
_FIRST_S = 1.0
_REFRESH = 1.1


@dataclass(frozen=True, slots=True)
class Movement:
    """One frame's movement in windows. share: float32 (h, w), of the window that moves, 0 where that is too little to
    count. velocity: float32 (h, w, 2), analysis pixels a second of what moves, forward."""

    share: Floats
    velocity: Floats

    @property
    def speed(self) -> Floats:
        return np.asarray(np.hypot(self.velocity[..., 0], self.velocity[..., 1]), np.float32)


def cells_of_flow(flow: FlowField) -> Floats:
    """float32 (h, w, 3): of each cell the share that moves, and its backward flow times that share."""
    backward = flow.backward
    moves = (np.einsum("yxc,yxc->yx", backward, backward) > _STILL_PX**2).astype(np.float32)
    stacked = cv2.merge([moves, backward[..., 0] * moves, backward[..., 1] * moves])
    height, width = moves.shape
    size = (max(1, width // CELL_PX), max(1, height // CELL_PX))
    return np.asarray(cv2.resize(stacked, size, interpolation=cv2.INTER_AREA), np.float32)


def movement(cells: Floats, seconds: float, windows: NDArray[np.int64] | None = None) -> Movement:
    """Movement from `cells_of_flow`, over `seconds` between the two frames. windows: (h, w), the side of the window at
    each place, the smallest everywhere when not given."""
    window = np.empty_like(cells)
    for side in _WINDOWS[:1] if windows is None else np.unique(windows):
        means = cv2.boxFilter(cells, -1, (int(side), int(side)), borderType=cv2.BORDER_CONSTANT)
        if windows is None:
            window = np.asarray(means, np.float32)
        else:
            here = windows == side
            window[here] = means[here]
    share = np.where(window[..., 0] >= _LEAST_SHARE, window[..., 0], 0).astype(np.float32)
    scale = (share > 0) / np.maximum(window[..., 0], 1e-6) / -seconds
    return Movement(share, np.asarray(window[..., 1:] * scale[..., None], np.float32))


class UsualMovement:
    """What moves where, how fast, and which way.

    seconds: watched. sums: float32 (h, w, 3 + 8), seconds in which a cell moved, these times its speed, times the
    square of what it was faster than the mean, and by eighth of the compass.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.seconds = 0.0
        self.sums = np.zeros((*shape, 3 + _WAYS), np.float32)
        self._usual: tuple[Floats, Floats, Floats] | None = None
        self._usual_s = 0.0

    def learn(self, seen: Movement, dt_s: float, age_s: float) -> None:
        """Take in `dt_s` seconds; beyond `age_s` seconds what is old fades."""
        rows, cols = np.nonzero(seen.share)
        speed = seen.speed[rows, cols]
        mean = self.usual()[0][rows, cols]
        keep = min(1.0, age_s / (self.seconds + dt_s))
        if keep < 1:
            self.sums *= np.float32(keep)
        self.seconds = (self.seconds + dt_s) * keep
        self.sums[rows, cols, 0] += dt_s
        self.sums[rows, cols, 1] += dt_s * speed
        if self._usual_s:
            self.sums[rows, cols, 2] += dt_s * _faster(speed, mean) ** 2
        self.sums[rows, cols, 3 + _way(seen.velocity[rows, cols])] += dt_s

    def surprise(self, seen: Movement) -> Floats:
        """float32 (h, w): how much faster than usual, in spreads, squared, and how rare its way is, in natural
        logarithms. 0 where nothing moves."""
        mean, spread, ways = self.usual()
        rows, cols = np.nonzero(seen.share)
        faster = _faster(seen.speed[rows, cols], mean[rows, cols]) / spread[rows, cols]
        way = -np.log(ways[rows, cols, _way(seen.velocity[rows, cols])] * _WAYS)
        score = np.zeros(seen.share.shape, np.float32)
        whole = np.minimum(1, seen.share[rows, cols] / _WHOLE)
        score[rows, cols] = whole**2 * (faster**2 + np.clip(way, 0, _RAREST_WAY))
        return score

    def windows(self) -> NDArray[np.int64]:
        """(h, w): how large the window of `movement` should be, by how fast things go here."""
        cells = self.usual()[0] * (_WINDOW_S / CELL_PX)
        return np.asarray(np.clip(2 * np.round((cells - 1) / 2) + 1, _WINDOWS[0], _WINDOWS[-1]), np.int64)

    def usual(self) -> tuple[Floats, Floats, Floats]:
        """Mean speed (h, w), by what share of it the faster ones are faster (h, w; root of the mean square over all),
        share by way (h, w, 8). Brought up to date when a tenth more has been seen."""
        if self._usual is None or self.seconds > max(_FIRST_S, _REFRESH * self._usual_s):
            height, width = self.sums.shape[:2]
            everywhere = self.sums.mean(axis=(0, 1)) + np.float32(1e-6)
            blurred = _blur(self.sums, _BLUR[0] * width, _BLUR[1] * height) + np.float32(_PRIOR) * everywhere
            seconds = blurred[..., 0]
            spread = np.sqrt(blurred[..., 2] / seconds)
            ways = (blurred[..., 3:] + 0.02 * seconds[..., None]) / ((1 + 0.02 * _WAYS) * seconds[..., None])
            self._usual = blurred[..., 1] / seconds, np.maximum(spread, _LEAST_SPREAD), ways
            self._usual_s = self.seconds
        return self._usual


def _faster(speed: Floats, mean: Floats) -> Floats:
    """By what share of the mean something is faster than that."""
    return np.asarray(np.maximum(0, speed / np.maximum(mean, 1e-3) - 1), np.float32)


def _way(velocity: Floats) -> NDArray[np.int64]:
    """Eighth of the compass, 0–7, of velocities (n, 2)."""
    turn = np.arctan2(velocity[..., 1], velocity[..., 0]) / (2 * np.pi)
    return np.asarray(np.round(turn * _WAYS), np.int64) % _WAYS


def _blur(maps: Floats, across: float, down: float) -> Floats:
    parts = [
        cv2.GaussianBlur(np.ascontiguousarray(maps[..., i]), (0, 0), across, None, down) for i in range(maps.shape[-1])
    ]
    return np.dstack(parts)
