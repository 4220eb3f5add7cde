"""Figures as polygons: what a person, a vehicle, an animal or a bag looks like in a pose.

A figure is a list of shapes with the same number and order for every pose of one individual, so that a shape's motion
between two frames is the map between its points. Local coordinates: x ahead, y up, origin on the ground under the figure,
1 = a person's height, a vehicle's or an animal's length, a bag's width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, hypot, pi, sin
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.capture.scene.palette import HAIR, RGB, SKIN, TROUSERS, individual, shade, toward

Point = tuple[float, float]
Outline = list[Point]

DARK: RGB = (34, 34, 38)
TYRE: RGB = (42, 42, 45)
_CIRCLE = [(cos(2 * pi * i / 16), sin(2 * pi * i / 16)) for i in range(16)]


@dataclass(frozen=True, slots=True)
class Look:
    """An individual: its kind, nominal colour, the colours it is painted with and its proportions (`traits`, 0–1 each)."""

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
    radians, stride 0 (legs together) to 1, tilt in radians (0 upright, π/2 on the ground), moving (a vehicle under way),
    low 0–1 (an animal that lies)."""

    x: float
    y: float
    size: float
    facing: int
    phase: float = 0.0
    stride: float = 0.0
    tilt: float = 0.0
    moving: bool = False
    low: float = 0.0


class Shape(NamedTuple):
    """A filled polygon: points (n, 2) in pixels; a glowing shape is not darkened by the light."""

    points: NDArray[np.float64]
    colour: RGB
    glow: bool


class _Part(NamedTuple):
    outline: Outline
    colour: RGB
    glow: bool = False


def new_look(kind: str, colour: str, rng: np.random.Generator) -> Look:
    """A new individual of a kind and nominal colour."""
    return Look(
        kind,
        colour,
        individual(colour, rng),
        shade(TROUSERS[int(rng.integers(len(TROUSERS)))], float(rng.uniform(0.85, 1.1))),
        SKIN[int(rng.integers(len(SKIN)))],
        HAIR[int(rng.integers(len(HAIR)))],
        tuple(float(v) for v in rng.uniform(0, 1, 8)),
    )


def shapes(look: Look, pose: Pose) -> list[Shape]:
    """The figure's shapes in pixels, back to front."""
    parts = _FIGURES[look.kind](look, pose)
    points = np.array([p for part in parts for p in part.outline], dtype=np.float64)
    ca, sa = cos(pose.tilt), sin(pose.tilt)
    ahead = points[:, 0] * ca + points[:, 1] * sa
    up = points[:, 1] * ca - points[:, 0] * sa + 0.1 * sa
    placed = np.stack([pose.x + pose.facing * pose.size * ahead, pose.y - pose.size * up], axis=1)
    result, start = [], 0
    for part in parts:
        stop = start + len(part.outline)
        result.append(Shape(placed[start:stop], part.colour, part.glow))
        start = stop
    return result


def _ellipse(cx: float, cy: float, rx: float, ry: float, turn: float = 0.0) -> Outline:
    if turn:
        c, s = cos(turn), sin(turn)
        return [(cx + rx * u * c - ry * v * s, cy + rx * u * s + ry * v * c) for u, v in _CIRCLE]
    return [(cx + rx * u, cy + ry * v) for u, v in _CIRCLE]


def _limb(ax: float, ay: float, bx: float, by: float, ra: float, rb: float) -> Outline:
    """A rounded stroke from a to b with radius ra at a, rb at b."""
    dx, dy = bx - ax, by - ay
    length = hypot(dx, dy) or 1e-9
    ux, uy = dx / length, dy / length
    caps = [(cos(pi * i / 4), sin(pi * i / 4)) for i in range(5)]
    first = [(ax + ra * (-s * ux - c * uy), ay + ra * (-s * uy + c * ux)) for c, s in caps]
    second = [(bx + rb * (s * ux + c * uy), by + rb * (s * uy - c * ux)) for c, s in caps]
    return first + second


def _slab(x0: float, y0: float, x1: float, y1: float, r: float) -> Outline:
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


def _person(look: Look, pose: Pose) -> list[_Part]:
    t = look.traits
    broad = 0.9 + 0.25 * t[0]
    wave = sin(pose.phase)
    swing = pose.stride * (1 if wave >= 0 else -1) * abs(wave) ** 0.6
    flail = sin(min(pose.tilt, pi - pose.tilt)) * (1.0 if pose.tilt < 1.3 else 0.35)
    hip, thigh = 0.50, 0.24
    drop = 0.48 * (1 - cos(0.52 * swing)) + 0.004

    def leg(angle: float, bend: float, tone: float, x: float) -> list[_Part]:
        top = hip - drop
        kx, ky = x + thigh * sin(angle), top - thigh * cos(angle)
        ax, ay = kx + 0.22 * sin(angle - bend), ky - 0.22 * cos(angle - bend)
        cloth = shade(look.second, tone)
        return [
            _Part(_limb(x, top, kx, ky, 0.062 * broad, 0.05 * broad), cloth),
            _Part(_limb(kx, ky, ax, ay, 0.05 * broad, 0.04 * broad), cloth),
            _Part(_limb(ax, ay - 0.005, ax + 0.06, ay - 0.012, 0.03, 0.024), shade(DARK, tone)),
        ]

    def arm(angle: float, bend: float, tone: float) -> list[_Part]:
        sx, sy = 0.0, 0.785 - drop
        ex, ey = sx + 0.16 * sin(angle), sy - 0.16 * cos(angle)
        hx, hy = ex + 0.15 * sin(angle + bend), ey - 0.15 * cos(angle + bend)
        sleeve = shade(look.body, tone)
        short = t[3] > 0.6
        return [
            _Part(_limb(ex, ey, hx, hy, 0.034, 0.028), shade(look.skin, tone) if short else sleeve),
            _Part(_limb(sx, sy, ex, ey, 0.046 * broad, 0.038 * broad), sleeve),
            _Part(_ellipse(hx, hy, 0.03, 0.03), shade(look.skin, tone)),
        ]

    forward = cos(pose.phase)
    bend_near = pose.stride * 0.9 * max(0.0, forward) + 0.5 * flail
    bend_far = pose.stride * 0.9 * max(0.0, -forward)
    near, far = 0.52 * swing + 0.25 * flail, -0.52 * swing - 0.2 * flail
    rest = 0.06 + 0.12 * t[4]
    parts = arm(0.6 * swing + rest + 1.9 * flail, 0.25 * pose.stride + 0.15, 0.72)
    parts += leg(far, bend_far, 0.78, 0.035)
    parts += leg(near, bend_near, 1.0, -0.03)
    w, h = 0.112 * broad, 0.088 * broad
    top, low = 0.835 - drop, 0.47 - drop
    lean = 0.02 * pose.stride
    torso = [
        (-h, low), (h, low), (h * 1.02, low + 0.1), (w + lean, top - 0.05), (w * 0.8 + lean, top - 0.008), (0.03 + lean, top),
        (-0.03 + lean, top), (-w * 0.8 + lean, top - 0.008), (-w + lean, top - 0.05), (-h * 1.02, low + 0.1),
    ]  # fmt: skip
    side = [
        (-h, low),
        (-h * 0.35, low),
        (-w * 0.45 + lean, top - 0.02),
        (-w * 0.8 + lean, top - 0.008),
        (-w + lean, top - 0.05),
    ]
    parts.append(_Part(torso, look.body))
    parts.append(_Part(side, shade(look.body, 0.84)))
    hx, hy = 0.012 + lean, 0.918 - drop
    parts.append(_Part(_limb(lean, top - 0.012, hx, hy - 0.03, 0.035, 0.033), shade(look.skin, 0.88)))
    parts.append(_Part(_ellipse(hx, hy, 0.06, 0.072), look.skin))
    fringe = 0.35 + 0.5 * t[5]
    crown = [(hx + 0.066 * cos(a), hy + 0.078 * sin(a)) for a in (fringe + i * (3.9 - fringe) / 9 for i in range(10))]
    parts.append(_Part([*crown, (hx - 0.03, hy + 0.005), (hx - 0.005, hy + 0.03)], look.hair))
    tail = 0.075 if t[6] > 0.55 else 0.02
    parts.append(_Part(_limb(hx - 0.045, hy + 0.02, hx - 0.055, hy - tail, 0.03, 0.024), look.hair))
    parts += arm(-0.6 * swing - rest * 0.5 - 2.2 * flail, 0.25 * pose.stride + 0.15, 0.9)
    return parts


def _wheel(x: float, r: float, pose: Pose) -> list[_Part]:
    turn = pose.phase
    hub: RGB = (150, 150, 152) if pose.moving else (176, 176, 178)
    bar = [(x + r * 0.5 * cos(turn + a), r + r * 0.5 * sin(turn + a)) for a in (-0.3, 0.3, pi - 0.3, pi + 0.3)]
    return [
        _Part(_ellipse(x, r, r, r), TYRE),
        _Part(_ellipse(x, r, r * 0.58, r * 0.58), hub),
        _Part(bar, shade(hub, 0.8 if pose.moving else 0.45)),
    ]


def _glass(pose: Pose) -> RGB:
    """Under way the lit cabin shows through the windows; a parked vehicle's are dark."""
    return (178, 206, 218) if pose.moving else (46, 54, 62)


def _lamps(x: float, y: float, r: float, pose: Pose) -> list[_Part]:
    lit = pose.moving
    return [
        _Part(_ellipse(x, y, r, r * 0.8), (255, 246, 196) if lit else (196, 196, 190), lit),
        _Part(_ellipse(-x, y, r * 0.6, r * 0.8), (236, 60, 40) if lit else (120, 40, 36), lit),
    ]


def _driver(x: float, y: float, r: float, look: Look, pose: Pose) -> _Part:
    """The driver's head; nobody sits in a parked vehicle, so there it shrinks to nothing."""
    size = r if pose.moving else 1e-4
    return _Part(_ellipse(x, y, size, size * 1.2), shade(look.hair, 0.9))


def _car(look: Look, pose: Pose) -> list[_Part]:
    t = look.traits
    body, dark = look.body, shade(look.body, 0.72)
    r = 0.078 + 0.012 * t[0]
    base, belt, roof = r * 0.75, 0.235 + 0.03 * t[1], 0.365 + 0.05 * t[2]
    back, front = -0.36 + 0.16 * t[3] * (t[4] > 0.4), 0.2 + 0.06 * t[5]
    hull = [
        (-0.5, base + 0.02), (-0.485, base), (0.485, base), (0.5, base + 0.03), (0.495, belt - 0.06), (0.44, belt - 0.025),
        (front, belt + 0.005), (back - 0.06, belt + 0.01), (-0.475, belt - 0.01), (-0.5, belt - 0.06),
    ]  # fmt: skip
    a, b, c, d = back - 0.05, back + 0.05, front - 0.13, front + 0.01
    cabin = [
        (a, belt - 0.01),
        (a + 0.03, roof - 0.06),
        (b, roof - 0.008),
        (b + 0.04, roof),
        (c - 0.03, roof),
        (c, roof - 0.01),
        (d, belt),
    ]
    mid = (b + c) / 2 - 0.01
    glass = _glass(pose)
    rear = [
        (a + 0.055, belt + 0.005),
        (b + 0.025, roof - 0.028),
        (mid - 0.012, roof - 0.028),
        (mid - 0.012, belt + 0.005),
    ]
    fore = [
        (mid + 0.012, belt + 0.005),
        (mid + 0.012, roof - 0.028),
        (c - 0.012, roof - 0.028),
        (d - 0.045, belt + 0.005),
    ]
    parts = [_Part(cabin, shade(body, 0.9)), _Part(hull, body)]
    parts.append(_Part(_slab(-0.49, base, 0.49, base + 0.045, 0.01), dark))
    parts.append(_Part(_slab(-0.44, belt - 0.05, 0.42, belt - 0.03, 0.005), toward(body, (255, 255, 255), 0.22)))
    parts += [_Part(rear, glass), _Part(fore, glass), _driver(mid + 0.07, belt + 0.05, 0.035, look, pose)]
    parts.append(_Part(_slab(mid - 0.005, base + 0.045, mid + 0.004, belt - 0.01, 0.0), dark))
    parts += _lamps(0.475, belt - 0.075, 0.026, pose)
    return parts + _wheel(-0.3, r, pose) + _wheel(0.3, r, pose)


def _truck(look: Look, pose: Pose) -> list[_Part]:
    t = look.traits
    body = look.body
    r, floor = 0.065 + 0.008 * t[0], 0.115
    top, nose = 0.52 + 0.08 * t[1], 0.36 + 0.06 * t[2]
    split = 0.2 + 0.03 * t[3]
    parts = [_Part(_slab(-0.49, 0.07, 0.49, 0.13, 0.01), (58, 58, 62))]
    parts.append(_Part(_slab(-0.5, floor, split, top, 0.006), body))
    parts.append(_Part(_slab(-0.5, floor, split, floor + 0.05, 0.004), shade(body, 0.7)))
    parts.append(_Part(_slab(-0.5, top - 0.025, split, top, 0.004), toward(body, (255, 255, 255), 0.25)))
    for i in range(1, 5):
        x = -0.5 + (split + 0.5) * i / 5
        parts.append(_Part(_slab(x - 0.004, floor + 0.05, x + 0.004, top - 0.03, 0.0), shade(body, 0.8)))
    cab = [
        (split + 0.02, 0.08), (0.49, 0.08), (0.5, 0.1), (0.495, 0.24), (0.45, nose - 0.01), (0.42, nose), (split + 0.02, nose),
    ]  # fmt: skip
    parts.append(_Part(cab, shade(body, 0.9)))
    window = [(split + 0.07, 0.245), (0.475, 0.235), (0.44, nose - 0.03), (split + 0.07, nose - 0.03)]
    parts += [_Part(window, _glass(pose)), _driver(split + 0.14, 0.275, 0.03, look, pose)]
    parts.append(_Part(_slab(split + 0.02, 0.08, 0.495, 0.105, 0.004), (70, 70, 74)))
    parts += _lamps(0.48, 0.145, 0.022, pose)
    return parts + _wheel(-0.36, r, pose) + _wheel(-0.2, r, pose) + _wheel(0.36, r, pose)


def _paws(look: Look, pose: Pose, spots: tuple[float, ...], top: float, r: float) -> tuple[list[_Part], list[_Part]]:
    """Far and near legs: straight, swinging in pairs, or folded along the ground."""
    far: list[_Part] = []
    near: list[_Part] = []
    for i, x in enumerate(spots):
        wave = sin(pose.phase + (pi if i % 2 else 0.0) + (pi if i >= 2 else 0.0))
        reach = 0.13 * pose.stride * (1 if wave >= 0 else -1) * abs(wave) ** 0.6
        high = top * (1 - pose.low) + pose.low * (r * 2.2)
        fx, fy = x + reach + pose.low * 0.17, r * 0.9
        tone = 0.72 if i % 2 else 1.0
        legs = [
            _Part(_limb(x, high, fx, fy, r * 1.35, r), shade(look.body, tone)),
            _Part(_limb(fx, fy, fx + r * 0.9, fy, r, r * 0.8), shade(look.body, tone * 0.85)),
        ]
        (far if i % 2 else near).extend(legs)
    return far, near


def _dog(look: Look, pose: Pose) -> list[_Part]:
    t = look.traits
    coat, dark = look.body, shade(toward(look.body, (90, 60, 40), 0.25), 0.62)
    k = 0.27 * pose.low
    deep = 0.125 + 0.02 * t[0]
    far, near = _paws(look, pose, (-0.27, -0.2, 0.13, 0.2), 0.4, 0.036)
    back = 0.45 - k
    parts = [
        _Part(_limb(-0.33, back + 0.05, -0.45, back + 0.17, 0.04, 0.035), coat),
        _Part(_limb(-0.45, back + 0.17, -0.44, back + 0.3, 0.035, 0.022), coat),
        *far,
        _Part(_limb(-0.25, back, 0.16, back + 0.005, deep, deep + 0.02), coat),
        _Part(_limb(-0.2, back - deep * 0.75, 0.14, back - deep * 0.75, 0.03, 0.035), shade(coat, 0.82)),
        *near,
        _Part(_limb(0.19, back + 0.06, 0.29, back + 0.23, 0.105, 0.08), coat),
        _Part(_slab(0.2, back + 0.1, 0.33, back + 0.14, 0.01), dark),
    ]
    hx, hy = 0.31, back + 0.27
    parts += [
        _Part(_ellipse(hx, hy, 0.1, 0.088), coat),
        _Part(_limb(hx + 0.05, hy - 0.025, hx + 0.165, hy - 0.045, 0.062, 0.046), shade(coat, 0.95)),
        _Part(_ellipse(hx + 0.2, hy - 0.03, 0.026, 0.022), DARK),
        _Part(_ellipse(hx + 0.045, hy + 0.03, 0.014, 0.014), DARK),
        _Part(_limb(hx - 0.05, hy + 0.055, hx - 0.085, hy - 0.1, 0.04, 0.052), dark),
    ]
    return parts


def _cat(look: Look, pose: Pose) -> list[_Part]:
    t = look.traits
    coat, dark = look.body, shade(look.body, 0.66)
    k = 0.19 * pose.low
    far, near = _paws(look, pose, (-0.22, -0.17, 0.1, 0.15), 0.3, 0.028)
    back = 0.33 - k
    sway = 0.05 * sin(pose.phase * 0.5 + 6 * t[1])
    tail = [
        (-0.26, back + 0.03),
        (-0.40, back + 0.1),
        (-0.46, back + 0.26),
        (-0.40 + sway, back + 0.42),
        (-0.46 + sway * 2, back + 0.52),
    ]
    parts = [_Part(_limb(*tail[i], *tail[i + 1], 0.03, 0.026), coat if i < 3 else dark) for i in range(4)]
    parts += [*far, _Part(_limb(-0.19, back, 0.12, back + 0.01, 0.105, 0.095), coat)]
    for i in range(3):
        x = -0.17 + 0.11 * i
        parts.append(_Part([(x, back + 0.1), (x + 0.045, back + 0.1), (x + 0.03, back - 0.01)], dark))
    hx, hy = 0.22, back + 0.155
    parts += [
        *near,
        _Part([(hx - 0.105, hy + 0.03), (hx - 0.1, hy + 0.2), (hx - 0.005, hy + 0.09)], dark),
        _Part([(hx + 0.005, hy + 0.09), (hx + 0.1, hy + 0.2), (hx + 0.105, hy + 0.03)], coat),
        _Part(_ellipse(hx, hy, 0.115, 0.105), coat),
        _Part(_ellipse(hx + 0.05, hy - 0.035, 0.05, 0.04), toward(coat, (250, 245, 240), 0.45)),
        _Part(_ellipse(hx + 0.0, hy + 0.02, 0.018, 0.022), (150, 170, 60)),
        _Part(_ellipse(hx + 0.07, hy + 0.02, 0.018, 0.022), (150, 170, 60)),
        _Part(_ellipse(hx + 0.065, hy - 0.025, 0.012, 0.01), (190, 110, 110)),
    ]
    return parts


def _bag(look: Look, pose: Pose) -> list[_Part]:
    t = look.traits
    body, dark = look.body, shade(look.body, 0.7)
    edge = dark if look.colour != "black" else (92, 92, 96)
    h = 0.62 + 0.3 * t[0]
    rise, half = 0.2 + 0.14 * t[1], 0.2 + 0.1 * t[2]
    arch = [pi * i / 8 for i in range(9)]
    handle = [(half * cos(a), h - 0.02 + rise * sin(a)) for a in arch]
    handle += [((half - 0.065) * cos(a), h - 0.02 + (rise - 0.065) * sin(a)) for a in reversed(arch)]
    return [
        _Part(handle, shade(edge, 0.85)),
        _Part(_slab(-0.5, 0.0, 0.5, h, 0.1), body),
        _Part(_slab(-0.5, 0.0, -0.3, h, 0.1), shade(body, 0.85)),
        _Part(_slab(-0.46, h * 0.7, 0.46, h * 0.76, 0.01), edge),
        _Part(
            _slab(-0.22, h * 0.14, 0.3, h * 0.52, 0.05), shade(body, 0.86) if look.colour != "black" else (56, 56, 60)
        ),
        _Part(_slab(-0.05, h * 0.62, 0.07, h * 0.8, 0.02), (200, 190, 150)),
    ]


_FIGURES: dict[str, Callable[[Look, Pose], list[_Part]]] = {
    "person": _person,
    "car": _car,
    "truck": _truck,
    "dog": _dog,
    "cat": _cat,
    "bag": _bag,
}
