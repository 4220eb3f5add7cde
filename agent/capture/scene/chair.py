"""How a chair looks."""

from __future__ import annotations

from agent.capture.scene.outline import Look, Part, Pose, limb
from agent.capture.scene.palette import shade, toward


def chair(look: Look, pose: Pose) -> list[Part]:
    t = look.traits
    body, black = look.body, look.colour == "black"
    far, near = shade(body, 0.62) if not black else (58, 58, 62), shade(body, 0.85)
    seat, lean, thick = 0.44 + 0.03 * t[0], 0.05 + 0.06 * t[1], 0.032 + 0.008 * t[2]
    cover = toward(body, (255, 255, 255), 0.12)
    gap = 0.1  # how far the far side of the chair is shifted
    left, right, up = -0.3, 0.3, 0.055
    post, rail = (left + 0.02, seat), (left - lean, 0.97)
    back_x, back_y = rail[0] - post[0], rail[1] - post[1]
    far_post = (post[0] + gap, post[1] + up)
    parts = [
        Part(limb(left + gap + 0.03, seat, left + gap, up, thick, thick * 0.8), far),
        Part(limb(right + gap - 0.04, seat, right + gap, up, thick, thick * 0.8), far),
        Part(limb(*far_post, far_post[0] + back_x, far_post[1] + back_y, thick, thick), far),
    ]
    for share in (0.42, 0.86):  # the back's two boards, from near post to far post
        x, y = post[0] + back_x * share, post[1] + back_y * share
        w, h = back_x * 0.13, back_y * 0.13
        board = [(x - w, y - h), (x + gap - w, y + up - h), (x + gap + w, y + up + h), (x + w, y + h)]
        parts.append(Part(board, cover))
    parts += [
        Part(
            [
                (left, seat + 0.03),
                (left + gap, seat + up + 0.03),
                (right + gap, seat + up + 0.03),
                (right, seat + 0.03),
            ],
            cover,
        ),
        Part([(left, seat - 0.05), (left, seat + 0.03), (right, seat + 0.03), (right, seat - 0.05)], body),
        Part(
            [
                (right, seat - 0.05),
                (right, seat + 0.03),
                (right + gap, seat + 0.03 + up),
                (right + gap, seat + up - 0.05),
            ],
            near,
        ),
        Part(limb(left + 0.03, seat - 0.03, left - 0.01, 0.03, thick * 1.2, thick), body),
        Part(limb(right - 0.04, seat - 0.03, right, 0.03, thick * 1.2, thick), body),
        Part(limb(*post, *rail, thick * 1.25, thick * 1.25), body),
    ]
    return parts
