"""A canvas for backdrops, in units (360 to the picture's height), and what several places have: walls, windows, trees.

Colours are muted and a little different each time, so that nothing in a backdrop has a figure's colour.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.scene.palette import RGB, shade

Image = NDArray[np.uint8]
Lamp = tuple[float, float, float]
"""Where a lamp's pool of light lies: x, y, radius in units."""


class Canvas:
    """Drawing in units on a uint8 picture."""

    def __init__(self, width: int, height: int) -> None:
        self.scale = height / 360.0
        self.width = width / self.scale
        self.image: Image = np.full((height, width, 3), 118, np.uint8)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: RGB) -> None:
        s = self.scale
        cv2.rectangle(self.image, (round(x0 * s), round(y0 * s)), (round(x1 * s) - 1, round(y1 * s) - 1), colour, -1)

    def poly(self, points: list[tuple[float, float]], colour: RGB) -> None:
        fixed = np.round(np.array(points) * (self.scale * 16)).astype(np.int32)
        cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, 4)

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: RGB, width: float = 1.0) -> None:
        s = self.scale
        ends = (round(x0 * s * 16), round(y0 * s * 16)), (round(x1 * s * 16), round(y1 * s * 16))
        cv2.line(self.image, *ends, colour, max(1, round(width * s)), cv2.LINE_AA, 4)

    def blob(self, x: float, y: float, rx: float, ry: float, colour: RGB) -> None:
        s = self.scale * 16
        centre, axes = (round(x * s), round(y * s)), (round(rx * s), round(ry * s))
        cv2.ellipse(self.image, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, 4)


def muted(rng: np.random.Generator, *choices: RGB) -> RGB:
    """One of the colours, a little off and a little lighter or darker."""
    base = choices[int(rng.integers(len(choices)))]
    off = rng.uniform(-8, 8, 3)
    return shade(
        (base[0] + float(off[0]), base[1] + float(off[1]), base[2] + float(off[2])), float(rng.uniform(0.88, 1.1))
    )


def window(c: Canvas, rng: np.random.Generator, x: float, y: float, w: float, h: float, light: str) -> None:
    frame = muted(rng, (160, 156, 148), (112, 106, 98), (140, 132, 120))
    lit = light != "day" and rng.random() < 0.4
    pane: RGB = (214, 190, 140) if lit else muted(rng, (88, 100, 112), (108, 120, 130), (74, 80, 90))
    if lit and light == "night":
        pane = (255, 236, 180)
    c.rect(x - 2, y - 2, x + w + 2, y + h + 2, frame)
    c.rect(x, y, x + w, y + h, pane)
    if rng.random() < 0.6:
        c.rect(x + w / 2 - 1, y, x + w / 2 + 1, y + h, frame)
    if rng.random() < 0.5:
        c.rect(x, y + h * 0.45, x + w, y + h * 0.45 + 2, frame)
    c.rect(x - 3, y + h + 2, x + w + 3, y + h + 5, shade(frame, 0.8))


def tree(c: Canvas, rng: np.random.Generator, x: float, foot: float, size: float) -> None:
    trunk = muted(rng, (92, 76, 60), (110, 98, 82))
    leaf = muted(rng, (104, 118, 84), (122, 130, 98), (94, 104, 82), (134, 124, 92))
    c.poly(
        [
            (x - size * 0.06, foot),
            (x + size * 0.06, foot),
            (x + size * 0.035, foot - size),
            (x - size * 0.035, foot - size),
        ],
        trunk,
    )
    for _ in range(9):
        dx, dy = rng.uniform(-0.34, 0.34), rng.uniform(0.62, 1.25)
        r = float(rng.uniform(0.14, 0.26)) * size
        c.blob(x + float(dx) * size, foot - float(dy) * size, r, r * 0.85, shade(leaf, float(rng.uniform(0.82, 1.12))))


def bush(c: Canvas, rng: np.random.Generator, x: float, foot: float, size: float) -> None:
    leaf = muted(rng, (108, 120, 88), (96, 108, 84))
    for _ in range(6):
        dx = float(rng.uniform(-0.5, 0.5)) * size
        r = float(rng.uniform(0.2, 0.34)) * size
        c.blob(x + dx, foot - r * 0.8, r, r * 0.85, shade(leaf, float(rng.uniform(0.85, 1.12))))


def wall(c: Canvas, rng: np.random.Generator, x0: float, y0: float, x1: float, y1: float, light: str) -> None:
    """A façade: plaster or courses of brick, windows in rows, maybe a door."""
    tone = muted(
        rng, (158, 148, 134), (138, 128, 118), (150, 130, 116), (126, 126, 126), (168, 162, 150), (134, 122, 104)
    )
    c.rect(x0, y0, x1, y1, tone)
    if rng.random() < 0.45:
        for y in np.arange(y0 + 6, y1, 6.0):
            c.line(x0, float(y), x1, float(y), shade(tone, 0.92))
    c.rect(x0, y0, x1, y0 + 5, shade(tone, 0.75))
    c.rect(x1 - 2, y0, x1, y1, shade(tone, 0.7))
    step, w, h = float(rng.uniform(34, 58)), float(rng.uniform(16, 26)), float(rng.uniform(22, 34))
    for x in np.arange(x0 + 12, x1 - w - 6, step):
        for y in np.arange(y0 + 16, y1 - h - 16, h + float(rng.uniform(18, 26))):
            window(c, rng, float(x), float(y), w, h, light)
    if x1 - x0 > 60 and rng.random() < 0.8:
        x = float(rng.uniform(x0 + 10, x1 - 40))
        door = muted(rng, (98, 78, 62), (84, 90, 88), (112, 96, 80))
        c.rect(x - 3, y1 - 58, x + 29, y1, shade(tone, 0.7))
        c.rect(x, y1 - 55, x + 26, y1, door)
        c.rect(x + 4, y1 - 50, x + 22, y1 - 30, shade(door, 0.8))
        c.blob(x + 22, y1 - 25, 1.6, 1.6, (168, 160, 130))


def sky(c: Canvas, rng: np.random.Generator, light: str, low: float) -> None:
    tone = {"day": (188, 196, 202), "dusk": (196, 174, 168), "night": (92, 92, 112)}[light]
    c.rect(0, 0, c.width, low, muted(rng, tone))
    for _ in range(5):
        x, y = float(rng.uniform(0, c.width)), float(rng.uniform(0, low * 0.7))
        c.blob(x, y, float(rng.uniform(30, 90)), float(rng.uniform(4, 12)), shade(tone, 1.05))
