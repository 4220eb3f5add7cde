"""A rendered fixed camera: any frame of an endless little world, with its truth, from a seed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from agent.capture.scene import exposure
from agent.capture.scene.choice import one_of
from agent.capture.scene.draw import Image, Labels, add_noise, add_rain, draw_figures, measure
from agent.capture.scene.drills import DrillTimeline
from agent.capture.scene.flow import Flow, backward_flow
from agent.capture.scene.happenings import happenings
from agent.capture.scene.shots import UNCUT, Shot, shot_at
from agent.capture.scene.truth import LIGHTS, PLACES, WALKWAY, WEATHERS, SceneEvent, SceneTruth
from agent.capture.scene.view import View
from config.errors import ConfigError

_ALL_PLACES = (*PLACES, WALKWAY)
CAMERAS = ("static", "pan", "shake", "cut")


class Scene:
    """A world of one camera. The same arguments and frame index give the same bytes, in any order of calls.

    place: street, yard, office or walkway. light (day, dusk, night), weather (clear, rain): None lets the seed choose;
    it never rains indoors. camera: static, pan, shake or cut (which goes on to other places). max_objects: never more
    at once; a walkway has up to five walkers for each.
    noise: sensor noise, grey levels. Raises ConfigError for a value that can't be used.
    """

    def __init__(
        self,
        place: str,
        seed: int = 0,
        *,
        width: int = 640,
        height: int = 360,
        fps: float = 15.0,
        light: str | None = None,
        weather: str | None = None,
        camera: str = "static",
        max_objects: int = 4,
        noise: float = 1.5,
    ) -> None:
        one_of("place", place, _ALL_PLACES)
        one_of("camera", camera, CAMERAS)
        if light is not None:
            one_of("light", light, LIGHTS)
        if weather is not None:
            one_of("weather", weather, WEATHERS)
        if weather == "rain" and place == "office":
            raise ConfigError("weather 'rain' is not for an office; expected 'clear'")
        for name, number, low, high in (
            ("width", width, 64, 4096),
            ("height", height, 64, 4096),
            ("fps", fps, 0.1, 240),
            ("objects", max_objects, 0, 8),
            ("noise", noise, 0, 60),
            ("seed", seed, 0, 2**63),
        ):
            if not low <= number <= high:
                raise ConfigError(f"{name} is {number}; expected {low} to {high}")
        self.place, self.seed, self.fps, self.size = place, seed, fps, (width, height)
        self._light, self._weather, self._camera = light, weather, camera
        self._objects, self._noise = max_objects, noise
        self._view = lru_cache(maxsize=4)(self._make_view)
        self._measured = lru_cache(maxsize=2)(self._measure)

    def play(self, timeline: DrillTimeline) -> None:
        """Show these lives instead of its own; for a camera that does not cut."""
        self._view(0).timeline = timeline

    @property
    def width_units(self) -> float:
        """Width of the picture in the units of its lives: 360 to the height."""
        return self.size[0] / self._view(0).scale

    def render(self, index: int) -> Image:
        """Frame `index` (0-based): uint8 RGB (height, width, 3), C-contiguous, the caller's own."""
        view, t = self._where(index)
        image = view.ground(t)
        draw_figures(image, view.figures(t), view.backdrop, view.camera.offset(t))
        rng = np.random.default_rng([self.seed, 7, index])
        gain = exposure.gain(self.seed, index / self.fps)
        if view.light == "night":  # lamps are never quite steady
            gain *= 1 + 0.006 * float(rng.standard_normal())
        if view.weather == "rain":
            add_rain(image, rng)
        if gain != 1.0:
            cv2.convertScaleAbs(image, dst=image, alpha=gain)
        add_noise(image, self._noise, rng)
        return image

    def truth(self, index: int) -> SceneTruth:
        """What is to be seen in frame `index`: objects of which at least one pixel is in the picture."""
        return self._measured(index)[0]

    def labels(self, index: int) -> Labels:
        """Object id of every pixel of frame `index`, int16 (height, width), −1 where there is no object."""
        return np.array(self._measured(index)[1])

    def flow(self, index: int) -> Flow:
        """True backward flow, float32 (height, width, 2) px: frame(x, y) ≈ frame before(x + u, y + v).

        NaN where there is nothing before: all of the first frame and of the first after a cut, and what appears there.
        What the frame before hid has the motion of its own surface; shadows, rain and noise have the ground's.
        """
        view, t = self._where(index)
        width, height = self.size
        if index == 0 or self._cuts_to(index):
            return np.full((height, width, 2), np.nan, np.float32)
        dx, dy = self._camera_px(index)
        return backward_flow(width, height, (-dx, -dy), view.figure_pairs(t, t - 1 / self.fps))

    def events(self, until_s: float) -> tuple[SceneEvent, ...]:
        """Everything that has happened and is over by `until_s` seconds, by start."""
        found: list[SceneEvent] = []
        shot = self._shot(0.0)
        while shot.start_s < until_s:
            if shot.number:
                found.append(SceneEvent("cut", shot.start_s, shot.start_s, None))
            shift = shot.start_s - shot.own_s
            happened = happenings(self._view(shot.number), shot.own_s, min(shot.end_s, until_s) - shift)
            found += [replace(e, start_s=e.start_s + shift, end_s=e.end_s + shift) for e in happened]
            if shot is UNCUT:
                break
            shot = self._shot(shot.end_s)
        for d in exposure.dimmings(self.seed, until_s):
            found.append(SceneEvent("light", d.start_s, d.start_s + d.ramp_s, None))
            found.append(SceneEvent("light", d.end_s - d.ramp_s, d.end_s, None))
        over = [e for e in found if e.end_s <= until_s]
        return tuple(sorted(over, key=lambda e: (e.start_s, e.kind, e.object_id or 0)))

    def _measure(self, index: int) -> tuple[SceneTruth, Labels]:
        view, t = self._where(index)
        objects, labels = measure(view.figures(t), *self.size)
        seen = tuple(o for o in objects if o.visible > 0)
        moved, cut = self._camera_px(index), self._cuts_to(index)
        return SceneTruth(view.place, view.light, view.weather, seen, moved, cut), labels

    def _camera_px(self, index: int) -> tuple[float, float]:
        """By how much the camera moved the picture since the frame before; nothing across a cut."""
        if index == 0 or self._cuts_to(index):
            return 0.0, 0.0
        view, t = self._where(index)
        (x, y), (px, py) = view.camera.offset(t), view.camera.offset(t - 1 / self.fps)
        return px - x, py - y

    def _cuts_to(self, index: int) -> bool:
        """Whether frame `index` is the first of a new shot."""
        return index > 0 and self._shot(index / self.fps) != self._shot((index - 1) / self.fps)

    def _shot(self, t: float) -> Shot:
        return shot_at(self.seed, t) if self._camera == "cut" else UNCUT

    def _where(self, index: int) -> tuple[View, float]:
        """The view of a frame and the view's own time."""
        if index < 0:
            raise IndexError(f"frame {index} of a scene: frames count from 0")
        shot = self._shot(index / self.fps)
        return self._view(shot.number), shot.own_time(index / self.fps)

    def _make_view(self, number: int) -> View:
        """The view of a shot: after the first mostly another place, always another look."""
        place, key = self.place, (self.seed, 9, _ALL_PLACES.index(self.place), number)
        if number:
            place = PLACES[int(np.random.default_rng([self.seed, 10, number]).integers(len(PLACES)))]
        return View(
            place,
            key,
            self.size,
            light=self._light,
            weather=self._weather,
            camera="static" if self._camera == "cut" else self._camera,
            objects=self._objects,
            first_id=number * 256,
        )
