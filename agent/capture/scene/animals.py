"""How dogs and cats look: walking, standing, lying."""

from __future__ import annotations

from math import pi, sin

from agent.capture.scene.outline import DARK, Look, Part, Pose, ellipse, limb, slab
from agent.capture.scene.palette import shade, toward


def _paws(look: Look, pose: Pose, spots: tuple[float, ...], top: float, r: float) -> tuple[list[Part], list[Part]]:
    """Far and near legs: straight, swinging in pairs, or folded along the ground."""
    far: list[Part] = []
    near: list[Part] = []
    for i, x in enumerate(spots):
        wave = sin(pose.phase + (pi if i % 2 else 0.0) + (pi if i >= 2 else 0.0))
        reach = 0.13 * pose.stride * (1 if wave >= 0 else -1) * abs(wave) ** 0.6
        high = top * (1 - pose.low) + pose.low * (r * 2.2)
        fx, fy = x + reach + pose.low * 0.17, r * 0.9
        tone = 0.72 if i % 2 else 1.0
        legs = [
            Part(limb(x, high, fx, fy, r * 1.35, r), shade(look.body, tone)),
            Part(limb(fx, fy, fx + r * 0.9, fy, r, r * 0.8), shade(look.body, tone * 0.85)),
        ]
        (far if i % 2 else near).extend(legs)
    return far, near


def dog(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    coat, dark = look.body, shade(toward(look.body, (90, 60, 40), 0.25), 0.62)
    k = 0.27 * pose.low
    deep = 0.125 + 0.02 * t[0]
    far, near = _paws(look, pose, (-0.27, -0.2, 0.13, 0.2), 0.4, 0.036)
    back = 0.45 - k
    parts = [
        Part(limb(-0.33, back + 0.05, -0.45, back + 0.17, 0.04, 0.035), coat),
        Part(limb(-0.45, back + 0.17, -0.44, back + 0.3, 0.035, 0.022), coat),
        *far,
        Part(limb(-0.25, back, 0.16, back + 0.005, deep, deep + 0.02), coat),
        Part(limb(-0.2, back - deep * 0.75, 0.14, back - deep * 0.75, 0.03, 0.035), shade(coat, 0.82)),
        *near,
        Part(limb(0.19, back + 0.06, 0.29, back + 0.23, 0.105, 0.08), coat),
        Part(slab(0.2, back + 0.1, 0.33, back + 0.14, 0.01), dark),
    ]
    hx, hy = 0.31, back + 0.27
    parts += [
        Part(ellipse(hx, hy, 0.1, 0.088), coat),
        Part(limb(hx + 0.05, hy - 0.025, hx + 0.165, hy - 0.045, 0.062, 0.046), shade(coat, 0.95)),
        Part(ellipse(hx + 0.2, hy - 0.03, 0.026, 0.022), DARK),
        Part(ellipse(hx + 0.045, hy + 0.03, 0.014, 0.014), DARK),
        Part(limb(hx - 0.05, hy + 0.055, hx - 0.085, hy - 0.1, 0.04, 0.052), dark),
    ]
    return parts


def cat(look: Look, pose: Pose) -> list[Part]:
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
    parts = [Part(limb(*tail[i], *tail[i + 1], 0.03, 0.026), coat if i < 3 else dark) for i in range(4)]
    parts += [*far, Part(limb(-0.19, back, 0.12, back + 0.01, 0.105, 0.095), coat)]
    for i in range(3):
        x = -0.17 + 0.11 * i
        parts.append(Part([(x, back + 0.1), (x + 0.045, back + 0.1), (x + 0.03, back - 0.01)], dark))
    hx, hy = 0.22, back + 0.155
    parts += [
        *near,
        Part([(hx - 0.105, hy + 0.03), (hx - 0.1, hy + 0.2), (hx - 0.005, hy + 0.09)], dark),
        Part([(hx + 0.005, hy + 0.09), (hx + 0.1, hy + 0.2), (hx + 0.105, hy + 0.03)], coat),
        Part(ellipse(hx, hy, 0.115, 0.105), coat),
        Part(ellipse(hx + 0.05, hy - 0.035, 0.05, 0.04), toward(coat, (250, 245, 240), 0.45)),
        Part(ellipse(hx + 0.0, hy + 0.02, 0.018, 0.022), (150, 170, 60)),
        Part(ellipse(hx + 0.07, hy + 0.02, 0.018, 0.022), (150, 170, 60)),
        Part(ellipse(hx + 0.065, hy - 0.025, 0.012, 0.01), (190, 110, 110)),
    ]
    return parts
