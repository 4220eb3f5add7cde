"""One place seen by one camera between two cuts: backdrop, light, and the lives in it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from agent.capture.scene.actor import Actor
from agent.capture.scene.backdrop import paint
from agent.capture.scene.camera import new_camera
from agent.capture.scene.draw import Figure, Image, depth, figure
from agent.capture.scene.drills import DrillTimeline
from agent.capture.scene.timeline import Timeline
from agent.capture.scene.truth import LIGHTS, WALKWAY
from agent.capture.scene.walkway import WalkwayTimeline


class View:
    """Times are the view's own seconds. `key` is its seed; None for light or weather lets the seed choose."""

    def __init__(
        self,
        place: str,
        key: tuple[int, ...],
        size: tuple[int, int],
        *,
        light: str | None,
        weather: str | None,
        camera: str,
        objects: int,
        first_id: int = 0,
    ) -> None:
        rng = np.random.default_rng([*key, 0])
        chosen = LIGHTS[int(rng.choice(3, p=[0.5, 0.2, 0.3]))]
        rains = "rain" if rng.random() < 0.2 else "clear"
        self.place, self.light = place, light or chosen
        self.weather = "clear" if place == "office" else weather or rains  # it never rains indoors
        self.size = size
        self.camera = new_camera(camera, rng, size)
        width, height = self.camera.world
        self.scale = height / 360.0
        self.backdrop = paint(place, self.light, rng, width, height)
        units = width / self.scale
        self.timeline: Timeline | WalkwayTimeline | DrillTimeline = (
            WalkwayTimeline(key, units, objects, first_id)
            if place == WALKWAY
            else Timeline(place, key, units, objects, first_id)
        )

    def figures(self, t: float) -> list[Figure]:
        """Everybody of whom a part may be in the picture at a time, far to near, in picture pixels."""
        return [now for now, _ in self.figure_pairs(t, None)]

    def figure_pairs(self, t: float, before_t: float | None) -> list[tuple[Figure, Figure | None]]:
        """`figures(t)`, each with itself at another time (None where it was not there, or no time is given)."""
        pairs = []
        for actor in self.timeline.between(t, t):
            now = self.figure(actor, t)
            if now is not None and now.box[0] < self.size[0] and now.box[0] + now.box[2] > 0:
                pairs.append((now, None if before_t is None else self.figure(actor, before_t)))
        return sorted(pairs, key=lambda pair: depth(pair[0]))

    def figure(self, actor: Actor, t: float) -> Figure | None:
        """An actor as it looks at a time, in the picture or not; None outside its life."""
        now = actor.at(t)
        if now is None:
            return None
        pose, action = now
        x, y = self.camera.offset(t)
        at = replace(pose, x=pose.x * self.scale - x, y=pose.y * self.scale - y, size=pose.size * self.scale)
        return figure(actor.id, actor.look, at, action)

    def ground(self, t: float) -> Image:
        """A fresh copy of the backdrop as the camera sees it, interpolated where it looks between pixels."""
        w, h = self.size
        x, y = self.camera.offset(t)
        if x == int(x) and y == int(y):
            return np.array(self.backdrop.image[int(y) : int(y) + h, int(x) : int(x) + w])
        shift = np.array([[1, 0, x], [0, 1, y]], dtype=np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(self.backdrop.image, shift, (w, h), flags=flags), dtype=np.uint8)
