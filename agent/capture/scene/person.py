"""How a person looks: walking, standing, falling, lying."""

from __future__ import annotations

from math import cos, pi, sin

from agent.capture.scene.outline import DARK, Look, Part, Pose, ellipse, limb
from agent.capture.scene.palette import shade


def person(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    broad = 0.9 + 0.25 * t[0]
    wave = sin(pose.phase)
    swing = pose.stride * (1 if wave >= 0 else -1) * abs(wave) ** 0.6
    flail = sin(min(pose.tilt, pi - pose.tilt)) * (1.0 if pose.tilt < 1.3 else 0.35)
    hip, thigh = 0.50, 0.24
    drop = 0.48 * (1 - cos(0.52 * swing)) + 0.004

    def leg(angle: float, bend: float, tone: float, x: float) -> list[Part]:
        top = hip - drop
        kx, ky = x + thigh * sin(angle), top - thigh * cos(angle)
        ax, ay = kx + 0.22 * sin(angle - bend), ky - 0.22 * cos(angle - bend)
        cloth = shade(look.second, tone)
        return [
            Part(limb(x, top, kx, ky, 0.062 * broad, 0.05 * broad), cloth),
            Part(limb(kx, ky, ax, ay, 0.05 * broad, 0.04 * broad), cloth),
            Part(limb(ax, ay - 0.005, ax + 0.06, ay - 0.012, 0.03, 0.024), shade(DARK, tone)),
        ]

    def arm(angle: float, bend: float, tone: float) -> list[Part]:
        sx, sy = 0.0, 0.785 - drop
        ex, ey = sx + 0.16 * sin(angle), sy - 0.16 * cos(angle)
        hx, hy = ex + 0.15 * sin(angle + bend), ey - 0.15 * cos(angle + bend)
        sleeve = shade(look.body, tone)
        short = t[3] > 0.6
        return [
            Part(limb(ex, ey, hx, hy, 0.034, 0.028), shade(look.skin, tone) if short else sleeve),
            Part(limb(sx, sy, ex, ey, 0.046 * broad, 0.038 * broad), sleeve),
            Part(ellipse(hx, hy, 0.03, 0.03), shade(look.skin, tone)),
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
        (-h, low),
        (h, low),
        (h * 1.02, low + 0.1),
        (w + lean, top - 0.05),
        (w * 0.8 + lean, top - 0.008),
        (0.03 + lean, top),
        (-0.03 + lean, top),
        (-w * 0.8 + lean, top - 0.008),
        (-w + lean, top - 0.05),
        (-h * 1.02, low + 0.1),
    ]
    side = [
        (-h, low),
        (-h * 0.35, low),
        (-w * 0.45 + lean, top - 0.02),
        (-w * 0.8 + lean, top - 0.008),
        (-w + lean, top - 0.05),
    ]
    parts.append(Part(torso, look.body))
    parts.append(Part(side, shade(look.body, 0.84)))
    hx, hy = 0.012 + lean, 0.918 - drop
    parts.append(Part(limb(lean, top - 0.012, hx, hy - 0.03, 0.035, 0.033), shade(look.skin, 0.88)))
    parts.append(Part(ellipse(hx, hy, 0.06, 0.072), look.skin))
    fringe = 0.35 + 0.5 * t[5]
    crown = [(hx + 0.066 * cos(a), hy + 0.078 * sin(a)) for a in (fringe + i * (3.9 - fringe) / 9 for i in range(10))]
    parts.append(Part([*crown, (hx - 0.03, hy + 0.005), (hx - 0.005, hy + 0.03)], look.hair))
    tail = 0.075 if t[6] > 0.55 else 0.02
    parts.append(Part(limb(hx - 0.045, hy + 0.02, hx - 0.055, hy - tail, 0.03, 0.024), look.hair))
    parts += arm(-0.6 * swing - rest * 0.5 - 2.2 * flail, 0.25 * pose.stride + 0.15, 0.9)
    return parts
