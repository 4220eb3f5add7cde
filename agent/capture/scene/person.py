"""How a person looks: joint angles from the pose, then limbs, trunk, head and what is carried, back to front.

Angles in radians from straight down, positive ahead; a knee bends back, an elbow ahead.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import NamedTuple

from agent.capture.scene.outline import DARK, Look, Outline, Part, Point, Pose, ellipse, limb, slab
from agent.capture.scene.palette import RGB, shade

THIGH, SHIN, UPPER_ARM, FOREARM = 0.24, 0.22, 0.16, 0.15
CARRIED: RGB = (124, 104, 84)  # cardboard, grey enough to pass for nobody's clothes


class Joints(NamedTuple):
    """Lean of the trunk, and for the limbs nearer to the camera and farther away: where they point, how they bend."""

    lean: float
    thigh: float
    knee: float
    far_thigh: float
    far_knee: float
    arm: float
    elbow: float
    far_arm: float
    far_elbow: float

    def toward(self, other: Joints, share: float) -> Joints:
        return Joints(*(a + (b - a) * share for a, b in zip(self, other, strict=True)))


SITTING = Joints(-0.12, 1.85, 0.6, 1.7, 0.3, -0.55, 0.1, 0.75, 0.5)
CROUCHING = Joints(0.75, 1.8, 2.2, 1.45, 1.75, 0.45, 0.5, 0.8, 0.5)
HIP_SITTING = 0.085


def person(look: Look, pose: Pose) -> list[Part]:
    """Parts of a person, as many and in the same order in every pose."""
    t = look.traits
    broad = 0.9 + 0.25 * t[0]
    joints = _joints(pose, 0.06 + 0.12 * t[4])
    hip = _hip(joints, pose)
    sleeve, skin = look.body, look.skin
    forearm = skin if t[3] > 0.6 else sleeve

    def leg(x: float, thigh: float, knee: float, tone: float) -> list[Part]:
        kx, ky, ax, ay = _bones(x, hip, thigh, THIGH, thigh - knee, SHIN)
        cloth, point = shade(look.second, tone), 0.6 * max(-0.9, min(1.4, thigh - knee))
        return [
            Part(limb(x, hip, kx, ky, 0.062 * broad, 0.05 * broad), cloth),
            Part(limb(kx, ky, ax, ay, 0.05 * broad, 0.04 * broad), cloth),
            Part(limb(ax, ay - 0.005, *_along(ax, ay - 0.01, point, 0.06), 0.03, 0.024), shade(DARK, tone)),
        ]

    def arm(shoulder: float, elbow: float, tone: float, out: float = 0.0) -> list[Part]:
        sx, sy = _leaning([(out, 0.285)], joints.lean, hip)[0]
        ex, ey, hx, hy = _bones(sx, sy, shoulder, UPPER_ARM, shoulder + elbow, FOREARM)
        return [
            Part(limb(ex, ey, hx, hy, 0.034, 0.028), shade(forearm, tone)),
            Part(limb(sx, sy, ex, ey, 0.046 * broad, 0.038 * broad), shade(sleeve, tone)),
            Part(ellipse(hx, hy, 0.03, 0.03), shade(skin, tone)),
        ]

    return [
        *arm(joints.far_arm, joints.far_elbow, 0.72),
        *leg(0.035, joints.far_thigh, joints.far_knee, 0.78),
        *leg(-0.03, joints.thigh, joints.knee, 1.0),
        *_carried(hip, joints.lean, pose.carry),
        *_trunk(look, broad, joints.lean, hip),
        *arm(joints.arm, joints.elbow, 0.9, 0.085 * pose.wave),  # a waving arm is clear of the head
    ]


def _joints(pose: Pose, rest: float) -> Joints:
    """Angles of a pose; `rest` is how far from the body idle arms hang."""
    step, ahead = sin(pose.phase), cos(pose.phase)
    swing = pose.stride * (1 if step >= 0 else -1) * abs(step) ** 0.6
    flail = sin(min(pose.tilt, pi - pose.tilt)) * (1.0 if pose.tilt < 1.3 else 0.35)
    joints = Joints(
        0.06 * pose.stride,
        0.56 * swing + 0.25 * flail,
        0.9 * pose.stride * max(0.0, ahead) + 0.5 * flail,
        -0.56 * swing - 0.2 * flail,
        0.9 * pose.stride * max(0.0, -ahead) + 0.5 * flail,
        -0.6 * swing - 0.5 * rest - 2.2 * flail,
        0.25 * pose.stride + 0.15,
        0.6 * swing + rest + 1.9 * flail,
        0.25 * pose.stride + 0.15,
    )
    if pose.run:
        lifted, far_lifted = (
            0.35 + 1.25 * max(0.0, s) + 0.9 * max(0.0, a) for s, a in ((step, ahead), (-step, -ahead))
        )
        running = Joints(0.4, 0.3 + 0.9 * step, lifted, 0.3 - 0.9 * step, far_lifted, 0.1 - step, 1.6, 0.1 + step, 1.6)
        joints = joints.toward(running, pose.run)
    joints = joints.toward(SITTING, pose.sit).toward(CROUCHING, pose.crouch)
    if pose.carry:
        joints = joints.toward(
            joints._replace(lean=joints.lean - 0.08, arm=0.45, elbow=0.95, far_arm=0.55, far_elbow=0.9), pose.carry
        )
    if pose.wave:
        joints = joints.toward(
            joints._replace(thigh=-0.13, far_thigh=0.13, arm=2.5 + 0.25 * step, elbow=0.0), pose.wave
        )
    return joints


def _hip(joints: Joints, pose: Pose) -> float:
    """Height of the hip: a foot is on the ground, or the seat; a runner flies a little."""
    feet = (
        THIGH * cos(thigh) + SHIN * cos(thigh - knee)
        for thigh, knee in ((joints.thigh, joints.knee), (joints.far_thigh, joints.far_knee))
    )
    hip = max(HIP_SITTING, 0.036 + max(feet))
    return hip + (0.45 - hip) * pose.run


def _trunk(look: Look, broad: float, lean: float, hip: float) -> list[Part]:
    """Torso, its shaded back, neck, face, hair; heights from the hip."""
    t = look.traits
    w, h = 0.112 * broad, 0.088 * broad
    top, low = 0.335, -0.03
    shoulders: Outline = [(w, top - 0.05), (w * 0.8, top - 0.008), (0.03, top)]
    left: Outline = [(-x, y) for x, y in reversed(shoulders)]
    torso = [(-h, low), (h, low), (h * 1.02, low + 0.1), *shoulders, *left, (-h * 1.02, low + 0.1)]
    back = [(-h, low), (-h * 0.35, low), (-w * 0.45, top - 0.02), (-w * 0.8, top - 0.008), (-w, top - 0.05)]
    hx, hy = 0.012, 0.418
    fringe = 0.35 + 0.5 * t[5]
    crown = [(hx + 0.066 * cos(a), hy + 0.078 * sin(a)) for a in (fringe + i * (3.9 - fringe) / 9 for i in range(10))]
    tail = 0.075 if t[6] > 0.55 else 0.02
    outlines = (
        (torso, look.body),
        (back, shade(look.body, 0.84)),
        (limb(0.0, top - 0.012, hx, hy - 0.03, 0.035, 0.033), shade(look.skin, 0.88)),
        (ellipse(hx, hy, 0.06, 0.072), look.skin),
        ([*crown, (hx - 0.03, hy + 0.005), (hx - 0.005, hy + 0.03)], look.hair),
        (limb(hx - 0.045, hy + 0.02, hx - 0.055, hy - tail, 0.03, 0.024), look.hair),
    )
    return [Part(_leaning(outline, lean, hip), colour) for outline, colour in outlines]


def _carried(hip: float, lean: float, carry: float) -> list[Part]:
    """A box in front of the belly with its tape; nothing carried is a point behind the trunk."""
    parts: list[tuple[Outline, RGB]] = [
        (slab(0.1, -0.06, 0.42, 0.2, 0.012), CARRIED),
        (slab(0.23, -0.06, 0.29, 0.2, 0.005), shade(CARRIED, 1.25)),
    ]
    middle = (0.0, 0.15)
    return [
        Part(
            _leaning(
                [(middle[0] + (x - middle[0]) * carry, middle[1] + (y - middle[1]) * carry) for x, y in o], lean, hip
            ),
            colour,
        )
        for o, colour in parts
    ]


def _leaning(outline: Outline, lean: float, hip: float) -> Outline:
    """Points given from the hip, upright, as they are on a trunk that leans."""
    c, s = cos(lean), sin(lean)
    return [(x * c + y * s, hip + y * c - x * s) for x, y in outline]


def _along(x: float, y: float, angle: float, length: float) -> Point:
    """`length` on from a point, at right angles to a limb that points at `angle`."""
    return x + length * cos(angle), y + length * sin(angle)


def _bones(x: float, y: float, first: float, a: float, second: float, b: float) -> tuple[float, float, float, float]:
    """Where two bones of length a and b from (x, y) meet and end."""
    mx, my = x + a * sin(first), y - a * cos(first)
    return mx, my, mx + b * sin(second), my - b * cos(second)
