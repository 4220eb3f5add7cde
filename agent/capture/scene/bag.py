"""How a bag looks."""

from __future__ import annotations

from math import cos, pi, sin

from agent.capture.scene.outline import Look, Part, Pose, slab
from agent.capture.scene.palette import shade


def bag(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    body, dark = look.body, shade(look.body, 0.7)
    edge = dark if look.colour != "black" else (92, 92, 96)
    h = 0.62 + 0.3 * t[0]
    rise, half = 0.2 + 0.14 * t[1], 0.2 + 0.1 * t[2]
    arch = [pi * i / 8 for i in range(9)]
    handle = [(half * cos(a), h - 0.02 + rise * sin(a)) for a in arch]
    handle += [((half - 0.065) * cos(a), h - 0.02 + (rise - 0.065) * sin(a)) for a in reversed(arch)]
    return [
        Part(handle, shade(edge, 0.85)),
        Part(slab(-0.5, 0.0, 0.5, h, 0.1), body),
        Part(slab(-0.5, 0.0, -0.3, h, 0.1), shade(body, 0.85)),
        Part(slab(-0.46, h * 0.7, 0.46, h * 0.76, 0.01), edge),
        Part(slab(-0.22, h * 0.14, 0.3, h * 0.52, 0.05), shade(body, 0.86) if look.colour != "black" else (56, 56, 60)),
        Part(slab(-0.05, h * 0.62, 0.07, h * 0.8, 0.02), (200, 190, 150)),
    ]
