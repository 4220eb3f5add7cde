"""Two pictures of one place at two times, with their truths: for questions on what changed, and for training on
frames of which only a part is new."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent.capture.scene.backdrop import paint
from agent.capture.scene.draw import Figure, Image, Labels, add_noise, add_rain, draw_figures, figure, measure
from agent.capture.scene.stage import kinds_of
from agent.capture.scene.still import new_figure, overlap, place_figures, random_phase, random_world
from agent.capture.scene.truth import LIGHTS, SceneTruth

Still = tuple[Image, SceneTruth, Labels]

_CHANGES = ("come", "go", "move", "do", "light")
_SHARES = (0.27, 0.24, 0.25, 0.2, 0.04)
_COUNTS = (0.16, 0.5, 0.34)
_CLEAR = 0.15


def random_pair(rng: np.random.Generator, width: int = 640, height: int = 360) -> tuple[Still, Still]:
    """An earlier and a later picture with 0–2 changes between them (somebody comes, goes, moves, does something else;
    the light changes), each as `random_still` gives it. An object keeps its id. What walks has moved its legs."""
    place, light, weather = random_world(rng)
    seed = int(rng.integers(2**63))
    figures = place_figures(place, rng, width, height)
    later, later_light = list(figures), light
    for _ in range(int(rng.choice(3, p=_COUNTS))):
        change = _CHANGES[int(rng.choice(5, p=_SHARES))]
        if change == "light" and later_light == light:
            later_light = LIGHTS[(LIGHTS.index(light) + int(rng.integers(1, 3))) % 3]
        elif change == "come":
            _come(later, place, rng, width, height)
        elif later and change == "go":
            del later[int(rng.integers(len(later)))]
        elif later and change in ("move", "do"):
            i = int(rng.integers(len(later)))
            other = (
                _moved(later[i], rng, width) if change == "move" else _doing_else(later[i], place, rng, width, height)
            )
            if other is not None and all(overlap(other, f) < _CLEAR for n, f in enumerate(later) if n != i):
                later[i] = other
    later = [_stirred(f, rng) for f in later]
    noise = (0.0, 1.5, 3.0)[int(rng.integers(3))]

    def shoot(light: str, figures: list[Figure]) -> Still:
        backdrop = paint(place, light, np.random.default_rng(seed), width, height, exposure=(0.76, 1.05))
        image = backdrop.image
        draw_figures(image, figures, backdrop, (0.0, 0.0))
        if weather == "rain":
            add_rain(image, rng)
        add_noise(image, noise, rng)
        objects, labels = measure(figures, width, height)
        return image, SceneTruth(place, light, weather, objects, (0.0, 0.0), False), labels

    return shoot(light, figures), shoot(later_light, later)


def _come(figures: list[Figure], place: str, rng: np.random.Generator, width: int, height: int) -> None:
    kinds = kinds_of(place)
    id = 1 + max((f.id for f in figures), default=0)
    for _ in range(8):
        new = new_figure(id, kinds[int(rng.integers(len(kinds)))], place, rng, width, height)
        if all(overlap(new, f) < _CLEAR for f in figures):
            figures.append(new)
            return


def _moved(f: Figure, rng: np.random.Generator, width: int) -> Figure:
    """Somewhere else on its line: a few pixels away, or some of its sizes."""
    way = f.pose.size * float(rng.uniform(0.4, 2.5)) if rng.random() < 0.7 else float(rng.uniform(3, 20))
    x = f.pose.x + (way if rng.random() < 0.5 else -way)
    if not 0.05 * width < x < 0.95 * width:
        x = 2 * f.pose.x - x
    return figure(f.id, f.look, replace(f.pose, x=float(np.clip(x, 0.05 * width, 0.95 * width))), f.action)


def _doing_else(f: Figure, place: str, rng: np.random.Generator, width: int, height: int) -> Figure | None:
    """The same individual in the same spot doing something else; None for what can only do one thing."""
    for _ in range(8):
        other = new_figure(f.id, f.look.kind, place, rng, width, height)
        if other.action != f.action:
            if other.pose.height and f.pose.y < other.pose.y:
                continue  # it would fly out of the picture
            pose = replace(other.pose, x=f.pose.x, y=f.pose.y, size=f.pose.size, facing=f.pose.facing)
            return figure(f.id, f.look, pose, other.action)
    return None


def _stirred(f: Figure, rng: np.random.Generator) -> Figure:
    """What walks, runs, rides or flies is at another moment of its gait."""
    if f.action not in ("walking", "running", "riding", "flying", "driving", "carrying"):
        return f
    return figure(f.id, f.look, replace(f.pose, phase=random_phase(f.look.kind, f.action, rng)), f.action)
