"""How birds look: on the ground with folded wings, in the air with spread ones that beat."""

from __future__ import annotations

from math import sin

from agent.capture.scene.outline import DARK, Look, Outline, Part, Pose, ellipse, limb
from agent.capture.scene.palette import RGB, shade

_BEAK: RGB = (240, 150, 30)
_TAKE_OFF = 0.2  # at this height, in sizes, the wings are fully spread


def bird(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    air = min(1.0, pose.height / _TAKE_OFF)
    body, dark = look.body, shade(look.body, 0.8)
    edge = dark if look.colour != "black" else (78, 78, 84)
    beat = sin(pose.phase)
    step = 0.11 * pose.stride * beat
    plump = 0.165 + 0.03 * t[0]
    hx, hy = 0.26 + 0.05 * air, 0.6 + 0.04 * t[1] - 0.14 * air + 0.02 * pose.stride * abs(beat)
    parts = [_wing((0.02, 0.47), (-0.1, 0.82 + 0.34 * beat), shade(body, 0.72), air)]
    for swing, tone in ((-step, 0.72), (step, 1.0)):
        foot = (0.02 + swing - 0.24 * air, 0.015 + 0.2 * air)
        parts.append(Part(limb(-0.01, 0.27, *foot, 0.024, 0.018), shade(_BEAK, tone)))
        parts.append(Part(limb(*foot, foot[0] + 0.09 - 0.12 * air, foot[1], 0.018, 0.014), shade(_BEAK, tone)))
    fan = 0.05 + 0.05 * air
    tail = [(-0.2, 0.42), (-0.2, 0.3), (-0.48, 0.2 + 0.12 * air - fan), (-0.52, 0.26 + 0.12 * air + fan)]
    parts += [
        Part(tail, dark),
        Part(ellipse(0.0, 0.38, 0.28, plump, 0.32 - 0.26 * air), body),
        Part(limb(0.15, 0.44, hx - 0.02, hy - 0.02, 0.12, 0.095), body),
        Part(ellipse(hx, hy, 0.115, 0.11), body),
        Part([(hx + 0.085, hy + 0.055), (hx + 0.085, hy - 0.065), (hx + 0.25, hy - 0.025)], _BEAK),
        Part(ellipse(hx + 0.045, hy + 0.025, 0.034, 0.036), (236, 236, 230)),
        Part(ellipse(hx + 0.052, hy + 0.025, 0.02, 0.022), DARK),
        _wing((0.0, 0.42), (-0.24, 0.1 + 0.42 * beat), edge, air),
    ]
    return parts


def _wing(root: tuple[float, float], tip: tuple[float, float], colour: RGB, air: float) -> Part:
    """A wing: folded along the back (air 0) to spread towards `tip` (air 1)."""
    x, y = root
    folded: Outline = [
        (x + 0.13, y + 0.01),
        (x + 0.02, y + 0.07),
        (x - 0.18, y),
        (x - 0.42, y - 0.15),
        (x - 0.1, y - 0.12),
    ]
    spread: Outline = [
        (x + 0.17, y),
        (tip[0] * 0.5 + 0.14, (y + tip[1]) / 2 + 0.03),
        tip,
        (tip[0] - 0.13, tip[1] + (0.06 if tip[1] < y else -0.06)),
        (x - 0.18, y - 0.02),
    ]
    mixed = [(a + (c - a) * air, b + (d - b) * air) for (a, b), (c, d) in zip(folded, spread, strict=True)]
    return Part(mixed, colour)
