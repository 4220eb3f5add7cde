"""From a camera's picture to what the vision tower reads: geometry, resizing, normalised patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.manifest import Manifest

Box = tuple[float, float, float, float]
Faster = Callable[[NDArray[np.uint8], NDArray[np.uint8]], bool]


class OnDevice(Protocol):
    """What stands under a picture that a GPU makes. there: whether the frame it shows is still on the device."""

    @property
    def there(self) -> bool: ...

    def settle(self) -> None:
        """Wait until the host may read the picture."""
        ...

    def gather(
        self,
        slots: int,
        fine: int,
        coarse: int,
        out: int,
        stream: Any,
        *,
        patch: int,
        cols: int,
        scale: tuple[float, float, float],
        shift: tuple[float, float, float],
        half: bool = False,
    ) -> None:
        """Queue on `stream`: normalised patches, float32 or with `half` float16 (fine + coarse, 3·p·p), to the device
        address `out`, as `Preprocessor.patches` and `coarse_patches` make them. slots: address of int32 (fine +
        coarse,): slots of fine tokens, then first slots of cells; of −1 comes a row of zeros. Raises EngineFault."""
        ...


def on_device(picture: NDArray[np.uint8]) -> OnDevice | None:
    """What a GPU knows of a picture, None where it knows nothing."""
    found: OnDevice | None = getattr(picture.base, "on_device", None)
    return found


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame lies in the model's square picture: picture = scale · source + offset, per axis.

    Coordinates are continuous: a pixel covers [i, i + 1). `crop` is the part (x0, y0, x1, y1) of the frame shown,
    `seen` the part (x0, y0, x1, y1) of the picture that shows it: everything but a letterbox's padding.
    """

    frame_size: tuple[int, int]
    image_size: int
    scale: tuple[float, float]
    offset: tuple[float, float]
    crop: tuple[int, int, int, int]
    seen: tuple[int, int, int, int]

    @classmethod
    def of(cls, resize: str, frame_size: tuple[int, int], image_size: int) -> Placement:
        """The placement of a frame (width, height) under `resize`: `stretch` fills the square and ignores the aspect,
        `letterbox` fits the whole frame and centres it, `crop` shows the centred square."""
        width, height = frame_size
        crop, seen = (0, 0, width, height), (0, 0, image_size, image_size)
        if resize == "letterbox":
            fit = image_size / max(width, height)
            w, h = max(1, round(width * fit)), max(1, round(height * fit))
            x, y = (image_size - w) // 2, (image_size - h) // 2
            seen = (x, y, x + w, y + h)
        elif resize == "crop":
            side = min(width, height)
            x, y = (width - side) // 2, (height - side) // 2
            crop = (x, y, x + side, y + side)
        scale_x = (seen[2] - seen[0]) / (crop[2] - crop[0])
        scale_y = (seen[3] - seen[1]) / (crop[3] - crop[1])
        offset = (seen[0] - scale_x * crop[0], seen[1] - scale_y * crop[1])
        return cls(frame_size, image_size, (scale_x, scale_y), offset, crop, seen)

    def slid(self, crop: tuple[int, int, int, int]) -> Placement:
        """The same part of the picture showing another part (x0, y0, x1, y1) of the frame."""
        scale_x = (self.seen[2] - self.seen[0]) / (crop[2] - crop[0])
        scale_y = (self.seen[3] - self.seen[1]) / (crop[3] - crop[1])
        offset = (self.seen[0] - scale_x * crop[0], self.seen[1] - scale_y * crop[1])
        return replace(self, scale=(scale_x, scale_y), offset=offset, crop=crop)

    def to_picture(self, box: Box) -> Box:
        """A box [x, y, w, h] of the source in the picture; not clipped."""
        x, y, w, h = box
        (sx, sy), (ox, oy) = self.scale, self.offset
        return x * sx + ox, y * sy + oy, w * sx, h * sy

    def to_source(self, box: Box) -> Box:
        """A box [x, y, w, h] of the picture in the source: the inverse of `to_picture`; not clipped."""
        x, y, w, h = box
        (sx, sy), (ox, oy) = self.scale, self.offset
        return (x - ox) / sx, (y - oy) / sy, w / sx, h / sy

    def valid(self, patch_size: int) -> NDArray[np.bool_]:
        """Which tokens see picture, (T,), row-major: those with at least one pixel outside a letterbox's padding."""
        first = np.arange(0, self.image_size - patch_size + 1, patch_size)
        columns = (first < self.seen[2]) & (first + patch_size > self.seen[0])
        rows = (first < self.seen[3]) & (first + patch_size > self.seen[1])
        return (rows[:, None] & columns[None, :]).ravel()


class Preprocessor:
    """The picture and the patches of one model. Keeps no state between frames but the last placement.

    faster: does what `shrink` does, with the same bytes, or returns False and is not used for that size."""

    def __init__(self, manifest: Manifest, faster: Faster | None = None) -> None:
        self._faster = faster
        self.image_size = manifest.image_size
        self.patch_size = manifest.patch_size
        self.resize = manifest.resize
        self._side = manifest.grid[0]
        mean, std = np.array(manifest.mean, np.float64), np.array(manifest.std, np.float64)
        self._padding = np.rint(mean * 255).clip(0, 255).astype(np.uint8)
        self._scale = (1 / (255 * std)).astype(np.float32)[:, None, None]
        self._shift = (-mean / std).astype(np.float32)[:, None, None]
        self._placement: Placement | None = None

    @property
    def padding(self) -> tuple[int, int, int]:
        """RGB around a letterbox."""
        red, green, blue = self._padding.tolist()
        return red, green, blue

    @property
    def scale(self) -> tuple[float, float, float]:
        """Per channel: normalised = scale · pixel + shift."""
        red, green, blue = self._scale.ravel().tolist()
        return red, green, blue

    @property
    def shift(self) -> tuple[float, float, float]:
        red, green, blue = self._shift.ravel().tolist()
        return red, green, blue

    def placement(self, frame_size: tuple[int, int]) -> Placement:
        """Where a frame (width, height) lies in the picture."""
        if self._placement is None or self._placement.frame_size != frame_size:
            self._placement = Placement.of(self.resize, frame_size, self.image_size)
        return self._placement

    def picture(
        self,
        image: NDArray[np.uint8],
        out: NDArray[np.uint8] | None = None,
        crop: tuple[int, int, int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """The model image, uint8 (S, S, 3), of a frame uint8 (H, W, 3), or of its part `crop` (x0, y0, x1, y1) in place
        of the part that the placement shows; written to `out` where one is given.

        Each axis is halved while it is at least twice too long, then both are interpolated. Exact halving by
        interpolation is the mean of two pixels, so this is a box filter; it lies 40–55 dB from cv2.INTER_AREA on real
        clips, and takes 0.3–0.5 ms at 640×360 and 0.6–0.8 ms at 720p where INTER_AREA takes 1.2–1.7 and 3.5–5.
        """
        size = self.image_size
        if out is None:
            out = np.empty((size, size, 3), np.uint8)
        place = self.placement((int(image.shape[1]), int(image.shape[0])))
        x0, y0, x1, y1 = crop or place.crop
        left, top, right, bottom = place.seen
        inside = out[top:bottom, left:right]
        if inside.shape != out.shape:
            out[:] = self._padding
        part = image[y0:y1, x0:x1]
        if self._faster is None or not self._faster(part, inside):
            shrink(part, inside)
        return out

    def patches(
        self, picture: NDArray[np.uint8], slots: NDArray[np.int64] | None = None, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Normalised patches float32 (n, 3·p·p) of the slots (n,), or of all T; elements in the order (channel, y, x),
        as the weight of the patch-embedding convolution flattens. Written to `out` (n or more rows) where given."""
        _settle(picture)
        p, side = self.patch_size, self._side
        cut = picture[: side * p, : side * p].reshape(side, p, side, p, 3)
        if slots is None:
            chosen = cut.transpose(0, 2, 4, 1, 3).reshape(-1, 3, p, p)
        else:
            rows, columns = np.divmod(slots, side)
            chosen = cut[rows, :, columns].transpose(0, 3, 1, 2)
        n = len(chosen)
        if out is None:
            out = np.empty((n, 3 * p * p), np.float32)
        rows_out = out[:n]
        planes = rows_out.reshape(n, 3, p, p)
        np.multiply(chosen, self._scale, out=planes)
        planes += self._shift
        return rows_out

    def coarse_patches(
        self, picture: NDArray[np.uint8], cells: NDArray[np.int64], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Normalised patches float32 (m, 3·p·p) of 2×2 cells (m,) given by their first slots: 2p×2p pixels at half
        resolution, each pixel the mean of four. Written to `out` (m or more rows) where given."""
        _settle(picture)
        p, side = self.patch_size, self._side
        cut = picture[: side * p, : side * p].reshape(side, p, side, p, 3)
        rows, columns = np.divmod(cells, side)
        m = len(cells)
        area = np.empty((m, 2, p, 2, p, 3), np.uint8)
        for y, x in np.ndindex(2, 2):
            area[:, y, :, x] = cut[rows + y, :, columns + x]
        sums = area.reshape(m, p, 2, p, 2, 3).sum(axis=(2, 4), dtype=np.uint16).transpose(0, 3, 1, 2)
        rows_out = np.empty((m, 3 * p * p), np.float32) if out is None else out[:m]
        planes = rows_out.reshape(m, 3, p, p)
        np.multiply(sums, self._scale / 4, out=planes)
        planes += self._shift
        return rows_out


def _settle(picture: NDArray[np.uint8]) -> None:
    device = on_device(picture)
    if device is not None:
        device.settle()


def shrink(image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Antialiased resize of uint8 (H, W, 3) into `out`."""
    height, width = out.shape[:2]
    h, w = image.shape[:2]
    while w >= 2 * width or h >= 2 * height:
        w = (w + 1) // 2 if w >= 2 * width else w
        h = (h + 1) // 2 if h >= 2 * height else h
        image = np.asarray(cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR), np.uint8)
    cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
