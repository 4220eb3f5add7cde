"""Who rides a bicycle or a motorbike; nobody sits on a parked one."""

from __future__ import annotations

from math import hypot, sqrt

from agent.capture.scene.outline import DARK, Look, Part, Point, Pose, ellipse, limb
from agent.capture.scene.palette import RGB, shade, toward

_BONE = 0.255  # thigh and shin


def _leg(hip: Point, foot: Point, cloth: RGB, tone: float) -> list[Part]:
    """A leg from hip to foot, its knee ahead."""
    dx, dy = foot[0] - hip[0], foot[1] - hip[1]
    far = hypot(dx, dy)
    out = sqrt(max(0.0, _BONE**2 - far**2 / 4)) / far
    knee = (hip[0] + dx / 2 - dy * out, hip[1] + dy / 2 + dx * out)
    return [
        Part(limb(*hip, *knee, 0.062, 0.05), shade(cloth, tone)),
        Part(limb(*knee, *foot, 0.05, 0.038), shade(cloth, tone)),
        Part(limb(foot[0] - 0.02, foot[1] - 0.01, foot[0] + 0.06, foot[1] - 0.015, 0.03, 0.024), DARK),
    ]


def rider(
    look: Look, pose: Pose, hip: Point, shoulder: Point, hand: Point, feet: tuple[Point, Point], helmet: bool
) -> tuple[list[Part], list[Part]]:
    """Far leg (behind the machine) and the rest (before it). Without a rider all shrinks to a dot at the hip."""
    shirt = toward(look.second, (255, 255, 255), 0.3)
    elbow = ((shoulder[0] + hand[0]) / 2 + 0.01, (shoulder[1] + hand[1]) / 2 - 0.05)
    hx, hy = shoulder[0] + 0.06, shoulder[1] + 0.135
    behind = _leg(hip, feet[1], look.second, 0.72)
    before = [
        *_leg(hip, feet[0], look.second, 1.0),
        Part(limb(*hip, *shoulder, 0.078, 0.088), shirt),
        Part(limb(*shoulder, hx - 0.01, hy - 0.03, 0.036, 0.036), shade(look.skin, 0.88)),
        Part(ellipse(hx, hy, 0.068, 0.08), look.skin),
        Part(limb(*shoulder, *elbow, 0.046, 0.04), shade(shirt, 0.82)),
        Part(limb(*elbow, *hand, 0.038, 0.03), shade(look.skin, 0.95)),
    ]
    if helmet:
        before.append(Part(ellipse(hx, hy, 0.092, 0.1), look.body))
        before.append(Part(limb(hx + 0.035, hy, hx + 0.075, hy - 0.005, 0.036, 0.03), (52, 62, 72)))
    else:
        before.append(Part(limb(hx - 0.04, hy + 0.035, hx + 0.025, hy + 0.06, 0.052, 0.032), look.hair))
    if pose.moving:
        return behind, before
    return [_dot(p, hip) for p in behind], [_dot(p, hip) for p in before]


def _dot(part: Part, at: Point) -> Part:
    return Part([(at[0] + 1e-4 * x, at[1] + 1e-4 * y) for x, y in part.outline], part.colour, part.glow)
