"""A yard: house, fence, lawn and a drive."""

from __future__ import annotations

import numpy as np

from agent.capture.scene.canvas import Canvas, Lamp, bush, muted, sky, tree, wall
from agent.capture.scene.palette import shade


def yard(c: Canvas, rng: np.random.Generator, light: str) -> list[Lamp]:
    foot = 176.0
    sky(c, rng, light, 130)
    c.rect(0, 110, c.width, foot, muted(rng, (112, 114, 100), (100, 104, 94)))
    for _ in range(3):
        tree(c, rng, float(rng.uniform(0, c.width)), 160, float(rng.uniform(70, 120)))
    x0 = float(rng.uniform(-40, c.width * 0.5))
    span = float(rng.uniform(180, 320))
    roof = muted(rng, (128, 104, 92), (104, 100, 100), (120, 112, 100))
    eaves = float(rng.uniform(54, 84))
    c.poly([(x0 - 14, eaves), (x0 + 24, eaves - 48), (x0 + span - 24, eaves - 48), (x0 + span + 14, eaves)], roof)
    wall(c, rng, x0, eaves, x0 + span, foot, light)
    plank = muted(rng, (134, 116, 94), (116, 108, 98), (146, 134, 116))
    for a, b in ((0.0, x0 - 4), (x0 + span + 4, c.width)):
        for x in np.arange(a, b, 11.0):
            c.rect(float(x), 118, min(float(x) + 9, b), foot, shade(plank, float(rng.uniform(0.92, 1.06))))
        if b > a:
            c.rect(a, 128, b, 132, shade(plank, 0.8))
    lawn, drive = (
        muted(rng, (132, 144, 104), (120, 132, 98), (146, 146, 112)),
        muted(rng, (142, 136, 126), (118, 116, 112), (150, 140, 124)),
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
        bush(c, rng, float(rng.uniform(0, c.width)), foot + 6, float(rng.uniform(22, 40)))
    if rng.random() < 0.6:  # garden table
        x, y = float(rng.uniform(30, c.width - 90)), 196.0
        wood = muted(rng, (124, 104, 82))
        c.rect(x, y - 22, x + 56, y - 18, wood)
        c.line(x + 6, y - 18, x + 2, y, shade(wood, 0.75), 3)
        c.line(x + 50, y - 18, x + 54, y, shade(wood, 0.75), 3)
    if rng.random() < 0.6:  # flower pots
        for i in range(3):
            x = float(rng.uniform(10, c.width - 20)) if i == 0 else x + 18
            c.poly([(x, 178), (x + 12, 178), (x + 10, 192), (x + 2, 192)], muted(rng, (140, 110, 90)))
            c.blob(x + 6, 174, 8, 6, muted(rng, (112, 124, 92)))
    lamps = []
    for x in (x0 + span * 0.3, x0 + span + 120):
        c.blob(x, 100, 4, 5, (255, 250, 220) if light != "day" else (180, 178, 170))
        lamps.append((x, 230.0, float(rng.uniform(110, 150))))
    return lamps
