"""Composed clips: pieces of single shots cut together, disturbed on purpose, with the truth known exactly.

Real cut lists are short. Here hundreds of transitions, and as many things that only look like one, are made from
footage that has none. Pictures are 80×80, as much as cut detection sees of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SIDE = 80
Frames = NDArray[np.float32]
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Shot:
    """A stretch without a cut. source: the footage that it is of. frames: uint8 (n, 80, 80, 3)."""

    source: str
    frames: NDArray[np.uint8]


@dataclass(slots=True)
class Edit:
    """frames: float32 (80, 80, 3) each, grey levels. cuts: first frames of new shots. gradual: (start, first whole
    frame, kind). disturbed: (first frame, frames, what). jumps: those of the cuts that stay with the same footage."""

    frames: list[Frames] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    gradual: list[tuple[int, int, str]] = field(default_factory=list)
    disturbed: list[tuple[int, int, str]] = field(default_factory=list)
    jumps: list[int] = field(default_factory=list)

    def pictures(self, rng: Rng) -> NDArray[np.uint8]:
        """The frames as a camera would give them: a quarter of the clips grey, a fifth with bars, all noisy."""
        frames = np.stack(self.frames)
        if rng.random() < 0.25:
            frames = np.repeat(frames.mean(axis=3, keepdims=True), 3, axis=3)
        if rng.random() < 0.2:
            frames[:, :10] = frames[:, -10:] = 0
        noise = rng.normal(0, rng.uniform(0, 1.5), frames.shape).astype(np.float32)
        return np.asarray(np.clip(np.rint(frames + noise), 0, 255), np.uint8)


def compose(rng: Rng, shots: Sequence[Shot], pieces: int = 12) -> Edit:
    """A clip of so many pieces of the shots."""
    edit = Edit()
    source, old = _piece(rng, shots)
    old = _disturb(edit, rng, old)
    for _ in range(pieces - 1):
        source_before = source
        source, new = _piece(rng, shots)
        cuts_before = len(edit.cuts)
        draw = rng.random()
        if draw < 0.6:
            _cut(edit, old, new, 0)
        elif draw < 0.7:
            new = _cut(edit, old, new, int(rng.integers(1, 3)))
        elif draw < 0.88:
            new = _dissolve(edit, old, new, int(rng.integers(8, 31)))
        else:
            new = _fade(edit, old, new, int(rng.integers(5, 25)), int(rng.integers(0, 12)), int(rng.integers(5, 25)))
        if source == source_before:
            edit.jumps += edit.cuts[cuts_before:]
        old = _disturb(edit, rng, new)
    edit.frames += list(old)
    return edit


def _piece(rng: Rng, shots: Sequence[Shot]) -> tuple[str, Frames]:
    """The source and a stretch of a shot, at times faster and at times mirrored."""
    shot = shots[int(rng.integers(len(shots)))]
    frames = shot.frames
    pace = int(rng.integers(2, 4)) if rng.random() < 0.25 and len(frames) > 150 else 1
    length = min(int(rng.integers(40, 100)), len(frames) // pace)
    first = int(rng.integers(0, len(frames) - pace * length + 1))
    piece = frames[first : first + pace * length : pace].astype(np.float32)
    return shot.source, piece[:, :, ::-1] if rng.random() < 0.2 else piece


def _cut(edit: Edit, old: Frames, new: Frames, mixed: int) -> Frames:
    edit.frames += list(old)
    for i in range(mixed):
        share = (i + 1) / (mixed + 1)
        edit.frames.append((1 - share) * old[-1] + share * new[i])
    edit.cuts.append(len(edit.frames))
    return new[mixed:]


def _dissolve(edit: Edit, old: Frames, new: Frames, length: int) -> Frames:
    length = min(length, len(old) - 4, len(new) - 4)
    edit.frames += list(old[:-length])
    start = len(edit.frames)
    for i in range(length):
        share = (i + 1) / (length + 1)
        edit.frames.append((1 - share) * old[len(old) - length + i] + share * new[i])
    edit.gradual.append((start, len(edit.frames), "dissolve"))
    return new[length:]


def _fade(edit: Edit, old: Frames, new: Frames, down: int, black: int, up: int) -> Frames:
    down, up = min(down, len(old) - 4), min(up, len(new) - 4)
    edit.frames += list(old[:-down])
    start = len(edit.frames)
    edit.frames += [old[len(old) - down + i] * (1 - (i + 1) / (down + 1)) for i in range(down)]
    edit.frames += [np.zeros_like(old[0])] * black
    edit.frames += [new[i] * ((i + 1) / (up + 1)) for i in range(up)]
    edit.gradual.append((start, len(edit.frames), "fade"))
    return new[up:]


def _disturb(edit: Edit, rng: Rng, piece: Frames) -> Frames:
    """Three pieces of four get something that is no cut, in their middle."""
    if len(piece) < 34 or rng.random() > 0.75:
        return piece
    names = list(_DISTURBANCES)
    name = names[int(rng.integers(len(names)))]
    at = int(rng.integers(10, len(piece) - 22))
    piece = piece.copy()
    length = _DISTURBANCES[name](rng, piece, at)
    if name == "skipped frames":
        piece = np.concatenate([piece[:at], piece[at + length :]])
    edit.disturbed.append((len(edit.frames) + at, length, name))
    return piece


def _flash(frames: int) -> Callable[[Rng, Frames, int], int]:
    def disturb(rng: Rng, piece: Frames, at: int) -> int:
        whole = rng.random() < 0.4
        lit = piece[at : at + frames] * rng.uniform(1.5, 6) + 20
        piece[at : at + frames] = 255 if whole else np.clip(lit, 0, 255)
        return frames

    return disturb


def _exposure(rng: Rng, piece: Frames, at: int) -> int:
    gain, offset, length = np.exp(rng.uniform(-0.9, 0.7)), rng.uniform(-15, 15), int(rng.integers(1, 4))
    for i in range(at, len(piece)):
        share = min(1.0, (i - at + 1) / length)
        piece[i] = np.clip(piece[i] * (1 + share * (gain - 1)) + share * offset, 0, 255)
    return length


def _strobe(rng: Rng, piece: Frames, at: int) -> int:
    period, gain = int(rng.integers(1, 4)), rng.uniform(0.15, 0.6)
    for i in range(at, at + 16):
        if (i - at) // period % 2 == 0:
            piece[i] *= gain
    return 16


def _lost(rng: Rng, piece: Frames, at: int) -> int:
    length = int(rng.integers(1, 3))
    piece[at : at + length] = rng.uniform(0, 255, 3)
    return length


def _black(rng: Rng, piece: Frames, at: int) -> int:
    length = int(rng.integers(1, 12))
    piece[at : at + length] = 0
    return length


def _caption(rng: Rng, piece: Frames, at: int) -> int:
    top = int(rng.integers(54, 64))
    piece[at:, top : top + 8, 12:68] = rng.uniform(0, 255, 3)
    return 1


def _skip(rng: Rng, piece: Frames, at: int) -> int:
    return int(rng.integers(4, 12))


_DISTURBANCES: dict[str, Callable[[Rng, Frames, int], int]] = {
    "flash, 1 frame": _flash(1),
    "flash, 2 frames": _flash(2),
    "flash, 3 frames": _flash(3),
    "exposure step": _exposure,
    "strobe": _strobe,
    "lost picture": _lost,
    "black and back": _black,
    "caption": _caption,
    "skipped frames": _skip,
}
