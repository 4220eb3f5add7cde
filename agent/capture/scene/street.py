"""A street: houses, pavements, a road with two lanes and room to park."""

from __future__ import annotations

import numpy as np

from agent.capture.scene.canvas import Canvas, Lamp, muted, sky, tree, wall
from agent.capture.scene.palette import shade, toward


def street(c: Canvas, rng: np.random.Generator, light: str) -> list[Lamp]:
    foot = 182.0
    sky(c, rng, light, 120)
    c.rect(0, 90, c.width, foot, muted(rng, (122, 118, 112), (134, 132, 126)))
    x = -float(rng.uniform(0, 60))
    while x < c.width:
        w = float(rng.uniform(90, 190))
        wall(c, rng, x, float(rng.uniform(8, 70)), min(x + w, c.width + 5), foot, light)
        x += w + (float(rng.uniform(20, 50)) if rng.random() < 0.2 else 0)
    paving, asphalt = (
        muted(rng, (146, 142, 136), (132, 130, 128), (150, 142, 130)),
        muted(rng, (92, 92, 95), (80, 80, 84), (104, 102, 100)),
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
        tree(c, rng, float(rng.uniform(10, c.width)), 188, float(rng.uniform(70, 120)))
    if rng.random() < 0.7:  # a litter bin and a bench: clutter that is none of the kinds
        x = float(rng.uniform(20, c.width - 60))
        c.rect(x, 168, x + 13, 190, muted(rng, (90, 94, 92)))
        c.rect(x - 1, 166, x + 14, 170, (74, 76, 76))
    if rng.random() < 0.6:
        x = float(rng.uniform(20, c.width - 80))
        wood = muted(rng, (120, 98, 74))
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
