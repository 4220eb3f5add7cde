"""How a closed box looks."""

from __future__ import annotations

from agent.capture.scene.outline import Look, Part, Pose, slab
from agent.capture.scene.palette import RGB, shade, toward

_TAPE: RGB = (212, 184, 132)


def box(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    body, black = look.body, look.colour == "black"
    line = (88, 88, 92) if black else shade(body, 0.6)
    h, deep, corner = 0.56 + 0.2 * t[0], 0.17 + 0.06 * t[1], 0.24
    lid, slope = h * 0.78, deep / (0.5 - corner)
    lift = deep * 0.5
    mid = (corner - 0.5) / 2
    return [
        Part([(-0.5, h), (-0.24, h + deep), (0.5, h + deep), (corner, h)], toward(body, (255, 255, 255), 0.28)),
        Part(
            [(corner, 0.0), (0.5, deep), (0.5, h + deep), (corner, h)], shade(body, 0.62) if not black else (52, 52, 56)
        ),
        Part(slab(-0.5, 0.0, corner, h, 0.0), body),
        Part(slab(-0.5, lid - 0.018, corner, lid + 0.018, 0.0), line),
        Part(
            [(corner, lid - 0.018), (0.5, lid - 0.018 + deep), (0.5, lid + 0.018 + deep), (corner, lid + 0.018)], line
        ),
        Part(
            [
                (mid - 0.06, h),
                (mid - 0.06 + lift / slope * 2, h + deep),
                (mid + 0.06 + lift / slope * 2, h + deep),
                (mid + 0.06, h),
            ],
            _TAPE,
        ),
        Part(slab(mid - 0.06, h * 0.56, mid + 0.06, h, 0.0), _TAPE),
        Part(slab(mid - 0.12, h * 0.22, mid + 0.12, h * 0.34, 0.02), line),
    ]
