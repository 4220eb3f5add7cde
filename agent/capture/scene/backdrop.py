"""The still part of a place: a procedural picture under a light, another one for every seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import exp

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.scene.canvas import Canvas, Image, Lamp
from agent.capture.scene.office import office
from agent.capture.scene.palette import LIGHTING, RGB, tinted, toward
from agent.capture.scene.street import street
from agent.capture.scene.truth import WALKWAY
from agent.capture.scene.walkway import walkway
from agent.capture.scene.yard import yard

_PAINTERS: dict[str, Callable[[Canvas, np.random.Generator, str], list[Lamp]]] = {
    "street": street,
    "yard": yard,
    "office": office,
    WALKWAY: walkway,
}


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A painted place: uint8 RGB picture as lit, the gain of figures in it, lamp pools (x, y, radius in px)."""

    image: Image
    figure: RGB
    shadow: float
    pools: tuple[tuple[float, float, float], ...]

    def light_at(self, x: float, y: float) -> RGB:
        """Gain of a figure's colours whose feet are at (x, y) px."""
        near = sum(exp(-(((x - px) / r) ** 2) - (((y - py) / (0.6 * r)) ** 2)) for px, py, r in self.pools)
        lift = 0.32 * min(1.0, near)
        return tinted(self.figure, (1 + lift * 1.1, 1 + lift, 1 + lift * 0.6))


def paint(
    place: str,
    light: str,
    rng: np.random.Generator,
    width: int,
    height: int,
    exposure: tuple[float, float] = (0.92, 1.04),
) -> Backdrop:
    """Paint a place of the given size in pixels; the gain of the whole picture is drawn from `exposure`."""
    canvas = Canvas(width, height)
    lamps = _PAINTERS[place](canvas, rng, light)
    image = _textured(canvas.image, rng)
    given = LIGHTING[light]
    ground, figure = given.ground, given.figure
    if place == "office":  # lamps indoors: evening changes less
        ground, figure = toward(ground, (0.8, 0.78, 0.72), 0.45), toward(figure, (0.92, 0.9, 0.86), 0.5)
        if light == "day":
            ground, figure = (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)
    gain = float(rng.uniform(*exposure))
    image = _lit(image, shade_gain(ground, gain), lamps if light == "night" else [], canvas.scale)
    pools = (
        tuple((x * canvas.scale, y * canvas.scale, r * canvas.scale) for x, y, r in lamps) if light == "night" else ()
    )
    return Backdrop(image, shade_gain(figure, gain), given.shadow * (0.6 if place == "office" else 1.0), pools)


def shade_gain(gain: RGB, by: float) -> RGB:
    """A gain scaled by a number."""
    return gain[0] * by, gain[1] * by, gain[2] * by


@lru_cache(maxsize=4)
def grain(height: int, width: int) -> NDArray[np.float32]:
    """One fixed field of fine noise (height, width), unit variance: cut at random places it serves every backdrop."""
    return np.random.default_rng(71).standard_normal((height, width), dtype=np.float32)


def _textured(image: Image, rng: np.random.Generator) -> Image:
    """Mottling at three scales and fine grain, stronger towards the ground."""
    h, w = image.shape[:2]
    total = np.zeros((h, w), np.float32)
    for cells, amplitude in ((5, 5.0), (22, 4.0), (80, 2.5)):
        small = rng.standard_normal((cells, cells * 2), dtype=np.float32) * amplitude
        total += cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)
    y, x = int(rng.integers(64)), int(rng.integers(64))
    rise = np.linspace(1.0, float(rng.uniform(3.0, 6.5)), h, dtype=np.float32)[:, None]
    total += grain(h + 64, w + 64)[y : y + h, x : x + w] * rise
    return np.asarray(cv2.add(image, cv2.merge([total, total, total]), dtype=cv2.CV_8U), dtype=np.uint8)


def _lit(image: Image, gain: RGB, lamps: list[Lamp], scale: float) -> Image:
    if not lamps:
        return np.asarray(cv2.multiply(image, np.array((*gain, 1.0))), dtype=np.uint8)
    h, w = image.shape[:2]
    ys, xs = np.mgrid[0:h:8, 0:w:8].astype(np.float32) / np.float32(scale)
    near = np.zeros_like(xs)
    for x, y, r in lamps:
        near += np.exp(-(((xs - x) / r) ** 2) - ((ys - y) / (0.6 * r)) ** 2)
    near = np.minimum(near, 1.0)
    field = np.stack([near * 0.42 * 0.95 + gain[0], near * 0.38 * 0.95 + gain[1], near * 0.2 + gain[2]], axis=-1)
    field = np.clip(field * 128, 0, 255).astype(np.uint8)
    return np.asarray(cv2.multiply(image, cv2.resize(field, (w, h)), scale=1 / 128), dtype=np.uint8)
