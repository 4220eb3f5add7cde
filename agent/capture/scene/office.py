"""An office: wall with doors and windows, desks, a tiled floor."""

from __future__ import annotations

import numpy as np

from agent.capture.scene.canvas import Canvas, Lamp, bush, muted, window
from agent.capture.scene.palette import shade


def office(c: Canvas, rng: np.random.Generator, light: str) -> list[Lamp]:
    foot = 188.0
    wall = muted(rng, (174, 172, 166), (164, 160, 150), (154, 158, 158), (178, 168, 154))
    floor = muted(rng, (136, 130, 122), (118, 116, 114), (148, 136, 120), (124, 128, 126))
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
            window(c, rng, x, 40, w, 80, light)
            for yy in np.arange(42, 42 + float(rng.uniform(10, 50)), 5.0):
                c.rect(x, float(yy), x + w, float(yy) + 3, shade(wall, 0.94))
        elif pick < 0.45:  # door
            w = 52.0
            wood = muted(rng, (136, 112, 86), (128, 124, 118))
            c.rect(x - 4, 56, x + w + 4, foot, shade(wood, 0.75))
            c.rect(x, 60, x + w, foot, wood)
            c.blob(x + w - 7, 126, 2.4, 2.4, (196, 190, 170))
        elif pick < 0.62:  # shelf
            w = float(rng.uniform(48, 76))
            wood = muted(rng, (132, 114, 92), (112, 108, 104))
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
                            muted(rng, (140, 128, 112), (112, 116, 120), (128, 104, 96), (110, 118, 100)),
                        )
        elif pick < 0.8:  # picture
            w = float(rng.uniform(34, 56))
            c.rect(x, 62, x + w, 102, (96, 86, 74))
            c.rect(x + 3, 65, x + w - 3, 99, muted(rng, (170, 164, 150), (150, 156, 156)))
            c.blob(x + w / 2, 86, w * 0.25, 8, muted(rng, (122, 128, 112)))
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
        bush(c, rng, x, 180, 34)
        c.poly([(x - 12, 176), (x + 12, 176), (x + 9, 200), (x - 9, 200)], muted(rng, (132, 118, 104)))
    return [(float(rng.uniform(0.1, 0.9)) * c.width, 240.0, 170.0) for _ in range(2)]


def _desk(c: Canvas, rng: np.random.Generator, x: float) -> None:
    top = muted(rng, (150, 128, 100), (140, 138, 134), (122, 104, 84))
    w = float(rng.uniform(84, 120))
    c.rect(x + 3, 166, x + 9, 208, shade(top, 0.6))
    c.rect(x + w - 30, 164, x + w - 3, 208, shade(top, 0.72))
    for y in (178, 192):
        c.rect(x + w - 27, y, x + w - 6, y + 1.6, shade(top, 0.5))
    c.rect(x, 158, x + w, 166, top)
    m = x + float(rng.uniform(12, w - 60))
    c.rect(m + 16, 148, m + 22, 158, (70, 72, 74))
    c.rect(m, 122, m + 40, 150, (62, 64, 66))
    c.rect(m + 2, 124, m + 38, 147, muted(rng, (118, 130, 136), (96, 104, 110)))
