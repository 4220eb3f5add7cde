"""Sizes and spots: how large a kind is where it stands, and who may be where. Units: 360 to the picture's height."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.capture.scene.palette import COATS
from agent.capture.scene.truth import COLOURS


@dataclass(frozen=True, slots=True)
class Ground:
    """Where things can be: bands of ground line (top, bottom) to walk on, lines to drive and to park on, in units."""

    walk: tuple[tuple[float, float], ...]
    drive: tuple[float, ...]
    park: tuple[float, ...]


GROUNDS: dict[str, Ground] = {
    "street": Ground(((194, 209), (314, 352)), (246, 282), (222, 305)),
    "yard": Ground(((198, 214), (284, 352)), (256,), (234,)),
    "office": Ground(((222, 256), (286, 352)), (), ()),
}

# Kind → size in units at ground line 200 and at 350 (a person's height, the others' length or width).
SIZES: dict[str, tuple[float, float]] = {
    "person": (98, 182),
    "car": (128, 216),
    "truck": (160, 240),
    "dog": (78, 124),
    "cat": (64, 98),
    "bag": (32, 54),
    "bus": (196, 286),
    "bicycle": (108, 178),
    "motorbike": (112, 184),
    "bird": (62, 96),
    "box": (44, 70),
    "chair": (66, 112),
}
VEHICLES = ("car", "truck", "bus", "motorbike", "bicycle")  # what has wheels: drives or is ridden, and parks
RIDDEN = ("bicycle", "motorbike")
ANIMALS = ("dog", "cat")  # what also sits and lies; a bird stands, walks or flies
_KINDS_OF: dict[str, tuple[str, ...]] = {
    "street": ("person", "car", "truck", "dog", "cat", "bag", "bus", "bicycle", "motorbike", "bird", "box"),
    "yard": ("person", "car", "truck", "dog", "cat", "bag", "bicycle", "motorbike", "bird", "box", "chair"),
    "office": ("person", "dog", "cat", "bag", "box", "chair"),
}


def size_at(kind: str, y: float) -> float:
    """Size of a kind whose ground line is at y."""
    far, near = SIZES[kind]
    return far + (near - far) * (y - 200.0) / 150.0


def kinds_of(place: str) -> tuple[str, ...]:
    """Kinds that a place can show."""
    return _KINDS_OF[place]


def colour_of(kind: str, rng: np.random.Generator) -> str:
    """A colour that the kind is seen in. What animals never are comes oftener elsewhere, to balance colours."""
    if kind in ANIMALS:
        return COATS[int(rng.integers(len(COATS)))]
    weights = np.array([1.0 if c in COATS else 2.0 for c in COLOURS])
    return COLOURS[int(rng.choice(len(COLOURS), p=weights / weights.sum()))]
