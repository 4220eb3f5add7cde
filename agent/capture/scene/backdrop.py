"""The still part of a place: procedural pictures of a street, a yard and an office, in muted colours, other ones for every seed.

Coordinates inside are units: 360 to the picture's height, so a backdrop is the same at every size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import exp

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.scene.palette import LIGHTING, RGB, shade, tinted, toward

Image = NDArray[np.uint8]
Band = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Ground:
    """Where things can be: bands of ground line (top, bottom) to walk on, lines to drive on and to park on, in units."""

    walk: tuple[Band, ...]
    drive: tuple[float, ...]
    park: tuple[float, ...]


GROUNDS: dict[str, Ground] = {
    "street": Ground(((194, 209), (314, 352)), (246, 282), (222, 305)),
    "yard": Ground(((198, 214), (284, 352)), (256,), (234,)),
    "office": Ground(((222, 256), (286, 352)), (), ()),
}


@dataclass(frozen=True, slots=True)
class Backdrop:
    """A painted place: uint8 RGB picture as lit, the gain that light gives to figures, lamp pools (x, y, radius in px)."""

    image: Image
    figure: RGB
    shadow: float
    pools: tuple[tuple[float, float, float], ...]

    def light_at(self, x: float, y: float) -> RGB:
        """Gain of a figure's colours whose feet are at (x, y) px."""
        near = sum(exp(-(((x - px) / r) ** 2) - (((y - py) / (0.6 * r)) ** 2)) for px, py, r in self.pools)
        lift = 0.32 * min(1.0, near)
        return tinted(self.figure, (1 + lift * 1.1, 1 + lift, 1 + lift * 0.6))


class _Canvas:
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


def paint(
    place: str, light: str, rng: np.random.Generator, width: int, height: int, exposure: Band = (0.92, 1.04)
) -> Backdrop:
    """Paint a place of the given size in pixels; the gain of the whole picture is drawn from `exposure`."""
    canvas = _Canvas(width, height)
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


def _lit(image: Image, gain: RGB, lamps: list[tuple[float, float, float]], scale: float) -> Image:
    if not lamps:
        return np.asarray(cv2.multiply(image, (*gain, 1.0)), dtype=np.uint8)
    h, w = image.shape[:2]
    ys, xs = np.mgrid[0:h:8, 0:w:8].astype(np.float32) / np.float32(scale)
    near = np.zeros_like(xs)
    for x, y, r in lamps:
        near += np.exp(-(((xs - x) / r) ** 2) - ((ys - y) / (0.6 * r)) ** 2)
    near = np.minimum(near, 1.0)
    field = np.stack([near * 0.42 * 0.95 + gain[0], near * 0.38 * 0.95 + gain[1], near * 0.2 + gain[2]], axis=-1)
    field = np.clip(field * 128, 0, 255).astype(np.uint8)
    return np.asarray(cv2.multiply(image, cv2.resize(field, (w, h)), scale=1 / 128), dtype=np.uint8)


def _muted(rng: np.random.Generator, *choices: RGB) -> RGB:
    """One of the colours, a little off and a little lighter or darker."""
    base = choices[int(rng.integers(len(choices)))]
    off = rng.uniform(-8, 8, 3)
    return shade(
        (base[0] + float(off[0]), base[1] + float(off[1]), base[2] + float(off[2])), float(rng.uniform(0.88, 1.1))
    )


def _window(c: _Canvas, rng: np.random.Generator, x: float, y: float, w: float, h: float, light: str) -> None:
    frame = _muted(rng, (160, 156, 148), (112, 106, 98), (140, 132, 120))
    lit = light != "day" and rng.random() < 0.4
    pane: RGB = (214, 190, 140) if lit else _muted(rng, (88, 100, 112), (108, 120, 130), (74, 80, 90))
    if lit and light == "night":
        pane = (255, 236, 180)
    c.rect(x - 2, y - 2, x + w + 2, y + h + 2, frame)
    c.rect(x, y, x + w, y + h, pane)
    if rng.random() < 0.6:
        c.rect(x + w / 2 - 1, y, x + w / 2 + 1, y + h, frame)
    if rng.random() < 0.5:
        c.rect(x, y + h * 0.45, x + w, y + h * 0.45 + 2, frame)
    c.rect(x - 3, y + h + 2, x + w + 3, y + h + 5, shade(frame, 0.8))


def _tree(c: _Canvas, rng: np.random.Generator, x: float, foot: float, size: float) -> None:
    trunk = _muted(rng, (92, 76, 60), (110, 98, 82))
    leaf = _muted(rng, (104, 118, 84), (122, 130, 98), (94, 104, 82), (134, 124, 92))
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


def _bush(c: _Canvas, rng: np.random.Generator, x: float, foot: float, size: float) -> None:
    leaf = _muted(rng, (108, 120, 88), (96, 108, 84))
    for _ in range(6):
        dx = float(rng.uniform(-0.5, 0.5)) * size
        r = float(rng.uniform(0.2, 0.34)) * size
        c.blob(x + dx, foot - r * 0.8, r, r * 0.85, shade(leaf, float(rng.uniform(0.85, 1.12))))


def _wall(c: _Canvas, rng: np.random.Generator, x0: float, y0: float, x1: float, y1: float, light: str) -> None:
    """A façade: plaster or courses of brick, windows in rows, maybe a door."""
    tone = _muted(
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
            _window(c, rng, float(x), float(y), w, h, light)
    if x1 - x0 > 60 and rng.random() < 0.8:
        x = float(rng.uniform(x0 + 10, x1 - 40))
        door = _muted(rng, (98, 78, 62), (84, 90, 88), (112, 96, 80))
        c.rect(x - 3, y1 - 58, x + 29, y1, shade(tone, 0.7))
        c.rect(x, y1 - 55, x + 26, y1, door)
        c.rect(x + 4, y1 - 50, x + 22, y1 - 30, shade(door, 0.8))
        c.blob(x + 22, y1 - 25, 1.6, 1.6, (168, 160, 130))


def _sky(c: _Canvas, rng: np.random.Generator, light: str, low: float) -> None:
    tone = {"day": (188, 196, 202), "dusk": (196, 174, 168), "night": (92, 92, 112)}[light]
    c.rect(0, 0, c.width, low, _muted(rng, tone))
    for _ in range(5):
        x, y = float(rng.uniform(0, c.width)), float(rng.uniform(0, low * 0.7))
        c.blob(x, y, float(rng.uniform(30, 90)), float(rng.uniform(4, 12)), shade(tone, 1.05))


def _street(c: _Canvas, rng: np.random.Generator, light: str) -> list[tuple[float, float, float]]:
    foot = 182.0
    _sky(c, rng, light, 120)
    c.rect(0, 90, c.width, foot, _muted(rng, (122, 118, 112), (134, 132, 126)))
    x = -float(rng.uniform(0, 60))
    while x < c.width:
        w = float(rng.uniform(90, 190))
        _wall(c, rng, x, float(rng.uniform(8, 70)), min(x + w, c.width + 5), foot, light)
        x += w + (float(rng.uniform(20, 50)) if rng.random() < 0.2 else 0)
    paving, asphalt = (
        _muted(rng, (146, 142, 136), (132, 130, 128), (150, 142, 130)),
        _muted(rng, (92, 92, 95), (80, 80, 84), (104, 102, 100)),
    )
    c.rect(0, foot, c.width, 214, paving)
    for x in np.arange(float(rng.uniform(0, 20)), c.width, 26.0):
        c.line(float(x), foot, float(x) - 8, 212, shade(paving, 0.9))
    c.rect(0, 212, c.width, 217, shade(paving, 0.78))
    c.rect(0, 217, c.width, 308, asphalt)
    for x in np.arange(-float(rng.uniform(0, 50)), c.width, 70.0):
        c.poly(
            [(float(x), 259), (float(x) + 34, 259), (float(x) + 33, 262), (float(x) - 2, 262)],
            toward(asphalt, (196, 194, 186), 0.7),
        )
    for _ in range(6):
        c.blob(
            float(rng.uniform(0, c.width)),
            float(rng.uniform(222, 302)),
            float(rng.uniform(10, 46)),
            float(rng.uniform(2, 6)),
            shade(asphalt, float(rng.uniform(0.86, 1.1))),
        )
    c.rect(0, 306, c.width, 312, shade(paving, 0.8))
    c.rect(0, 312, c.width, 360, paving)
    for x in np.arange(float(rng.uniform(0, 40)), c.width + 30, 48.0):
        c.line(float(x), 312, float(x) - 22, 360, shade(paving, 0.88))
    c.line(0, 334, c.width, 334, shade(paving, 0.9))
    for _ in range(int(rng.integers(1, 4))):
        _tree(c, rng, float(rng.uniform(10, c.width)), 188, float(rng.uniform(70, 120)))
    if rng.random() < 0.7:  # a litter bin and a bench: clutter that is none of the kinds
        x = float(rng.uniform(20, c.width - 60))
        c.rect(x, 168, x + 13, 190, _muted(rng, (90, 94, 92)))
        c.rect(x - 1, 166, x + 14, 170, (74, 76, 76))
    if rng.random() < 0.6:
        x = float(rng.uniform(20, c.width - 80))
        wood = _muted(rng, (120, 98, 74))
        c.rect(x, 172, x + 48, 176, wood)
        c.rect(x, 164, x + 48, 168, wood)
        c.rect(x + 4, 176, x + 7, 186, (70, 70, 70))
        c.rect(x + 41, 176, x + 44, 186, (70, 70, 70))
    lamps = []
    for x in np.arange(float(rng.uniform(40, 200)), c.width, float(rng.uniform(220, 330))):
        pole = (86, 88, 90)
        c.rect(float(x) - 2, 62, float(x) + 2, 205, pole)
        c.line(float(x), 63, float(x) + 24, 58, pole, 3)
        c.blob(float(x) + 26, 60, 8, 3.5, (255, 250, 220) if light != "day" else (190, 188, 180))
        lamps.append((float(x) + 24, 225.0, float(rng.uniform(90, 130))))
    return lamps


def _yard(c: _Canvas, rng: np.random.Generator, light: str) -> list[tuple[float, float, float]]:
    foot = 176.0
    _sky(c, rng, light, 130)
    c.rect(0, 110, c.width, foot, _muted(rng, (112, 114, 100), (100, 104, 94)))
    for _ in range(3):
        _tree(c, rng, float(rng.uniform(0, c.width)), 160, float(rng.uniform(70, 120)))
    x0 = float(rng.uniform(-40, c.width * 0.5))
    span = float(rng.uniform(180, 320))
    roof = _muted(rng, (128, 104, 92), (104, 100, 100), (120, 112, 100))
    eaves = float(rng.uniform(54, 84))
    c.poly([(x0 - 14, eaves), (x0 + 24, eaves - 48), (x0 + span - 24, eaves - 48), (x0 + span + 14, eaves)], roof)
    _wall(c, rng, x0, eaves, x0 + span, foot, light)
    plank = _muted(rng, (134, 116, 94), (116, 108, 98), (146, 134, 116))
    for a, b in ((0.0, x0 - 4), (x0 + span + 4, c.width)):
        for x in np.arange(a, b, 11.0):
            c.rect(float(x), 118, min(float(x) + 9, b), foot, shade(plank, float(rng.uniform(0.92, 1.06))))
        if b > a:
            c.rect(a, 128, b, 132, shade(plank, 0.8))
    lawn, drive = (
        _muted(rng, (132, 144, 104), (120, 132, 98), (146, 146, 112)),
        _muted(rng, (142, 136, 126), (118, 116, 112), (150, 140, 124)),
    )
    c.rect(0, foot, c.width, 360, lawn)
    for _ in range(14):
        c.blob(
            float(rng.uniform(0, c.width)),
            float(rng.uniform(184, 356)),
            float(rng.uniform(20, 70)),
            float(rng.uniform(3, 9)),
            shade(lawn, float(rng.uniform(0.93, 1.06))),
        )
    c.poly([(0, 220), (c.width, 220), (c.width, 268), (0, 268)], drive)
    c.rect(0, 219, c.width, 222, shade(drive, 0.82))
    c.rect(0, 266, c.width, 269, shade(drive, 0.8))
    for _ in range(int(rng.integers(2, 6))):
        _bush(c, rng, float(rng.uniform(0, c.width)), foot + 6, float(rng.uniform(22, 40)))
    if rng.random() < 0.6:  # garden table
        x, y = float(rng.uniform(30, c.width - 90)), 196.0
        wood = _muted(rng, (124, 104, 82))
        c.rect(x, y - 22, x + 56, y - 18, wood)
        c.line(x + 6, y - 18, x + 2, y, shade(wood, 0.75), 3)
        c.line(x + 50, y - 18, x + 54, y, shade(wood, 0.75), 3)
    if rng.random() < 0.6:  # flower pots
        for i in range(3):
            x = float(rng.uniform(10, c.width - 20)) if i == 0 else x + 18
            c.poly([(x, 178), (x + 12, 178), (x + 10, 192), (x + 2, 192)], _muted(rng, (140, 110, 90)))
            c.blob(x + 6, 174, 8, 6, _muted(rng, (112, 124, 92)))
    lamps = []
    for x in (x0 + span * 0.3, x0 + span + 120):
        c.blob(x, 100, 4, 5, (255, 250, 220) if light != "day" else (180, 178, 170))
        lamps.append((x, 230.0, float(rng.uniform(110, 150))))
    return lamps


def _office(c: _Canvas, rng: np.random.Generator, light: str) -> list[tuple[float, float, float]]:
    foot = 188.0
    wall = _muted(rng, (174, 172, 166), (164, 160, 150), (154, 158, 158), (178, 168, 154))
    floor = _muted(rng, (136, 130, 122), (118, 116, 114), (148, 136, 120), (124, 128, 126))
    c.rect(0, 0, c.width, foot, wall)
    c.rect(0, 0, c.width, 16, shade(wall, 1.12))
    for x in np.arange(float(rng.uniform(0, 60)), c.width, 150.0):
        c.rect(float(x), 6, float(x) + 64, 12, (232, 230, 222))
    c.rect(0, foot - 8, c.width, foot, shade(wall, 0.72))
    c.rect(0, foot, c.width, 360, floor)
    vanish = c.width / 2
    for x in np.arange(-c.width, 2 * c.width, 46.0):
        c.line(
            vanish + (float(x) - vanish) * 0.72,
            foot,
            float(x) * 1.0 + (float(x) - vanish) * 0.5,
            360,
            shade(floor, 0.92),
        )
    y, step = foot, 10.0
    while y < 360:
        c.line(0, y, c.width, y, shade(floor, 0.92))
        y, step = y + step, step * 1.3
    x = float(rng.uniform(5, 40))
    while x < c.width - 40:
        pick = rng.random()
        if pick < 0.3:  # window with a blind
            w = float(rng.uniform(60, 100))
            _window(c, rng, x, 40, w, 80, light)
            for yy in np.arange(42, 42 + float(rng.uniform(10, 50)), 5.0):
                c.rect(x, float(yy), x + w, float(yy) + 3, shade(wall, 0.94))
        elif pick < 0.45:  # door
            w = 52.0
            wood = _muted(rng, (136, 112, 86), (128, 124, 118))
            c.rect(x - 4, 56, x + w + 4, foot, shade(wood, 0.75))
            c.rect(x, 60, x + w, foot, wood)
            c.blob(x + w - 7, 126, 2.4, 2.4, (196, 190, 170))
        elif pick < 0.62:  # shelf
            w = float(rng.uniform(48, 76))
            wood = _muted(rng, (132, 114, 92), (112, 108, 104))
            c.rect(x, 70, x + w, foot, shade(wood, 0.8))
            for yy in (74, 102, 130, 158):
                c.rect(x + 3, yy, x + w - 3, yy + 24, shade(wood, 0.55))
                for bx in np.arange(x + 5, x + w - 9, 6.0):
                    if rng.random() < 0.75:
                        c.rect(
                            float(bx),
                            yy + float(rng.uniform(3, 9)),
                            float(bx) + 4.5,
                            yy + 24,
                            _muted(rng, (140, 128, 112), (112, 116, 120), (128, 104, 96), (110, 118, 100)),
                        )
        elif pick < 0.8:  # picture
            w = float(rng.uniform(34, 56))
            c.rect(x, 62, x + w, 102, (96, 86, 74))
            c.rect(x + 3, 65, x + w - 3, 99, _muted(rng, (170, 164, 150), (150, 156, 156)))
            c.blob(x + w / 2, 86, w * 0.25, 8, _muted(rng, (122, 128, 112)))
        else:  # whiteboard
            w = float(rng.uniform(70, 110))
            c.rect(x, 58, x + w, 112, (150, 150, 148))
            c.rect(x + 2, 60, x + w - 2, 110, (206, 206, 200))
            for yy in (70, 80, 90):
                c.line(x + 10, yy, x + 10 + float(rng.uniform(20, w - 24)), yy + 1, (130, 132, 136))
        x += w + float(rng.uniform(16, 50))
    for x in rng.uniform(0, c.width - 110, int(rng.integers(1, 4))):
        _desk(c, rng, float(x))
    if rng.random() < 0.6:
        x = float(rng.uniform(20, c.width - 20))
        _bush(c, rng, x, 180, 34)
        c.poly([(x - 12, 176), (x + 12, 176), (x + 9, 200), (x - 9, 200)], _muted(rng, (132, 118, 104)))
    return [(float(rng.uniform(0.1, 0.9)) * c.width, 240.0, 170.0) for _ in range(2)]


def _desk(c: _Canvas, rng: np.random.Generator, x: float) -> None:
    top = _muted(rng, (150, 128, 100), (140, 138, 134), (122, 104, 84))
    w = float(rng.uniform(84, 120))
    c.rect(x + 3, 166, x + 9, 208, shade(top, 0.6))
    c.rect(x + w - 30, 164, x + w - 3, 208, shade(top, 0.72))
    for y in (178, 192):
        c.rect(x + w - 27, y, x + w - 6, y + 1.6, shade(top, 0.5))
    c.rect(x, 158, x + w, 166, top)
    m = x + float(rng.uniform(12, w - 60))
    c.rect(m + 16, 148, m + 22, 158, (70, 72, 74))
    c.rect(m, 122, m + 40, 150, (62, 64, 66))
    c.rect(m + 2, 124, m + 38, 147, _muted(rng, (118, 130, 136), (96, 104, 110)))
    chair = _muted(rng, (92, 92, 94), (104, 98, 92))
    s = x + float(rng.uniform(10, w - 30))
    c.rect(s, 150, s + 26, 182, chair)
    c.rect(s + 11, 182, s + 15, 204, (74, 74, 74))
    c.rect(s - 2, 204, s + 28, 208, (70, 70, 70))


_PAINTERS: dict[str, Callable[[_Canvas, np.random.Generator, str], list[tuple[float, float, float]]]] = {
    "street": _street,
    "yard": _yard,
    "office": _office,
}
