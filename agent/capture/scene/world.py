"""A rendered fixed camera: any frame of an endless little world, with its truth, from a seed."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import inf

import cv2
import numpy as np

from agent.capture.scene.choice import one_of
from agent.capture.scene.draw import Image, Labels, add_noise, add_rain, draw_figures, measure
from agent.capture.scene.flow import Flow, backward_flow
from agent.capture.scene.happenings import happenings
from agent.capture.scene.truth import LIGHTS, PLACES, WEATHERS, SceneEvent, SceneTruth
from agent.capture.scene.view import View
from config.errors import ConfigError

CAMERAS = ("static", "pan", "shake", "cut")
_SHOTS_S = 24.0  # three shots share this long, when the camera cuts
_DIMMING_S = 60.0  # at most one change of light in this long


class Scene:
    """A world of one camera. The same arguments and frame index give the same bytes, in any order of calls.

    place: street, yard or office. light (day, dusk, night) and weather (clear, rain): None lets the seed choose. camera:
    static, pan, shake or cut. max_objects: never more than this many at once. noise: sensor noise, grey levels.
    Raises ConfigError for a value that can't be used.
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
        one_of("scene place", place, PLACES)
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

    def render(self, index: int) -> Image:
        """Frame `index` (0-based): uint8 RGB (height, width, 3), C-contiguous, the caller's own."""
        view, t = self._where(index)
        image = view.ground(t)
        draw_figures(image, view.figures(t), view.backdrop, view.camera.offset(t))
        rng = np.random.default_rng([self.seed, 7, index])
        gain = self._dimming(index / self.fps)
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
        return self._measured(index)[1].copy()

    def flow(self, index: int) -> Flow:
        """True backward flow, float32 (height, width, 2) px: frame(x, y) ≈ frame before(x + u, y + v).

        NaN where there is nothing before: all of the first frame and of the first after a cut, and what appears there.
        What the frame before hid has the motion of its own surface.
        """
        view, t = self._where(index)
        width, height = self.size
        if index == 0 or self.cut_at(index):
            return np.full((height, width, 2), np.nan, np.float32)
        before = t - 1 / self.fps
        (x, y), (px, py) = view.camera.offset(t), view.camera.offset(before)
        return backward_flow(width, height, (x - px, y - py), view.figure_pairs(t, before))

    def events(self, until_s: float) -> tuple[SceneEvent, ...]:
        """Everything that has happened and is over by `until_s` seconds, by start."""
        found = []
        start = 0.0
        while start < until_s:
            number, _ = self._shot(start)
            end = self._shot_end(start)
            view, shift = self._view(number), start - self._own_time(number, start, start)
            if number:
                found.append(SceneEvent("cut", start, start, None))
            for e in happenings(view, start - shift, min(end, until_s) - shift):
                found.append(replace(e, start_s=e.start_s + shift, end_s=e.end_s + shift))
            start = end
        for block in range(int(until_s // _DIMMING_S) + 1):
            span = self._dimmed(block)
            if span is not None:
                begin, finish, _, ramp = span
                found.append(SceneEvent("light", begin, begin + ramp, None))
                found.append(SceneEvent("light", finish - ramp, finish, None))
        return tuple(
            sorted((e for e in found if e.end_s <= until_s), key=lambda e: (e.start_s, e.kind, e.object_id or 0))
        )

    def cut_at(self, index: int) -> bool:
        """Whether frame `index` is the first of a new shot."""
        return index > 0 and self._shot(index / self.fps) != self._shot((index - 1) / self.fps)

    def _measure(self, index: int) -> tuple[SceneTruth, Labels]:
        view, t = self._where(index)
        objects, labels = measure(view.figures(t), *self.size)
        moved, cut = (0.0, 0.0), self.cut_at(index)
        if index > 0 and not cut:
            (x, y), (px, py) = view.camera.offset(t), view.camera.offset(t - 1 / self.fps)
            moved = px - x, py - y
        seen = tuple(o for o in objects if o.visible > 0)
        return SceneTruth(view.place, view.light, view.weather, seen, moved, cut), labels

    def _where(self, index: int) -> tuple[View, float]:
        """The view of a frame and the view's own time."""
        if index < 0:
            raise IndexError(f"frame {index} of a scene: frames count from 0")
        t = index / self.fps
        number, start = self._shot(t)
        return self._view(number), self._own_time(number, start, t)

    @staticmethod
    def _own_time(number: int, start: float, t: float) -> float:
        """The time of a view's own: later ones are met when their life is under way."""
        return t - start + 8.0 if number else t

    def _shot(self, t: float) -> tuple[int, float]:
        """Number and beginning of the shot at a time."""
        if self._camera != "cut":
            return 0, 0.0
        starts = self._shot_starts(int(t // _SHOTS_S))
        within = sum(t >= s for s in starts) - 1
        return int(t // _SHOTS_S) * 3 + within, starts[within]

    def _shot_end(self, t: float) -> float:
        if self._camera != "cut":
            return inf
        block = int(t // _SHOTS_S)
        return next(s for s in (*self._shot_starts(block), (block + 1) * _SHOTS_S) if s > t)

    def _shot_starts(self, block: int) -> tuple[float, ...]:
        """Beginnings of the three shots of a block of time."""
        second, third = np.random.default_rng([self.seed, 8, block]).uniform(-2.5, 2.5, 2)
        return block * _SHOTS_S, block * _SHOTS_S + 8.0 + float(second), block * _SHOTS_S + 16.0 + float(third)

    def _make_view(self, number: int) -> View:
        place, key = self.place, (self.seed, 9, PLACES.index(self.place), number)
        if number:  # another camera: mostly another place, always another look
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

    def _dimming(self, t: float) -> float:
        """Gain of the whole picture: now and then a cloud, or the exposure, takes light away for some seconds."""
        span = self._dimmed(int(t // _DIMMING_S))
        if span is None:
            return 1.0
        start, end, depth, ramp = span
        return 1.0 - depth * min(1.0, max(0.0, min(t - start, end - t) / ramp))

    def _dimmed(self, block: int) -> tuple[float, float, float, float] | None:
        """(start, end, depth, ramp) of the change of light in a block of time, seconds and share of the gain; or None."""
        rng = np.random.default_rng([self.seed, 11, block])
        if rng.random() < 0.5:
            return None
        start = block * _DIMMING_S + float(rng.uniform(14, 40))
        return start, start + float(rng.uniform(9, 16)), float(rng.uniform(0.12, 0.26)), 2.0
