"""How dogs and cats look: walking, standing, sitting, lying."""

from __future__ import annotations

from math import pi, sin

from agent.capture.scene.outline import DARK, Look, Part, Point, Pose, ellipse, limb, slab
from agent.capture.scene.palette import shade, toward


def _posed(pose: Pose, stands: Point, sits: Point, lies: Point) -> Point:
    """A point of the body between where it is when the animal stands, sits and lies."""
    x, y = (a + (b - a) * pose.sit for a, b in zip(stands, sits, strict=True))
    return x + (lies[0] - x) * pose.low, y + (lies[1] - y) * pose.low


def _legs(look: Look, pose: Pose, hip: Point, chest: Point, r: float) -> tuple[list[Part], list[Part]]:
    """Far and near legs, each first hind, then fore: straight, swinging in pairs, or folded along the ground."""
    far: list[Part] = []
    near: list[Part] = []
    for i in range(4):
        hind, tone = i < 2, 0.66 if i % 2 else 1.0
        wave = sin(pose.phase + (pi if i in (1, 2) else 0.0))
        reach = 0.2 * pose.stride * (1 if wave >= 0 else -1) * abs(wave) ** 0.5
        x = (hip if hind else chest)[0] + (0.055 if i % 2 else -0.01)
        top = (hip if hind else chest)[1] - 0.03
        ahead = (0.16 if hind else 0.03) * pose.sit
        fx = x + reach + ahead * (1 - pose.low) + (0.2 if hind else 0.27) * pose.low
        fy = r * 0.95
        legs = [
            Part(limb(x, max(top, r * 1.4), fx, fy, r * 1.4, r), shade(look.body, tone)),
            Part(limb(fx, fy, fx + r * 1.1, fy, r, r * 0.8), shade(look.body, tone * 0.85)),
        ]
        (far if i % 2 else near).extend(legs)
    return far, near


def dog(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    coat, dark = look.body, shade(toward(look.body, (90, 60, 40), 0.25), 0.62)
    deep = (0.125 + 0.02 * t[0]) * (1 - 0.2 * pose.low)
    hip = _posed(pose, (-0.25, 0.45), (-0.2, 0.17), (-0.27, 0.11))
    chest = _posed(pose, (0.16, 0.455), (0.06, 0.43), (0.14, 0.125))
    far, near = _legs(look, pose, hip, chest, 0.036)
    hx, hy = _posed(pose, (0.31, 0.72), (0.16, 0.74), (0.35, 0.19))
    hx, hy = hx + 0.05 * pose.stride, hy - 0.06 * pose.stride
    wag = 0.04 * pose.stride * sin(pose.phase)
    root = (hip[0] - 0.08, hip[1] + 0.05 * (1 - pose.low) * (1 - 2 * pose.sit))
    bend = _posed(pose, (-0.45, 0.62), (-0.36, 0.06), (-0.44, 0.06))
    tip = _posed(pose, (-0.44 + wag, 0.75), (-0.49, 0.12), (-0.53, 0.04))
    return [
        Part(limb(*root, *bend, 0.04, 0.035), coat),
        Part(limb(*bend, *tip, 0.035, 0.022), coat),
        *far,
        Part(limb(*hip, *chest, deep, deep + 0.02), coat),
        Part(
            limb(hip[0] + 0.05, hip[1] - deep * 0.75, chest[0], chest[1] - deep * 0.75, 0.03, 0.035), shade(coat, 0.82)
        ),
        Part(
            ellipse(hip[0] + 0.01, hip[1], 0.1 + 0.05 * pose.sit, 0.1 + 0.06 * pose.sit * (1 - pose.low)),
            shade(coat, 0.93),
        ),
        *near,
        Part(limb(chest[0] + 0.03, chest[1] + 0.03, hx - 0.02, hy - 0.04, 0.105, 0.08), coat),
        Part(slab(hx - 0.11, hy - 0.17, hx + 0.02, hy - 0.13, 0.01), dark),
        Part(ellipse(hx, hy, 0.1, 0.088), coat),
        Part(limb(hx + 0.05, hy - 0.025, hx + 0.165, hy - 0.045, 0.062, 0.046), shade(coat, 0.95)),
        Part(ellipse(hx + 0.2, hy - 0.03, 0.026, 0.022), DARK),
        Part(ellipse(hx + 0.045, hy + 0.03, 0.014, 0.014), DARK),
        Part(limb(hx - 0.05, hy + 0.055, hx - 0.085, hy - 0.1, 0.04, 0.052), dark),
    ]


def cat(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    coat, dark = look.body, shade(look.body, 0.66)
    hip = _posed(pose, (-0.19, 0.33), (-0.14, 0.15), (-0.2, 0.095))
    chest = _posed(pose, (0.12, 0.34), (0.03, 0.36), (0.1, 0.1))
    far, near = _legs(look, pose, hip, chest, 0.028)
    hx, hy = _posed(pose, (0.22, 0.485), (0.1, 0.58), (0.29, 0.15))
    hx, hy = hx + 0.05 * pose.stride, hy - 0.05 * pose.stride
    sway = 0.05 * sin(pose.phase * 0.5 + 6 * t[1]) * (1 - pose.low)
    tail = [
        _posed(pose, (-0.26, 0.36), (-0.22, 0.06), (-0.27, 0.06)),
        _posed(pose, (-0.40, 0.43), (-0.34, 0.035), (-0.37, 0.04)),
        _posed(pose, (-0.46, 0.59), (-0.43, 0.04), (-0.45, 0.035)),
        _posed(pose, (-0.40 + sway, 0.75), (-0.49, 0.09 + sway), (-0.51, 0.035)),
        _posed(pose, (-0.46 + sway * 2, 0.85), (-0.49, 0.17 + sway), (-0.56, 0.05)),
    ]
    parts = [Part(limb(*tail[i], *tail[i + 1], 0.03, 0.026), coat if i < 3 else dark) for i in range(4)]
    parts += [*far, Part(limb(*hip, *chest, 0.105 - 0.015 * pose.low, 0.095), coat)]
    haunch = 0.05 * pose.sit * (1 - pose.low)
    parts.append(Part(ellipse(hip[0], hip[1], 0.075 + haunch, 0.075 + haunch), shade(coat, 0.93)))
    for i in range(3):
        share = 0.08 + 0.35 * i
        x, y = hip[0] + (chest[0] - hip[0]) * share, hip[1] + (chest[1] - hip[1]) * share
        over = 0.1 - 0.02 * pose.low
        parts.append(Part([(x - 0.02, y + over), (x + 0.025, y + over), (x + 0.01, y - 0.01)], dark))
    parts += [
        *near,
        Part(limb(*chest, hx - 0.01, hy - 0.03, 0.08, 0.07), coat),
        Part([(hx - 0.105, hy + 0.03), (hx - 0.1, hy + 0.2), (hx - 0.005, hy + 0.09)], dark),
        Part([(hx + 0.005, hy + 0.09), (hx + 0.1, hy + 0.2), (hx + 0.105, hy + 0.03)], coat),
        Part(ellipse(hx, hy, 0.115, 0.105), coat),
        Part(ellipse(hx + 0.05, hy - 0.035, 0.05, 0.04), toward(coat, (250, 245, 240), 0.45)),
        Part(ellipse(hx + 0.0, hy + 0.02, 0.018, 0.022), (150, 170, 60)),
        Part(ellipse(hx + 0.07, hy + 0.02, 0.018, 0.022), (150, 170, 60)),
        Part(ellipse(hx + 0.065, hy - 0.025, 0.012, 0.01), (190, 110, 110)),
    ]
    return parts
