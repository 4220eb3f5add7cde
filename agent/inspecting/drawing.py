"""Pictures from arrays: heat maps over a frame, flow as colours, words. RGB throughout."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.preprocess import Placement

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]
Slots = NDArray[np.int64]
Size = tuple[int, int]
Colour = tuple[int, int, int]

PAPER: Colour = (24, 24, 27)
INK: Colour = (235, 235, 235)
DIM: Colour = (140, 140, 148)

_SCALE = 2  # words are drawn so many times larger, then averaged: OpenCV's letters are thin and jagged otherwise
_LETTER = 0.42
LINE_PX = 18
"""Height of a line of words."""


def fit(image: Picture, size: Size) -> tuple[Picture, Size]:
    """`image` (H, W, 3) reduced or enlarged to lie in `size` (width, height) with its shape kept, centred on paper, and
    the size that it has there."""
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out = blank(size)
    x, y = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    out[y : y + inner[1], x : x + inner[0]] = cv2.resize(image, inner, interpolation=way)
    return out, inner


def blank(size: Size) -> Picture:
    return np.full((size[1], size[0], 3), PAPER, np.uint8)


def slot_map(placement: Placement, grid: tuple[int, int], patch: int, size: Size) -> Slots:
    """For each pixel of a frame that was brought to `size` the slot that looks at it, int64 (h, w); -1 where none does:
    outside the crop."""

    def along(axis: int, cells: int) -> tuple[Slots, NDArray[np.bool_]]:
        source = (np.arange(size[axis]) + 0.5) * placement.frame_size[axis] / size[axis]
        place = (source * placement.scale[axis] + placement.offset[axis]) / patch
        inside = (source >= placement.crop[axis]) & (source < placement.crop[axis + 2]) & (place >= 0) & (place < cells)
        return np.clip(place, 0, cells - 1).astype(np.int64), inside

    (col, in_x), (row, in_y) = along(0, grid[1]), along(1, grid[0])
    return np.where(in_y[:, None] & in_x[None], row[:, None] * grid[1] + col[None], -1)


def heat(frame: Picture, slots: Slots, values: Floats, *, opacity: float = 0.75) -> Picture:
    """`values` (T,), 0–1, as colours from black through red and yellow to white over a grey `frame` (h, w, 3)."""
    levels = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    table = cv2.cvtColor(cv2.applyColorMap(levels[:, None], cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)[:, 0]
    return _over(grey(frame), slots, np.asarray(table, np.float32), np.full(len(values), opacity, np.float32))


def tint(frame: Picture, slots: Slots, colours: NDArray[np.uint8], opacity: Floats) -> Picture:
    """A colour (T, 3) for each token over `frame`, as thick as `opacity` (T,), 0–1, says."""
    return _over(frame, slots, colours.astype(np.float32), opacity)


def outline(picture: Picture, slots: Slots, chosen: NDArray[np.bool_], colour: Colour) -> None:
    """The border of the tokens `chosen` (T,), drawn into `picture` (h, w, 3)."""
    inside = np.append(chosen, False)[slots].astype(np.uint8)  # slot -1 is the last: outside
    borders, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, borders, -1, colour, 1)


def flow_colours(motion: Floats, full_px: float) -> Picture:
    """Motion (h, w, 2) as (x, y) pixels: the hue says whereto, as on `wheel`, the strength how far; `full_px` and more
    are full colour, nothing is white."""
    angle = np.degrees(np.arctan2(motion[..., 1], motion[..., 0])) % 360
    hsv = np.empty((*motion.shape[:2], 3), np.uint8)
    hsv[..., 0] = np.minimum(angle / 2, 179).astype(np.uint8)
    hsv[..., 1] = (np.clip(np.hypot(motion[..., 0], motion[..., 1]) / full_px, 0, 1) * 255).astype(np.uint8)
    hsv[..., 2] = 255
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def wheel(side: int) -> tuple[Picture, NDArray[np.bool_]]:
    """The key to `flow_colours`, (side, side, 3), and which of its pixels lie in the circle."""
    y, x = np.mgrid[:side, :side].astype(np.float32) - np.float32((side - 1) / 2)
    inside = np.hypot(x, y) <= side / 2
    return flow_colours(np.dstack([x, y]), side / 2), inside


def write(picture: Picture, text: str, at: tuple[int, int], colour: Colour = INK, size: float = _LETTER) -> int:
    """Words into `picture`; `at` is the left end of their base line. Returns where they end, x."""
    thick = 1 if size < 0.6 else 2
    (width, up), down = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size * _SCALE, thick * _SCALE)
    x, y = at
    top, left = max(0, y - up // _SCALE - 2), max(0, x)
    part = picture[top : y + down // _SCALE + 2, left : x + width // _SCALE + 2]
    end = x + width // _SCALE
    if not part.size:
        return end
    large = cv2.resize(part, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_NEAREST)
    origin = ((x - left) * _SCALE, (y - top) * _SCALE)
    cv2.putText(large, text, origin, cv2.FONT_HERSHEY_SIMPLEX, size * _SCALE, colour, thick * _SCALE, cv2.LINE_AA)
    part[...] = cv2.resize(large, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_AREA)
    return end


def captioned(picture: Picture, *lines: str) -> Picture:
    """`picture` with lines of words above it."""
    out = blank((picture.shape[1], picture.shape[0] + LINE_PX * len(lines) + 4))
    out[-picture.shape[0] :] = picture
    for index, line in enumerate(lines):
        write(out, line, (4, LINE_PX * (index + 1) - 3), INK if index == 0 else DIM)
    return out


def sheet(tiles: list[Picture], columns: int, title: str) -> Picture:
    """Pictures of one size in rows, below a title; the title alone where there are none."""
    gap, head = 8, 34
    if not tiles:
        tiles = [blank((640, 40))]
    columns = min(columns, len(tiles))
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    out = blank((max(640, columns * (width + gap) + gap), head + rows * (height + gap)))
    write(out, title, (gap, 23), INK, 0.55)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        y, x = head + row * (height + gap), gap + column * (width + gap)
        out[y : y + height, x : x + width] = tile
    return out


def _over(frame: Picture, slots: Slots, colours: Floats, opacity: Floats) -> Picture:
    """Slot -1, outside, is the last: nothing is laid over it."""
    share = np.append(opacity, np.float32(0))[slots][..., None]
    laid = np.concatenate([colours, np.zeros((1, 3), np.float32)])[slots]
    return np.asarray(frame + share * (laid - frame), np.uint8)


def grey(frame: Picture) -> Picture:
    """Without colour, (h, w, 3) still."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
