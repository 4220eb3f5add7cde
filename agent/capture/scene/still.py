"""Independent random pictures with their truth: what the reference model is trained on."""

from __future__ import annotations

from math import pi

import numpy as np

from agent.capture.scene.backdrop import paint
from agent.capture.scene.draw import Figure, Image, Labels, add_noise, add_rain, draw_figures, figure, measure
from agent.capture.scene.figure import new_look
from agent.capture.scene.outline import Pose
from agent.capture.scene.stage import GROUNDS, VEHICLES, Ground, colour_of, kinds_of, size_at
from agent.capture.scene.truth import SceneTruth

_PLACES = (("street", 0.38), ("yard", 0.36), ("office", 0.26))
_COUNTS = (0.1, 0.28, 0.28, 0.2, 0.14)
_WEIGHTS = {"person": 1.5, "car": 1.5, "truck": 1.35, "dog": 1.0, "cat": 1.0, "bag": 1.0}


def random_still(rng: np.random.Generator, width: int = 640, height: int = 360) -> tuple[Image, SceneTruth, Labels]:
    """A picture, its truth and its label map (−1 where there is no object); the same generator state, the same picture.

    Independent of every other: place, light, weather, and 0–4 objects that hide little of each other.
    """
    place = _PLACES[int(rng.choice(3, p=[p for _, p in _PLACES]))][0]
    light = ("day", "dusk", "night")[int(rng.choice(3, p=[0.45, 0.25, 0.3]))]
    weather = "rain" if place != "office" and rng.random() < 0.2 else "clear"
    backdrop = paint(place, light, rng, width, height, exposure=(0.76, 1.05))  # as scenes dim
    figures = _figures(place, rng, width, height)
    image = backdrop.image
    draw_figures(image, figures, backdrop, (0.0, 0.0))
    if weather == "rain":
        add_rain(image, rng)
    add_noise(image, (0.0, 1.5, 3.0)[int(rng.integers(3))], rng)
    objects, labels = measure(figures, width, height)
    return image, SceneTruth(place, light, weather, objects, (0.0, 0.0), False), labels


def _figures(place: str, rng: np.random.Generator, width: int, height: int) -> list[Figure]:
    kinds = kinds_of(place)
    weights = np.array([_WEIGHTS[k] for k in kinds])
    count = int(rng.choice(5, p=_COUNTS))
    twins = rng.random() < 0.35
    placed: list[Figure] = []
    kind = ""
    for _ in range(count):
        if not (twins and kind):
            kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        if sum(f.look.kind == kind for f in placed) == 3:
            break  # three of a kind are enough to count
        for _ in range(12):
            f = _one(len(placed) + 1, kind, place, rng, width, height)
            if all(_overlap(f, other) < 0.15 for other in placed):
                placed.append(f)
                break
    return placed


def _overlap(a: Figure, b: Figure) -> float:
    """Shared area of two boxes over the smaller box."""
    ax, ay, aw, ah = a.box
    bx, by, bw, bh = b.box
    w = min(ax + aw, bx + bw) - max(ax, bx)
    h = min(ay + ah, by + bh) - max(ay, by)
    return 0.0 if w <= 0 or h <= 0 else w * h / min(aw * ah, bw * bh)


def _one(id: int, kind: str, place: str, rng: np.random.Generator, width: int, height: int) -> Figure:
    scale = height / 360.0
    action = _action(kind, rng)
    y = _line(action, GROUNDS[place], rng)
    size = size_at(kind, y) * float(rng.uniform(0.92, 1.08))
    tilt = {"lying": pi / 2, "falling": float(rng.uniform(0.35, 1.25))}.get(action, 0.0) if kind == "person" else 0.0
    if action == "lying":
        tilt *= float(rng.uniform(0.95, 1.02))
    facing = 1 if rng.random() < 0.5 else -1
    reach = size * {"person": 0.2, "bag": 0.5}.get(kind, 0.5)
    room = width / scale
    x = float(rng.uniform(reach * 0.4, room - reach * 0.4))
    if tilt:
        x = float(rng.uniform(size * 0.3, room - size * 0.3))
        x -= facing * size * 0.5 * np.sin(tilt)
    pose = Pose(
        x * scale,
        y * scale,
        size * scale,
        facing,
        phase=float(rng.uniform(0, 2 * pi)),
        stride=float(rng.uniform(0.85, 1.1))
        if action == "walking"
        else 0.3
        if action in ("falling", "lying") and kind == "person"
        else 0.0,
        tilt=float(tilt),
        moving=action == "driving",
        low=1.0 if action == "lying" and kind != "person" else 0.0,
    )
    return figure(id, new_look(kind, colour_of(kind, rng), rng), pose, action)


def _action(kind: str, rng: np.random.Generator) -> str:
    if kind == "bag":
        return "left"
    if kind in VEHICLES:
        return "driving" if rng.random() < 0.5 else "parked"
    if kind == "person":
        return ("walking", "standing", "lying", "falling")[int(rng.choice(4, p=[0.31, 0.28, 0.2, 0.21]))]
    return ("walking", "standing", "lying")[int(rng.integers(3))]


def _line(action: str, ground: Ground, rng: np.random.Generator) -> float:
    if action in ("driving", "parked"):
        lines = ground.drive if action == "driving" else ground.park
        return lines[int(rng.integers(len(lines)))] + float(rng.uniform(-4, 4))
    top, low = ground.walk[int(rng.integers(len(ground.walk)))]
    return float(rng.uniform(top, low))
