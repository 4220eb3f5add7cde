"""What a rendered scene knows about its own picture: the ground truth of tests, training and measurement."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = (
    "person", "car", "truck", "dog", "cat", "bag", "bus", "bicycle", "motorbike", "bird", "box", "chair",
)  # fmt: skip
COLOURS = ("red", "yellow", "green", "blue", "purple", "white", "black")
ACTIONS = (
    "walking", "standing", "lying", "falling", "driving", "parked", "left",
    "running", "sitting", "waving", "crouching", "carrying", "riding", "flying",
)  # fmt: skip
PLACES = ("street", "yard", "office")
WALKWAY = "walkway"
"""A place for anomalies alone: the reference model is not taught to name it."""
LIGHTS = ("day", "dusk", "night")
WEATHERS = ("clear", "rain")


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One thing in the picture.

    colour: of a person's clothes, a vehicle's body, an animal's coat, a bag. box: (x, y, w, h) in picture pixels of the
    whole thing, also where it is hidden or outside. visible: share of its pixels that can be seen, 0–1.
    """

    id: int
    kind: str
    colour: str
    action: str
    box: tuple[float, float, float, float]
    visible: float


@dataclass(frozen=True, slots=True)
class SceneEvent:
    """Something that happens: kind (`enter`, `leave`, `fall`, `leave_object`, `cut`, `light`), its time span in seconds
    of the scene, and the object it happens to (None for the whole picture)."""

    kind: str
    start_s: float
    end_s: float
    object_id: int | None


@dataclass(frozen=True, slots=True)
class SceneTruth:
    """The truth about one rendered frame. camera_px: (dx, dy) by which the picture moved since the frame before it."""

    place: str
    light: str
    weather: str
    objects: tuple[SceneObject, ...]
    camera_px: tuple[float, float]
    cut: bool
