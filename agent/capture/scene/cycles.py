"""How bicycles and motorbikes look: ridden, or parked on a stand with nobody on them."""

from __future__ import annotations

from math import cos, pi, sin

from agent.capture.scene.outline import DARK, Look, Outline, Part, Point, Pose, ellipse, limb, slab
from agent.capture.scene.palette import RGB, shade, toward
from agent.capture.scene.rider import rider
from agent.capture.scene.vehicles import TYRE

_CHROME: RGB = (168, 168, 172)


def _ring(x: float, y: float, r: float, hole: float) -> Outline:
    """A circle with a hole, through which the background is seen."""
    turn = [(cos(pi * i / 12), sin(pi * i / 12)) for i in range(25)]
    return [(x + r * c, y + r * s) for c, s in turn] + [(x + hole * c, y + hole * s) for c, s in reversed(turn)]


def _stand(x: float, y: float, pose: Pose) -> Part:
    """The stand of a parked one; under way it is folded out of sight."""
    foot = (x, y + 1e-4) if pose.moving else (x - 0.1, 0.012)
    r = 1e-4 if pose.moving else 0.018
    return Part(limb(x, y, *foot, r, r), (92, 92, 96))


def bicycle(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    body, dark = look.body, shade(look.body, 0.78)
    r, reach = 0.195, 0.305
    saddle = (-0.135, 0.52 + 0.03 * t[0])
    pedals, bar = (-0.045, 0.19), (0.2, 0.56 + 0.04 * t[1])
    neck = (bar[0] + 0.005, bar[1] - 0.1)
    turn = pose.phase * 0.5 - 0.5 - t[2]
    crank = (0.08 * cos(turn), 0.08 * sin(turn))
    near, far = (pedals[0] + crank[0], pedals[1] + crank[1]), (pedals[0] - crank[0], pedals[1] - crank[1])
    hip, hand = (saddle[0] + 0.01, saddle[1] + 0.05), (bar[0] + 0.05, bar[1] + 0.015)
    behind, before = rider(look, pose, hip, (hip[0] + 0.13, hip[1] + 0.31), hand, (near, far), False)
    wheels: list[Part] = []
    for x in (-reach, reach):
        wheels.append(Part(_ring(x, r, r, r - 0.045), TYRE))
        wheels.append(Part(_ring(x, r, r - 0.026, r - 0.062), body))
        wheels += [_spoke(x, r, r - 0.05, pose.phase + a) for a in (0.0, pi / 2)]
        wheels.append(Part(ellipse(x, r, 0.03, 0.03), dark))
    tubes: tuple[tuple[Point, Point], ...] = (
        ((-reach, r), pedals),
        ((-reach, r), (saddle[0], saddle[1] - 0.09)),
        (pedals, (saddle[0], saddle[1] - 0.03)),
        (pedals, neck),
        ((saddle[0], saddle[1] - 0.08), neck),
        (bar, (reach, r)),
    )
    frame = [Part(limb(*a, *b, 0.029, 0.029), dark if i < 2 else body) for i, (a, b) in enumerate(tubes)]
    return [
        *behind,
        *wheels,
        _stand(-0.1, 0.19, pose),
        *frame,
        Part(limb(saddle[0] - 0.07, saddle[1], saddle[0] + 0.06, saddle[1] - 0.005, 0.03, 0.018), DARK),
        Part(limb(*bar, *hand, 0.022, 0.026), DARK),
        Part(ellipse(*pedals, 0.042, 0.042), (70, 70, 74)),
        Part(limb(*pedals, *near, 0.015, 0.015), (70, 70, 74)),
        *before,
    ]


def _spoke(x: float, y: float, r: float, turn: float) -> Part:
    c, s = r * cos(turn), r * sin(turn)
    return Part(limb(x - c, y - s, x + c, y + s, 0.006, 0.006), _CHROME)


def motorbike(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    body, dark = look.body, shade(look.body, 0.86)
    r, reach = 0.175, 0.325
    hump = 0.5 + 0.03 * t[0]
    hand = (0.15, 0.62)
    hip = (-0.13, 0.53)
    behind, before = rider(look, pose, hip, (-0.03, 0.84), hand, ((0.0, 0.2), (0.02, 0.2)), True)
    lit = pose.moving
    wheels: list[Part] = []
    for x in (-reach, reach):
        wheels.append(Part(_ring(x, r, r, r - 0.065), TYRE))
        wheels.append(Part(_ring(x, r, r - 0.05, r - 0.085), body))
        wheels += [_spoke(x, r, r - 0.06, pose.phase + a) for a in (0.0, pi / 3, 2 * pi / 3)]
        wheels.append(Part(ellipse(x, r, 0.055, 0.055), _CHROME))
    tank = [(-0.1, 0.42), (-0.07, hump - 0.03), (0.02, hump + 0.03), (0.14, hump + 0.03), (0.2, 0.5), (0.16, 0.38)]
    tail = [(-0.02, 0.27), (-0.05, 0.46), (-0.3, 0.48), (-0.48, 0.56), (-0.47, 0.44), (-0.32, 0.32), (-0.16, 0.26)]
    fairing = [
        (0.12, 0.6),
        (0.22, 0.64),
        (0.36, 0.5),
        (0.3, 0.38),
        (0.2, 0.2),
        (-0.08, 0.1),
        (-0.04, 0.2),
        (0.06, 0.42),
    ]
    guard = [(0.5, 0.26), (0.43, 0.37), (0.32, 0.4), (0.2, 0.34), (0.2, 0.29), (0.32, 0.33), (0.4, 0.31)]
    return [
        *behind,
        *wheels,
        _stand(-0.06, 0.19, pose),
        Part(limb(-reach, r, -0.02, 0.2, 0.035, 0.04), (74, 74, 78)),
        Part(limb(0.19, 0.54, reach, r, 0.026, 0.024), _CHROME),
        Part(slab(-0.15, 0.13, 0.1, 0.36, 0.04), (84, 84, 90)),
        Part(slab(-0.1, 0.18, 0.08, 0.22, 0.01), (130, 130, 134)),
        Part(limb(-0.05, 0.11, -0.42, 0.14, 0.022, 0.03), _CHROME),
        Part(tail, dark),
        Part(guard, body),
        Part(fairing, body),
        Part(tank, toward(body, (255, 255, 255), 0.1)),
        Part(limb(-0.08, 0.465, -0.3, 0.485, 0.036, 0.03), DARK),
        Part(limb(0.2, 0.56, *hand, 0.02, 0.024), DARK),
        Part(ellipse(0.32, 0.5, 0.034, 0.05), (255, 246, 196) if lit else (196, 196, 190), lit),
        Part(ellipse(-0.465, 0.5, 0.02, 0.028), (236, 60, 40) if lit else (120, 40, 36), lit),
        *before,
    ]
