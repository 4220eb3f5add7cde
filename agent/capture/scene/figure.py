"""Figures as polygons: an individual in a pose, in picture pixels.

A figure is a list of shapes with the same number and order for every pose of one individual, so that a shape's motion
between two frames is the map between its points.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, sin
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.capture.scene.animals import cat, dog
from agent.capture.scene.bag import bag
from agent.capture.scene.bird import bird
from agent.capture.scene.box import box
from agent.capture.scene.chair import chair
from agent.capture.scene.cycles import bicycle, motorbike
from agent.capture.scene.outline import Look, Part, Pose
from agent.capture.scene.palette import HAIR, RGB, SKIN, TROUSERS, individual, shade
from agent.capture.scene.person import person
from agent.capture.scene.vehicles import bus, car, truck

_FIGURES: dict[str, Callable[[Look, Pose], list[Part]]] = {
    "person": person,
    "car": car,
    "truck": truck,
    "dog": dog,
    "cat": cat,
    "bag": bag,
    "bus": bus,
    "bicycle": bicycle,
    "motorbike": motorbike,
    "bird": bird,
    "box": box,
    "chair": chair,
}


class Shape(NamedTuple):
    """A filled polygon: points (n, 2) in pixels; a glowing shape is not darkened by the light."""

    points: NDArray[np.float64]
    colour: RGB
    glow: bool


def new_look(kind: str, colour: str, rng: np.random.Generator) -> Look:
    """A new individual of a kind and nominal colour."""
    return Look(
        kind,
        colour,
        individual(colour, rng),
        shade(TROUSERS[int(rng.integers(len(TROUSERS)))], float(rng.uniform(0.85, 1.1))),
        SKIN[int(rng.integers(len(SKIN)))],
        HAIR[int(rng.integers(len(HAIR)))],
        tuple(float(v) for v in rng.uniform(0, 1, 8)),
    )


def shapes(look: Look, pose: Pose) -> list[Shape]:
    """The figure's shapes in pixels, back to front."""
    parts = _FIGURES[look.kind](look, pose)
    points = np.array([p for part in parts for p in part.outline], dtype=np.float64)
    ca, sa = cos(pose.tilt), sin(pose.tilt)
    ahead = points[:, 0] * ca + points[:, 1] * sa
    up = points[:, 1] * ca - points[:, 0] * sa + 0.1 * sa + pose.height
    placed = np.stack([pose.x + pose.facing * pose.size * ahead, pose.y - pose.size * up], axis=1)
    result, start = [], 0
    for part in parts:
        stop = start + len(part.outline)
        result.append(Shape(placed[start:stop], part.colour, part.glow))
        start = stop
    return result
