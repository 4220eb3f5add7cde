"""How cars, trucks and buses look, under way and parked."""

from __future__ import annotations

from math import cos, pi, sin

from agent.capture.scene.outline import Look, Part, Pose, ellipse, slab
from agent.capture.scene.palette import RGB, shade, toward

TYRE: RGB = (42, 42, 45)


def _wheel(x: float, r: float, pose: Pose) -> list[Part]:
    turn = pose.phase
    hub: RGB = (150, 150, 152) if pose.moving else (176, 176, 178)
    bar = [(x + r * 0.5 * cos(turn + a), r + r * 0.5 * sin(turn + a)) for a in (-0.3, 0.3, pi - 0.3, pi + 0.3)]
    return [
        Part(ellipse(x, r, r, r), TYRE),
        Part(ellipse(x, r, r * 0.58, r * 0.58), hub),
        Part(bar, shade(hub, 0.8 if pose.moving else 0.45)),
    ]


def _glass(pose: Pose) -> RGB:
    """Under way the lit cabin shows through the windows; a parked vehicle's are dark."""
    return (178, 206, 218) if pose.moving else (46, 54, 62)


def _lamps(x: float, y: float, r: float, pose: Pose) -> list[Part]:
    lit = pose.moving
    return [
        Part(ellipse(x, y, r, r * 0.8), (255, 246, 196) if lit else (196, 196, 190), lit),
        Part(ellipse(-x, y, r * 0.6, r * 0.8), (236, 60, 40) if lit else (120, 40, 36), lit),
    ]


def _driver(x: float, y: float, r: float, look: Look, pose: Pose) -> Part:
    """The driver's head; nobody sits in a parked vehicle, so there it shrinks to nothing."""
    size = r if pose.moving else 1e-4
    return Part(ellipse(x, y, size, size * 1.2), shade(look.hair, 0.9))


def car(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    body, dark = look.body, shade(look.body, 0.72)
    r = 0.078 + 0.012 * t[0]
    base, belt, roof = r * 0.75, 0.235 + 0.03 * t[1], 0.365 + 0.05 * t[2]
    back, front = -0.36 + 0.16 * t[3] * (t[4] > 0.4), 0.2 + 0.06 * t[5]
    hull = [
        (-0.5, base + 0.02),
        (-0.485, base),
        (0.485, base),
        (0.5, base + 0.03),
        (0.495, belt - 0.06),
        (0.44, belt - 0.025),
        (front, belt + 0.005),
        (back - 0.06, belt + 0.01),
        (-0.475, belt - 0.01),
        (-0.5, belt - 0.06),
    ]
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
    parts = [Part(cabin, shade(body, 0.9)), Part(hull, body)]
    parts.append(Part(slab(-0.49, base, 0.49, base + 0.045, 0.01), dark))
    parts.append(Part(slab(-0.44, belt - 0.05, 0.42, belt - 0.03, 0.005), toward(body, (255, 255, 255), 0.22)))
    parts += [Part(rear, glass), Part(fore, glass), _driver(mid + 0.07, belt + 0.05, 0.035, look, pose)]
    parts.append(Part(slab(mid - 0.005, base + 0.045, mid + 0.004, belt - 0.01, 0.0), dark))
    parts += _lamps(0.475, belt - 0.075, 0.026, pose)
    return parts + _wheel(-0.3, r, pose) + _wheel(0.3, r, pose)


def truck(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    body = look.body
    r, floor = 0.065 + 0.008 * t[0], 0.115
    top, nose = 0.52 + 0.08 * t[1], 0.36 + 0.06 * t[2]
    split = 0.2 + 0.03 * t[3]
    parts = [Part(slab(-0.49, 0.07, 0.49, 0.13, 0.01), (58, 58, 62))]
    parts.append(Part(slab(-0.5, floor, split, top, 0.006), body))
    parts.append(Part(slab(-0.5, floor, split, floor + 0.05, 0.004), shade(body, 0.7)))
    parts.append(Part(slab(-0.5, top - 0.025, split, top, 0.004), toward(body, (255, 255, 255), 0.25)))
    for i in range(1, 5):
        x = -0.5 + (split + 0.5) * i / 5
        parts.append(Part(slab(x - 0.004, floor + 0.05, x + 0.004, top - 0.03, 0.0), shade(body, 0.8)))
    cab = [
        (split + 0.02, 0.08),
        (0.49, 0.08),
        (0.5, 0.1),
        (0.495, 0.24),
        (0.45, nose - 0.01),
        (0.42, nose),
        (split + 0.02, nose),
    ]
    parts.append(Part(cab, shade(body, 0.9)))
    window = [(split + 0.07, 0.245), (0.475, 0.235), (0.44, nose - 0.03), (split + 0.07, nose - 0.03)]
    parts += [Part(window, _glass(pose)), _driver(split + 0.14, 0.275, 0.03, look, pose)]
    parts.append(Part(slab(split + 0.02, 0.08, 0.495, 0.105, 0.004), (70, 70, 74)))
    parts += _lamps(0.48, 0.145, 0.022, pose)
    return parts + _wheel(-0.36, r, pose) + _wheel(-0.2, r, pose) + _wheel(0.36, r, pose)


def bus(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    body, glass = look.body, _glass(pose)
    r, floor, roof = 0.056 + 0.006 * t[0], 0.05, 0.37 + 0.04 * t[1]
    sill, head = roof - 0.185, roof - 0.055
    hull = [
        (-0.5, floor + 0.01),
        (-0.49, floor),
        (0.49, floor),
        (0.5, floor + 0.02),
        (0.5, sill),
        (0.48, roof - 0.03),
        (0.45, roof),
        (-0.47, roof),
        (-0.495, roof - 0.025),
    ]
    parts = [Part(hull, body), Part(slab(-0.47, roof - 0.03, 0.45, roof, 0.012), toward(body, (255, 255, 255), 0.3))]
    parts.append(Part(slab(-0.5, floor, 0.49, floor + 0.04, 0.008), shade(body, 0.7)))
    for i in range(6):
        x = -0.475 + 0.132 * i
        parts.append(Part(slab(x, sill, x + 0.108, head, 0.012), glass))
        parts.append(_driver(x + 0.04 + 0.03 * t[2], sill + 0.03, 0.022 if i % 2 or t[3] > 0.5 else 1e-4, look, pose))
    parts.append(Part(slab(0.325, floor + 0.025, 0.4, head, 0.008), glass))  # the door
    parts.append(Part(slab(0.36, floor + 0.025, 0.366, head, 0.0), shade(body, 0.6)))
    parts.append(Part([(0.425, sill - 0.02), (0.5, sill - 0.02), (0.484, head + 0.01), (0.425, head + 0.01)], glass))
    parts.append(_driver(0.45, sill + 0.03, 0.024, look, pose))
    sign: RGB = (255, 214, 120) if pose.moving else (70, 70, 66)
    parts.append(Part(slab(0.3, roof - 0.045, 0.465, roof - 0.012, 0.004), sign, pose.moving))
    parts += _lamps(0.485, floor + 0.055, 0.018, pose)
    return parts + _wheel(-0.31, r, pose) + _wheel(0.26, r, pose)
