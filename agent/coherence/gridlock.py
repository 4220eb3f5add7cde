"""Grid lock: the model's crop slides with the picture, so that a moving camera doesn't change every patch.

While the camera moves the model sees a crop that is a patch smaller than the frame. Its corner follows the content, in
whole source pixels, so that each patch shows the same piece of world, sampled in the same way. When it has slid half a
patch and a little more it steps back by a whole one: tokens change places, and only the revealed rows and columns are
new. That little keeps a camera that rests or trembles there from stepping to and fro.

It begins when much of the picture changes and a translation explains that; it ends when it doesn't pay (too much is
stale all the same: zoom, rotation, a scene in motion), or when the camera has long been at rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpi_ops.interface import VisionOps
from vpi_ops.translation import Translation

Image = NDArray[np.uint8]
Slots = NDArray[np.int64]
Mask = NDArray[np.bool_]
Crop = tuple[int, int, int, int]

_RESTLESS = 0.08
"""Share of stale patches from which on a lock is tried."""
_LOOK_AGAIN, _LONGEST_LOOK = 8, 64
"""Frames until it is tried again where the camera was found at rest, doubled each time."""
_LEAST_PX = 0.4
"""Source pixels a frame below which a camera stands still."""
_TRUSTED = 0.45
"""Share of corners that must agree."""
_REKEY_SHIFT, _REKEY_AGREEMENT = 0.15, 0.6
"""A new key image is taken when the picture has shifted by this share of its size, or fewer corners agree."""
_USELESS = 0.5
"""Share of stale tokens above which a lock doesn't pay."""
_PATIENCE = 4
"""Frames in a row that it may not pay."""
_FIRST_PAUSE, _LONGEST_PAUSE = 30, 960
"""Frames until it is tried again, doubled each time."""
_WHOLE_PX = 10
"""Source pixels from which on a patch is cut down to whole ones: the grid then steps without resampling anything."""
_LINGER_PX = 2
"""Source pixels beyond half a patch to which the crop slides before it steps, where the frame has room."""
_RESTED = 300
"""Frames at rest after which the whole frame is shown again."""


@dataclass(frozen=True, slots=True)
class Slide:
    """Where the model looks in this frame. crop: (x0, y0, x1, y1) source pixels. entered: this crop has another size
    than the one before; nothing temporal holds. source: int64 (T,), the slot whose content each slot now has, None when
    the grid has not stepped. revealed: bool (T,), slots whose content is new, None with no step. steps: (columns, rows)
    by which content has moved on the grid. camera_px: (x, y) source pixels by which it moved since the frame before."""

    crop: Crop
    entered: bool = False
    source: Slots | None = None
    revealed: Mask | None = None
    steps: tuple[int, int] = (0, 0)
    camera_px: tuple[float, float] = (0.0, 0.0)


class GridLock:
    """The lock of one camera with frames of one size. area: (x0, y0, x1, y1), the part of the frame that the model
    sees when it is not locked, source pixels."""

    def __init__(self, ops: VisionOps, grid: tuple[int, int], area: Crop) -> None:
        self._ops = ops
        self._grid = grid
        whole = np.array([area[2] - area[0], area[3] - area[1]])
        cells = np.array([grid[1], grid[0]])
        patch = (whole - 2) / (cells + 1)  # half a patch of room on each side, and a pixel for rounding
        self._patch = np.where(patch >= _WHOLE_PX, np.floor(patch), patch)
        self._size = np.floor(self._patch * cells).astype(int)
        room = (whole - self._size) // 2
        self._corner = np.array(area[:2]) + room
        self._reach = np.minimum(room, self._patch / 2 + _LINGER_PX)
        self._possible = bool((self._patch >= 4).all())
        self._pause = _FIRST_PAUSE
        self._wait = 0
        self._look_again = _LOOK_AGAIN
        self.reset()

    def reset(self) -> None:
        """Look at the whole frame again; a cut, say."""
        self.locked = False
        self._key: object | None = None
        self._slid = np.zeros(2)
        self._velocity = np.zeros(2)
        self._since_key = np.zeros(2)
        self._useless = self._rested = 0

    def process(self, image: Image, stale: float) -> Slide | None:
        """Where to look in this frame, uint8 RGB (H, W, 3); None = at the whole. stale: share, 0–1, of patches that
        were out of date, with the lock if there was one, in the frame before this one."""
        self._wait = max(0, self._wait - 1)
        if not self.locked:
            return self._try(image, stale) if self._possible and self._wait == 0 else None
        if self._ends(stale):
            self.reset()
            return None
        moved = self._follow(image)
        if moved is None:  # lost: as good as at rest; what is stale will show
            moved = np.zeros(2)
        self._rested = self._rested + 1 if np.abs(moved).max() < _LEAST_PX else 0
        self._slid += moved
        steps = np.where(np.abs(self._slid) > self._reach, np.rint(self._slid / self._patch), 0).astype(int)
        self._slid -= steps * self._patch
        camera = (float(moved[0]), float(moved[1]))
        if not steps.any():
            return Slide(self._crop(), camera_px=camera)
        if (np.abs(steps) >= (self._grid[1], self._grid[0])).any():
            return Slide(self._crop(), entered=True)
        return Slide(self._crop(), False, *self._step(steps), (int(steps[0]), int(steps[1])), camera)

    def _try(self, image: Image, stale: float) -> Slide | None:
        if stale < _RESTLESS:
            self._key = None
            return None
        if self._key is None:
            self._take_key(image)
            return None
        moved = self._follow(image)
        if moved is None or np.abs(moved).max() < _LEAST_PX:
            self._key, self._wait = None, self._look_again
            self._look_again = min(2 * self._look_again, _LONGEST_LOOK)
            return None
        self.locked = True
        self._look_again = _LOOK_AGAIN
        return Slide(self._crop(), entered=True)

    def _ends(self, stale: float) -> bool:
        self._useless = self._useless + 1 if stale > _USELESS else 0
        if self._useless >= _PATIENCE:
            self._wait, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
            return True
        if stale < _USELESS / 2:
            self._pause = _FIRST_PAUSE
        return self._rested >= _RESTED

    def _follow(self, image: Image) -> NDArray[np.float64] | None:
        """Source pixels (x, y) by which content moved since the frame before; None when that can't be told."""
        grey = self._ops.analysis(image)
        scale = np.array([image.shape[1] / grey.shape[1], image.shape[0] / grey.shape[0]])
        found: Translation | None = None
        for guess in (self._since_key + self._velocity, self._since_key):
            other = self._ops.follow(self._key, grey, tuple(guess / scale))
            if other is not None and (found is None or other.agreement > found.agreement):
                found = other
            if found is not None and found.agreement >= _REKEY_AGREEMENT:
                break
        if found is None or found.agreement < _TRUSTED:
            self._velocity[:] = 0
            self._take_key(image)
            return None
        at = np.array([found.x, found.y]) * scale
        moved = at - self._since_key
        self._velocity, self._since_key = moved, at
        far = np.abs(at) > _REKEY_SHIFT * np.array([image.shape[1], image.shape[0]])
        if far.any() or found.agreement < _REKEY_AGREEMENT:
            self._take_key(image)
        return np.asarray(moved, np.float64)

    def _take_key(self, image: Image) -> None:
        self._key = self._ops.key(self._ops.analysis(image))
        self._since_key = np.zeros(2)

    def _crop(self) -> Crop:
        x, y = (self._corner + np.rint(self._slid).astype(int)).tolist()
        return x, y, x + int(self._size[0]), y + int(self._size[1])

    def _step(self, steps: NDArray[np.int64]) -> tuple[Slots, Mask]:
        """Slot `i` gets what was in slot `i − step`."""
        rows, cols = self._grid
        row, col = np.divmod(np.arange(rows * cols), cols)
        from_row, from_col = row - steps[1], col - steps[0]
        revealed = (from_row < 0) | (from_row >= rows) | (from_col < 0) | (from_col >= cols)
        source = np.where(revealed, row * cols + col, from_row * cols + from_col)
        return source, revealed
