"""How things move where, at the size of things: speed, way, presence, and whether they walk or glide.

Dense flow is read through windows about as large as what moves at a place, over the pixels that move alone: the mean of
a whole cell would take the ground around a walker for part of him, and a single pixel takes a swinging foot for a
runner. Who walks swings arms and legs and fills little of a window; what rolls fills it and moves as one. What is usual
is kept in small maps and read through a wide blur, wider across than up and down: at the same height of the picture
things are about as far away, so a place where nobody has walked so far borrows from its row.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.insight.hours import MovingHours
from vpi_ops.interface import FlowField

Floats = NDArray[np.float32]

SHAPE = (54, 80)
"""Cells, rows and columns, that the frame is cut in, whatever its size."""
STILL = np.zeros((*SHAPE, 4), np.float32)
"""`cells_of_flow` where nothing moves."""
_STILL_PX = 0.35
"""Flow, analysis pixels a frame, below which it is noise."""
_WINDOWS = (3, 15)
"""Least and largest side of a window in cells; sides are odd."""
_WINDOW_S = 2.4
"""A window is as wide as what moves there usually goes in so long. Whatever walks goes about its own height in that
time, near or far, so speed tells how large things are at a place: a near walker's foot is not taken for something small
and fast."""
_LEAST_SHARE = 0.3
"""Of a window must move for its speed to count."""
_WHOLE = 0.5
"""Of a window must move to count in full: less is a foot, or the seam of two things."""
_BLUR = (0.5, 0.06)
"""Standard deviation of the blur of what is usual: share of the picture's width, of its height."""
_LEAST_SPREAD = 0.15
"""Spread of speeds, at least, as a share of their mean."""
_BORROWED = 0.02
"""Weight of what is usual all over the picture where a place has seen nothing."""
_WAYS = 8
_RARE = 0.005
"""Share that a way is taken to have that was never seen."""
_ANY_WAY, _RAREST_WAY = 1.0, 3.0
"""Natural logarithms by which a way is rarer than if all were alike: from where on that counts, and how far."""
_SWINGS = (0.02, 5.0)
"""Least and largest variance of the flow in a window that is told apart, by the square of its mean."""
_FULL, _GLIDING, _WAY = 0.25, 0.25, 1.7
"""What filling a window, moving as one and a rare way count for beside a spread of speed."""
_FIRST_S = 1.0
_REFRESH = 1.1
# Before anything was seen to move: speed in cells a second, the square of its spread, share of a window and its
# square, logarithm of the swinging and its square, all ways alike; with the weight of so many seconds a cell.
_PRIOR = np.array([1, 3, 4.0, 0.65, 0.65**2 + 0.06, -1.2, 1.2**2 + 1.0, *[1 / _WAYS] * _WAYS], np.float32)
_PRIOR_S = 0.002


@dataclass(frozen=True, slots=True)
class Movement:
    """One frame's movement in windows. share: float32 (h, w), of the window that moves, 0 where that is too little to
    count. velocity: float32 (h, w, 2), cells a second of what moves, forward. swing: float32 (h, w), logarithm of how
    much flow varies within the window, by its mean."""

    share: Floats
    velocity: Floats
    swing: Floats

    @property
    def speed(self) -> Floats:
        return np.asarray(np.hypot(self.velocity[..., 0], self.velocity[..., 1]), np.float32)


def cells_of_flow(flow: FlowField, camera_px: tuple[float, float] = (0.0, 0.0)) -> Floats:
    """float32 (54, 80, 4): of each cell the share that moves, its backward flow (x, y) in cells a frame times that
    share, and the square of it. camera_px: source pixels by which the camera moved the content."""
    backward = flow.backward
    if camera_px != (0.0, 0.0):
        scale = camera_px[0] / flow.scale[0], camera_px[1] / flow.scale[1]
        backward = backward + np.array(scale, np.float32)
    height, width = backward.shape[:2]
    square = np.einsum("yxc,yxc->yx", backward, backward)
    moves = (square > _STILL_PX**2).astype(np.float32)
    square *= moves
    stacked = cv2.merge([moves, backward[..., 0] * moves, backward[..., 1] * moves, square])
    cells = np.asarray(cv2.resize(stacked, SHAPE[::-1], interpolation=cv2.INTER_AREA), np.float32)
    across, down = SHAPE[1] / width, SHAPE[0] / height
    cells *= np.array([1, across, down, across * down], np.float32)
    return cells


NOTHING_MOVES = Movement(*(np.zeros((*SHAPE, *more), np.float32) for more in ((), (2,), ())))


def cells_in_frame(box: tuple[int, int, int, int], frame_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(column, row, columns, rows) of cells as [x, y, w, h] in a frame of (width, height) source pixels."""
    (col, row, cols, rows), (width, height) = box, frame_size
    x0, y0 = col * width // SHAPE[1], row * height // SHAPE[0]
    x1, y1 = -(-(col + cols) * width // SHAPE[1]), -(-(row + rows) * height // SHAPE[0])
    return x0, y0, x1 - x0, y1 - y0


class UsualMovement:
    """What moves where, how fast, which way, and how.

    seconds: watched. sums: float32 (h, w, 7 + 8), seconds in which a cell moved, and these times its speed, the square
    of what it was faster than the mean, its share of the window, the square of that, its swing, the square of that, and
    by eighth of the compass. hours: how much of the time something moves, by hour of the day.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sums = np.zeros((*SHAPE, 7 + _WAYS), np.float32)
        self.hours = MovingHours(SHAPE)
        self._usual: Floats | None = None
        self._windows: NDArray[np.int64] | None = None
        self._usual_s = 0.0

    def see(self, cells: Floats, seconds: float) -> Movement:
        """Movement from `cells_of_flow`, over `seconds` between the two frames, at the size that things have here."""
        if cells is STILL:
            return NOTHING_MOVES
        sides = self._sides()
        window = np.empty_like(cells)
        for side in np.unique(sides):
            means = cv2.boxFilter(cells, -1, (int(side), int(side)), borderType=cv2.BORDER_CONSTANT)
            np.copyto(window, means, where=(sides == side)[..., None])
        moves = window[..., 0] >= _LEAST_SHARE
        scale = moves / np.maximum(window[..., 0], 1e-6)
        mean = window[..., 1:3] * scale[..., None]
        square = np.einsum("yxc,yxc->yx", mean, mean)
        swing = (window[..., 3] * scale - square) / np.maximum(square, 1e-9)
        return Movement(
            window[..., 0] * moves,
            np.asarray(mean / np.float32(-max(seconds, 1e-3)), np.float32),
            np.log(np.clip(swing, *_SWINGS)) * moves,
        )

    def learn(self, seen: Movement, dt_s: float, age_s: float, hour: float) -> None:
        """Take in `dt_s` seconds at that hour of the day; beyond `age_s` seconds what is old fades."""
        keep = min(1.0, age_s / (self.seconds + dt_s))
        if keep < 1:
            self.sums *= np.float32(keep)
        self.seconds = (self.seconds + dt_s) * keep
        rows, cols = at = np.nonzero(seen.share)
        speed, share, swing = seen.speed[at], seen.share[at], seen.swing[at]
        faster = _faster(speed, self.usual()[at][:, 1])
        told = np.stack([np.ones_like(speed), speed, faster**2, share, share**2, swing, swing**2], axis=1)
        self.sums[rows, cols, :7] += np.float32(dt_s) * told
        self.sums[rows, cols, 7 + _way(seen.velocity[at])] += np.float32(dt_s)
        self.hours.learn(seen.share > 0, dt_s, age_s, hour)

    def surprise(self, seen: Movement, hour: float) -> Floats:
        """float32 (h, w): by how many spreads what moves is faster than usual, fuller, more of a piece, on a rarer way
        and at a rarer place and hour. 0 where nothing moves."""
        if seen is NOTHING_MOVES:
            return NOTHING_MOVES.share
        at = np.nonzero(seen.share)
        usual = self.usual()[at]
        faster = _faster(seen.speed[at], usual[:, 1]) / np.maximum(np.sqrt(usual[:, 2]), _LEAST_SPREAD)
        fuller = (seen.share[at] - usual[:, 3]) / np.sqrt(np.maximum(usual[:, 4] - usual[:, 3] ** 2, 0.01))
        glides = (usual[:, 5] - seen.swing[at]) / np.sqrt(np.maximum(usual[:, 6] - usual[:, 5] ** 2, 0.05))
        way = -np.log(usual[np.arange(len(usual)), 7 + _way(seen.velocity[at])] * _WAYS)
        whole = np.minimum(1, seen.share[at] / _WHOLE) ** 2
        score = np.zeros(SHAPE, np.float32)
        score[at] = whole * (
            faster
            + _FULL * np.clip(fuller, -2, 2)
            + _GLIDING * np.clip(glides, -2, 2.5)
            + _WAY * np.clip(way - _ANY_WAY, 0, _RAREST_WAY)
            + self.hours.rarity(hour)[at]
        )
        return np.maximum(score, 0)

    def at(self, row: int, col: int, hour: float) -> tuple[float, tuple[float, float], float]:
        """What is usual around a cell: speed in cells a second, its commonest way as a unit vector (x, y), and the
        share of the time at that hour in which something moves."""
        usual = self.usual()[row, col]
        turn = 2 * np.pi * int(usual[7:].argmax()) / _WAYS
        share = float(self.hours.share(hour)[row, col])
        return float(usual[1]), (float(np.cos(turn)), float(np.sin(turn))), share

    def usual(self) -> Floats:
        """(h, w, 15): `sums` by the second, through the blur. Brought up to date when a tenth more has been seen."""
        if self._usual is None or self.seconds > max(_FIRST_S, _REFRESH * self._usual_s):
            everywhere = self.sums.mean(axis=(0, 1))
            blurred = _blur(self.sums) + np.float32(_BORROWED) * everywhere + np.float32(_PRIOR_S) * _PRIOR
            usual = blurred / blurred[..., :1]
            usual[..., 7:] = (usual[..., 7:] + _RARE) / (1 + _RARE * _WAYS)
            self._usual, self._windows, self._usual_s = usual, None, self.seconds
        return self._usual

    def _sides(self) -> NDArray[np.int64]:
        """(h, w): how large the window is at each place, by how fast things go there."""
        usual = self.usual()
        if self._windows is None:
            sides = 2 * np.round((usual[..., 1] * _WINDOW_S - 1) / 2) + 1
            self._windows = np.asarray(np.clip(sides, *_WINDOWS), np.int64)
        return self._windows


def _faster(speed: Floats, mean: Floats) -> Floats:
    """By what share of the mean something is faster than that."""
    return np.asarray(np.maximum(0, speed / np.maximum(mean, 1e-3) - 1), np.float32)


def _way(velocity: Floats) -> NDArray[np.int64]:
    """Eighth of the compass, 0–7, of velocities (n, 2)."""
    turn = np.arctan2(velocity[..., 1], velocity[..., 0]) / (2 * np.pi)
    return np.asarray(np.round(turn * _WAYS), np.int64) % _WAYS


def _blur(maps: Floats) -> Floats:
    across, down = _BLUR[0] * SHAPE[1], _BLUR[1] * SHAPE[0]
    parts = [
        cv2.GaussianBlur(np.ascontiguousarray(maps[..., i]), (0, 0), across, None, down) for i in range(maps.shape[-1])
    ]
    return np.dstack(parts)
