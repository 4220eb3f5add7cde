"""What figures are made of: an individual's look, its pose, and outlines in the figure's own coordinates.

Local coordinates: x ahead, y up, origin on the ground under the figure, 1 = the height of a person, the
length of a vehicle or an animal, the width of a bag.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, hypot, pi, sin
from typing import NamedTuple

from agent.capture.scene.palette import RGB

Point = tuple[float, float]
Outline = list[Point]

DARK: RGB = (34, 34, 38)
_CIRCLE = [(cos(2 * pi * i / 16), sin(2 * pi * i / 16)) for i in range(16)]


@dataclass(frozen=True, slots=True)
class Look:
    """An individual: its kind, nominal colour, the colours it is painted with, its proportions (`traits`, 0–1)."""

    kind: str
    colour: str
    body: RGB
    second: RGB
    skin: RGB
    hair: RGB
    traits: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pose:
    """Where and how an individual is: ground point (x, y) and size in pixels, facing +1 right / −1 left, gait phase in
    radians, stride 0 (legs together) to 1, tilt in radians (0 upright, π/2 on the ground), moving (a vehicle under
    way), low (0 an animal that stands, 1 that lies), height above the ground in sizes. The rest goes from 0 to 1:
    sit (people and animals), crouch, wave (one arm up), carry (a box in both arms), run (lean and stride of it)."""

    x: float
    y: float
    size: float
    facing: int
    phase: float = 0.0
    stride: float = 0.0
    tilt: float = 0.0
    moving: bool = False
    low: float = 0.0
    height: float = 0.0
    sit: float = 0.0
    crouch: float = 0.0
    wave: float = 0.0
    carry: float = 0.0
    run: float = 0.0


class Part(NamedTuple):
    """A filled outline; a glowing one is not darkened by the light."""

    outline: Outline
    colour: RGB
    glow: bool = False


def ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Outline:
    if turn:
        c, s = cos(turn), sin(turn)
        return [(cx + rx * u * c - ry * v * s, cy + rx * u * s + ry * v * c) for u, v in _CIRCLE]
    return [(cx + rx * u, cy + ry * v) for u, v in _CIRCLE]


def limb(ax: float, ay: float, bx: float, by: float, ra: float, rb: float) -> Outline:
    """A rounded stroke from a to b with radius ra at a, rb at b."""
    dx, dy = bx - ax, by - ay
    length = hypot(dx, dy) or 1e-9
    ux, uy = dx / length, dy / length
    caps = [(cos(pi * i / 4), sin(pi * i / 4)) for i in range(5)]
    first = [(ax + ra * (-s * ux - c * uy), ay + ra * (-s * uy + c * ux)) for c, s in caps]
    second = [(bx + rb * (s * ux + c * uy), by + rb * (s * uy - c * ux)) for c, s in caps]
    return first + second


def slab(x0: float, y0: float, x1: float, y1: float, r: float) -> Outline:
    """A rectangle with cut corners."""
    return [
        (x0 + r, y0),
        (x1 - r, y0),
        (x1, y0 + r),
        (x1, y1 - r),
        (x1 - r, y1),
        (x0 + r, y1),
        (x0, y1 - r),
        (x0, y0 + r),
    ]
