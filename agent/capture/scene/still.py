"""Independent random pictures with their truth: what the reference model is trained on."""

from __future__ import annotations

from math import pi

import numpy as np

from agent.capture.scene.backdrop import paint
from agent.capture.scene.draw import Figure, Image, Labels, add_noise, add_rain, draw_figures, figure, measure
from agent.capture.scene.figure import new_look
from agent.capture.scene.outline import Pose
from agent.capture.scene.stage import GROUNDS, colour_of, kinds_of, size_at
from agent.capture.scene.truth import LIGHTS, PLACES, SceneTruth

MOST_OF_A_KIND = 5
MAX_OVERLAP = 0.1
_PLACES = (0.38, 0.36, 0.26)
_LIGHTS = (0.45, 0.25, 0.3)
_COUNTS = (0.1, 0.24, 0.22, 0.18, 0.12, 0.08, 0.06)
_WEIGHTS = {  # the rarer, the fewer places show a kind and the more room it takes
    "person": 3.0, "car": 2.2, "bus": 2.4, "truck": 1.5, "bicycle": 1.4, "motorbike": 1.3,
    "bird": 1.4, "chair": 1.4, "box": 0.8,
}  # fmt: skip
_DRIVES = ("driving", "parked")
_ACTIONS: dict[str, tuple[str, ...]] = {
    "person": (
        "walking", "standing", "lying", "falling", "running", "sitting", "waving", "crouching", "carrying",
    ),
    "dog": ("walking", "standing", "lying", "sitting"),
    "cat": ("walking", "standing", "lying", "sitting"),
    "bird": ("standing", "flying"),
    "car": _DRIVES,
    "truck": _DRIVES,
    "bus": _DRIVES,
    "bicycle": ("riding", "parked"),
    "motorbike": ("riding", "parked"),
    "bag": ("left",),
    "box": ("left",),
    "chair": ("left",),
}  # fmt: skip


def random_still(rng: np.random.Generator, width: int = 640, height: int = 360) -> tuple[Image, SceneTruth, Labels]:
    """A picture, its truth and its label map (−1 where there is no object); the same generator state, the same picture.

    Independent of every other: place, light, weather, and 0–6 objects that hide little of each other.
    """
    place, light, weather = random_world(rng)
    backdrop = paint(place, light, rng, width, height, exposure=(0.76, 1.05))  # as scenes dim
    figures = place_figures(place, rng, width, height)
    image = backdrop.image
    draw_figures(image, figures, backdrop, (0.0, 0.0))
    if weather == "rain":
        add_rain(image, rng)
    add_noise(image, (0.0, 1.5, 3.0)[int(rng.integers(3))], rng)
    objects, labels = measure(figures, width, height)
    return image, SceneTruth(place, light, weather, objects, (0.0, 0.0), False), labels


def random_world(rng: np.random.Generator) -> tuple[str, str, str]:
    """A place, its light and its weather; it never rains indoors."""
    place = PLACES[int(rng.choice(3, p=_PLACES))]
    light = LIGHTS[int(rng.choice(3, p=_LIGHTS))]
    return place, light, "rain" if place != "office" and rng.random() < 0.2 else "clear"


def place_figures(place: str, rng: np.random.Generator, width: int, height: int) -> list[Figure]:
    """0–6 figures with ids from 1 that hide little of each other. In a third of pictures there are 2–5 of one kind, as
    many as find room, so that counting can be learned."""
    kinds = kinds_of(place)
    weights = np.array([_WEIGHTS.get(k, 1.0) for k in kinds])

    def some_kinds(count: int) -> list[str]:
        return [kinds[int(i)] for i in rng.choice(len(kinds), count, p=weights / weights.sum())]

    if rng.random() < 0.35:
        wanted = some_kinds(1) * int(rng.integers(2, MOST_OF_A_KIND + 1)) + some_kinds(int(rng.integers(2)))
    else:
        wanted = some_kinds(int(rng.choice(len(_COUNTS), p=_COUNTS)))
    placed: list[Figure] = []
    for kind in wanted:
        if sum(f.look.kind == kind for f in placed) == MOST_OF_A_KIND:
            continue
        for _ in range(12):
            f = new_figure(len(placed) + 1, kind, place, rng, width, height)
            if all(overlap(f, other) < MAX_OVERLAP for other in placed):
                placed.append(f)
                break
    return placed


def overlap(a: Figure, b: Figure) -> float:
    """Shared area of two boxes over the smaller box."""
    ax, ay, aw, ah = a.box
    bx, by, bw, bh = b.box
    w = min(ax + aw, bx + bw) - max(ax, bx)
    h = min(ay + ah, by + bh) - max(ay, by)
    return 0.0 if w <= 0 or h <= 0 else w * h / min(aw * ah, bw * bh)


def new_figure(
    id: int, kind: str, place: str, rng: np.random.Generator, width: int, height: int, action: str | None = None
) -> Figure:
    """An individual of a kind somewhere in a picture of a place, doing `action` or, without one, anything it can."""
    scale = height / 360.0
    action = action or choose_action(kind, rng)
    y = _line(kind, action, place, rng)
    size = size_at(kind, y) * float(rng.uniform(0.92, 1.08))
    tilt = _tilt(kind, action, rng)
    facing = 1 if rng.random() < 0.5 else -1
    margin = size * (0.08 if kind == "person" else 0.2)
    room = width / scale
    if tilt:
        x = float(rng.uniform(size * 0.3, room - size * 0.3)) - facing * size * 0.5 * float(np.sin(tilt))
    else:
        x = float(rng.uniform(margin, room - margin))
    strides = action in ("walking", "running") or (action == "carrying" and rng.random() < 0.5)
    pose = Pose(
        x * scale,
        y * scale,
        size * scale,
        facing,
        phase=random_phase(kind, action, rng),
        stride=float(rng.uniform(0.9, 1.1)) if strides else 0.3 if tilt else 0.0,
        tilt=tilt,
        moving=action in ("driving", "riding", "flying"),
        low=float(action == "lying" and kind != "person"),
        height=min(float(rng.uniform(0.8, 2.5)), y / size - 1.15) if action == "flying" else 0.0,
        sit=float(action == "sitting"),
        crouch=float(rng.uniform(0.9, 1.0)) if action == "crouching" else 0.0,
        wave=float(action == "waving"),
        carry=float(action == "carrying"),
        run=float(rng.uniform(0.9, 1.0)) if action == "running" else 0.0,
    )
    return figure(id, new_look(kind, colour_of(kind, rng), rng), pose, action)


def choose_action(kind: str, rng: np.random.Generator) -> str:
    """One of the things a kind can do, each as likely."""
    actions = _ACTIONS[kind]
    return actions[int(rng.integers(len(actions)))]


def random_phase(kind: str, action: str, rng: np.random.Generator) -> float:
    """A moment of the gait, radians; of a person who goes, one with legs apart, since a picture has no other sign."""
    phase = float(rng.uniform(0, 2 * pi))
    if kind != "person" or action not in ("walking", "running", "carrying"):
        return phase
    return float(rng.uniform(-0.6, 0.6)) + pi / 2 * (1 if phase < pi else -1)


def _tilt(kind: str, action: str, rng: np.random.Generator) -> float:
    if kind != "person" or action not in ("lying", "falling"):
        return 0.0
    return pi / 2 * float(rng.uniform(0.95, 1.02)) if action == "lying" else float(rng.uniform(0.35, 1.25))


def _line(kind: str, action: str, place: str, rng: np.random.Generator) -> float:
    """Where on the ground: lanes are for what is driven, the rest of the floor is for all others, bicycles too."""
    ground = GROUNDS[place]
    lines = {"driving": ground.drive, "riding": ground.drive, "parked": ground.park}.get(action, ())
    if lines and not (kind == "bicycle" and rng.random() < 0.5):
        return lines[int(rng.integers(len(lines)))] + float(rng.uniform(-4, 4))
    top, low = ground.walk[int(rng.integers(len(ground.walk)))]
    return float(rng.uniform(top, low))
