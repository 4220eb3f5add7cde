"""Backward flow from the motion vectors of the video codec itself.

An encoder has searched, to a quarter of a pixel, where each block of a picture came from, and libav hands that out with
the decoded picture. It searched for what is cheap to code, not for what moved, so single vectors are wild where there
is no texture: each cell takes the median of its neighbourhood. Blocks coded without reference (intra) are unknown; they
lie where the picture changes most, so what moves around them is a fair guess. Which of several earlier pictures a
vector refers to is not handed out; nearly always it is the one shown before. So all of this is a hint, and pixels
decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vpi_ops.interface import FlowField

Floats = NDArray[np.float32]
Vectors = NDArray[np.int32]

CELL = 8
"""Pixels along a cell of the field: the smallest block that libav tells apart."""
UNKNOWN = 2.0
"""Error of a cell without a vector, so that the mean over a patch passes 1 where half of it is unknown."""
_LONGEST, _MOST_PIXELS = 6, 1_200_000
"""Most pictures that motion is followed through, and most pixels in all of them: beyond, dense flow, which sees every
picture at one small size, is much cheaper."""

_AROUND = 9
"""Cells across, around an unknown one, whose mean motion it takes."""
_WORDS = 10
"""`AVMotionVector` (libavutil/motion_vector.h) in words of 32 bit: 0 is the source, 6 and 7 the motion, 8 its scale. As
halves of 16 bit: 2 is the block's width and height, a byte each, 5 and 6 are its centre."""
_WIDE, _TALL = 16, 16 << 8


def affordable(size: tuple[int, int], frames: float) -> bool:
    """Whether motion through so many pictures of (width, height) is worth its time."""
    return frames <= _LONGEST and size[0] * size[1] * frames <= _MOST_PIXELS


@dataclass(frozen=True, slots=True)
class CodecMotion:
    """Where the blocks of a picture came from, in a picture shown before it.

    size: (width, height) of the pictures. steps: int32 (n, 10) each, libav's vectors of the pictures in between, newest
    first; each picture's earlier reference is the picture shown before it.
    """

    size: tuple[int, int]
    steps: tuple[Vectors, ...]

    @classmethod
    def of(cls, size: tuple[int, int], exported: bytes) -> CodecMotion:
        """From the side data of one picture as libav exports it, an array of `AVMotionVector`."""
        return cls(size, (np.frombuffer(exported, np.int32).reshape(-1, _WORDS),))

    @property
    def frames(self) -> int:
        """How many pictures it goes back."""
        return len(self.steps)

    def after(self, before: CodecMotion | None) -> CodecMotion | None:
        """This motion and, before it, the other; None when that is unknown, of another size, or not `affordable`."""
        if before is None or before.size != self.size or not affordable(self.size, self.frames + before.frames):
            return None
        return CodecMotion(self.size, self.steps + before.steps)

    def flow(self, region: tuple[int, int, int, int] | None = None) -> FlowField:
        """One motion for each cell of 8 px; its error is 0, and `UNKNOWN` where there is no vector: that takes the mean
        motion of those around. region: (x0, y0, x1, y1) in pixels, where it is wanted; elsewhere, or at least far from
        it, it is 0 and unknown."""
        if region is None or self.frames > 1:
            field = _cells(self.steps[0], self.size, None)
            for step in self.steps[1:]:
                field = _followed(field, _cells(step, self.size, None))
            backward, error = _settled(field)
            return FlowField(backward, (CELL, CELL), error)
        height, width = (-(-side // CELL) for side in self.size[::-1])
        x0, y0 = (max(0, side // (2 * CELL) * 2 - _AROUND) // 2 * 2 for side in region[:2])  # whole macroblocks
        x1, y1 = (-(-side // CELL) + _AROUND for side in region[2:])
        part = (x0, y0, min(x1, width), min(y1, height))
        backward, error = np.zeros((height, width, 2), np.float32), np.full((height, width), UNKNOWN, np.float32)
        inside = np.s_[part[1] : part[3], part[0] : part[2]]
        if backward[inside].size:
            backward[inside], error[inside] = _settled(_cells(self.steps[0], self.size, part))
        return FlowField(backward, (CELL, CELL), error)


def _settled(field: Floats) -> tuple[Floats, Floats]:
    """Of vectors that may be NaN: the motion of each cell, and its error."""
    unknown = np.isnan(field[..., 0])
    if unknown.any():
        _fill(field, unknown)
    backward = np.asarray(cv2.medianBlur(field, 3), np.float32)
    return backward, np.where(unknown, np.float32(UNKNOWN), np.float32(0))


def _cells(vectors: Vectors, size: tuple[int, int], part: tuple[int, int, int, int] | None) -> Floats:
    """Vectors to earlier references as (x, y) in cells, float32 (h, w, 2), NaN where there is none. part: the cells
    (x0, y0, x1, y1) that are wanted, from a macroblock on; None = all."""
    width, height = (-(-side // CELL) for side in size)
    x0, y0, x1, y1 = part or (0, 0, width, height)
    cols, rows = (2 * -(-side // 2) for side in (x1 - x0, y1 - y0))  # whole macroblocks, as they are coded
    field = np.full(rows * cols, np.nan, np.complex64)  # a pair of floats that moves as one
    halves = vectors.view(np.int16)
    # Where the picture is a part of what was coded, blocks can lie outside.
    x, y = halves[:, 5] - np.int16(CELL * x0), halves[:, 6] - np.int16(CELL * y0)
    wanted = (vectors[:, 0] < 0) & (x < CELL * cols) & (y < CELL * rows)
    if part is not None:
        wanted &= (x > 0) & (y > 0)
    if not wanted.all():
        vectors, x, y = vectors[wanted], x[wanted], y[wanted]
    if len(vectors):
        halves = vectors.view(np.int16)
        block = halves[:, 2]
        wide, tall = (block & _WIDE) > 0, (block & _TALL) > 0
        first = ((y - 4 - 4 * tall) // CELL).astype(np.intp) * cols + (x - 4 - 4 * wide) // CELL
        motion = vectors[:, 6:8].astype(np.float32)
        motion *= np.float32(1 / (CELL * int(halves[0, 16])))
        pairs = motion.view(np.complex64)[:, 0]
        field[first] = pairs
        for reaches, offset in ((wide, 1), (tall, cols), (wide & tall, cols + 1)):
            field[first[reaches] + offset] = pairs[reaches]
    return np.ascontiguousarray(field.view(np.float32).reshape(rows, cols, 2)[: y1 - y0, : x1 - x0])


def _followed(field: Floats, before: Floats) -> Floats:
    """`field`, and from where it leads to on through `before`; NaN where either is, or leads out of the picture."""
    height, width = field.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    at = field + np.dstack([x, y])
    inside = np.clip(at, 0, (width - 1, height - 1)).astype(np.float32)
    # Not with a border of NaN: OpenCV weighs it with 0 at the last row and column, and 0 times NaN is NaN.
    there = cv2.remap(before, inside[..., 0], inside[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    there[(at != inside).any(axis=2)] = np.nan
    return np.asarray(field + there, np.float32)


def _fill(field: Floats, unknown: NDArray[np.bool_]) -> None:
    """Give unknown cells the mean of the known ones around them, 0 where there is none."""
    cv2.patchNaNs(field, 0)
    cells = np.nonzero(unknown)
    sums, counts = _sums_around(field)[cells], _sums_around((~unknown).astype(np.float32))[cells]
    field[cells] = sums / np.maximum(counts, 1)[:, None]


def _sums_around(cells: Floats) -> Floats:
    size = (_AROUND, _AROUND)
    return np.asarray(cv2.boxFilter(cells, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT), np.float32)
