"""Drawing: figures, shadows, rain and sensor noise on a backdrop, and the truth that follows from what was drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.scene.backdrop import Backdrop
from agent.capture.scene.figure import Shape, shapes
from agent.capture.scene.outline import Look, Pose
from agent.capture.scene.palette import tinted
from agent.capture.scene.truth import SceneObject

Image = NDArray[np.uint8]
Labels = NDArray[np.int16]
NO_OBJECT = -1
SHIFT = 4  # fractional bits of the coordinates handed to OpenCV


@dataclass(frozen=True, slots=True)
class Figure:
    """An individual in a picture: who, doing what, where, and its shapes in picture pixels."""

    id: int
    look: Look
    pose: Pose
    action: str
    shapes: tuple[Shape, ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        points = np.concatenate([s.points for s in self.shapes])
        x0, y0 = points.min(axis=0)
        x1, y1 = points.max(axis=0)
        return float(x0), float(y0), float(x1 - x0), float(y1 - y0)


def figure(id: int, look: Look, pose: Pose, action: str) -> Figure:
    """Work out a figure's shapes."""
    return Figure(id, look, pose, action, tuple(shapes(look, pose)))


def depth(f: Figure) -> tuple[float, int]:
    """Sort key, far to near: the lower on the picture, the nearer; ties by id."""
    return f.pose.y, f.id


def fixed_point(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.round(points * (1 << SHIFT)).astype(np.int32)


def draw_figures(image: Image, figures: list[Figure], light: Backdrop, offset: tuple[float, float]) -> None:
    """Draw into `image`; `offset` is where its corner lies in the backdrop, for the light at the figures' feet."""
    ordered = sorted(figures, key=depth)
    for f in ordered:
        _shadow(image, f, light.shadow)
    for f in ordered:
        gain = light.light_at(f.pose.x + offset[0], f.pose.y + offset[1])
        for s in f.shapes:
            colour = s.colour if s.glow else tinted(s.colour, gain)
            cv2.fillPoly(image, [fixed_point(s.points)], colour, cv2.LINE_AA, SHIFT)


def _shadow(image: Image, f: Figure, strength: float) -> None:
    x, _, w, _ = f.box
    y = f.pose.y
    rx, ry = w * 0.52, max(3.0, 0.07 * w)
    x0, x1 = max(0, int(x + w / 2 - rx) - 2), min(image.shape[1], int(x + w / 2 + rx) + 3)
    y0, y1 = max(0, int(y - ry) - 2), min(image.shape[0], int(y + ry) + 3)
    if x0 >= x1 or y0 >= y1:
        return
    mask = np.full((y1 - y0, x1 - x0, 3), 255, np.uint8)
    centre = (round((x + w / 2 - x0) * 16), round((y - y0) * 16))
    for share in (1.0, 0.8):  # two steps: a soft edge
        dark = 255 * (1 - strength * (0.6 if share == 1.0 else 1.0))
        cv2.ellipse(
            mask,
            centre,
            (round(rx * share * 16), round(ry * share * 16)),
            0,
            0,
            360,
            (dark,) * 3,
            -1,
            cv2.LINE_AA,
            SHIFT,
        )
    part = image[y0:y1, x0:x1]
    cv2.multiply(part, mask, dst=part, scale=1 / 255)


def measure(figures: list[Figure], width: int, height: int) -> tuple[tuple[SceneObject, ...], Labels]:
    """Truth of every figure and the label map int16 (height, width): object id per pixel, −1 where there is none."""
    labels = np.full((height, width), NO_OBJECT, np.int16)
    totals: dict[int, int] = {}
    for f in sorted(figures, key=depth):
        x, y, w, h = f.box
        left, top = int(np.floor(x)) - 1, int(np.floor(y)) - 1
        mask = np.zeros((int(h) + 5, int(w) + 5), np.uint8)
        shift = np.array([left, top], dtype=np.float64)
        for s in f.shapes:
            cv2.fillPoly(mask, [fixed_point(s.points - shift)], 1, cv2.LINE_8, SHIFT)
        totals[f.id] = int(np.count_nonzero(mask))
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(width, left + mask.shape[1]), min(height, top + mask.shape[0])
        if x0 < x1 and y0 < y1:
            labels[y0:y1, x0:x1][mask[y0 - top : y1 - top, x0 - left : x1 - left] > 0] = f.id
    seen = np.bincount((labels[labels >= 0]).ravel(), minlength=1)
    objects = []
    for f in sorted(figures, key=lambda f: f.id):
        count = int(seen[f.id]) if f.id < len(seen) else 0
        objects.append(SceneObject(f.id, f.look.kind, f.look.colour, f.action, f.box, count / max(1, totals[f.id])))
    return tuple(objects), labels


@lru_cache(maxsize=4)
def _noise(height: int, width: int, sigma: float) -> tuple[Image, Image]:
    """Fixed fields of what noise adds and takes away, larger than the picture by 96 px."""
    values = np.random.default_rng(72).normal(0, sigma, (height + 96, width + 96, 3))
    rounded = np.round(values)
    return np.clip(rounded, 0, 255).astype(np.uint8), np.clip(-rounded, 0, 255).astype(np.uint8)


def add_noise(image: Image, sigma: float, rng: np.random.Generator) -> None:
    """Sensor noise of `sigma` grey levels, in place; the generator chooses where in the fixed field to cut."""
    if sigma <= 0:
        return
    h, w = image.shape[:2]
    more, less = _noise(h, w, sigma)
    ya, xa, yb, xb = (int(v) for v in rng.integers(0, 96, 4))
    cv2.add(image, more[ya : ya + h, xa : xa + w], dst=image)
    cv2.subtract(image, less[yb : yb + h, xb : xb + w], dst=image)


@lru_cache(maxsize=4)
def _streaks(height: int, width: int) -> Image:
    """A fixed sheet of rain streaks, larger than the picture by 256 px each way."""
    rng = np.random.default_rng(73)
    sheet = np.zeros((height + 256, width + 256, 3), np.uint8)
    scale = height / 360
    for _ in range(int(900 * (sheet.size / (616 * 896 * 3)))):
        x, y = rng.uniform(0, sheet.shape[1]), rng.uniform(0, sheet.shape[0])
        length, tone = rng.uniform(9, 20) * scale, rng.uniform(16, 52)
        a, b = (round(x * 16), round(y * 16)), (round((x - length * 0.22) * 16), round((y + length) * 16))
        cv2.line(sheet, a, b, (tone * 0.94, tone * 0.97, tone), 1, cv2.LINE_AA, SHIFT)
    return sheet


def add_rain(image: Image, rng: np.random.Generator) -> None:
    """Rain streaks over the picture, in place."""
    h, w = image.shape[:2]
    y, x = (int(v) for v in rng.integers(0, 256, 2))
    cv2.add(image, _streaks(h, w)[y : y + h, x : x + w], dst=image)
