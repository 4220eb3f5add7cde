"""A pedestrian walkway seen from above, in perspective: many small walkers, now and then something on wheels.

Everybody's size follows the ground line, down to a third of the others' places, and so does their speed in pixels: a
far bicycle is slower in the picture than a near walker. The first NORMAL_S seconds show walkers only, to learn from;
then intruders come one after another with pauses between: cyclists, skaters (who stand and glide), motorbikes, carts.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from agent.capture.scene.actor import UPRIGHT, Actor, Held
from agent.capture.scene.canvas import Canvas, Lamp, bush, muted, sky, tree
from agent.capture.scene.palette import shade
from agent.capture.scene.stories import Life
from agent.capture.scene.truth import SceneObject

NORMAL_S = 40.0
WALKERS_EACH = 5
"""Walkers at most for each of the scene's `objects`."""

_FAR, _NEAR = 132.0, 348.0
"""Ground lines of the walkway, units."""
_BULK = 0.43
_SLANT = 12.0
"""Units of ground line that one leg of a way crosses, at most."""
_TRACK_S = 16.0
_INTRUDER_S = 14.0
_IDS = 32_000
_SKATING = Held(crouch=0.25)
# What intrudes, how often, how large against a walker's scale, and how many walkers' speeds it goes at.
_INTRUDERS: tuple[tuple[str, float, float, tuple[float, float]], ...] = (
    ("bicycle", 0.5, 1.0, (1.5, 3.2)),
    ("person", 0.25, 1.0, (1.6, 2.6)),
    ("motorbike", 0.1, 0.9, (1.6, 3.2)),
    ("truck", 0.15, 1.2, (1.3, 2.6)),
)
_WALK = (0.5, 0.85)
"""A walker's speed, own heights a second."""


def intrudes(thing: SceneObject) -> bool:
    """Whether something on a walkway has no business there: whatever is on wheels."""
    return thing.kind != "person" or thing.action == "riding"


class WalkwayTimeline:
    """The lives on one walkway: any moment without the ones before it, as `Timeline`. Units, seconds of the view."""

    def __init__(self, key: tuple[int, ...], width: float, objects: int, first_id: int = 0) -> None:
        self._key, self._width, self._first_id = key, width, first_id
        self._tracks = WALKERS_EACH * objects
        self._walker = lru_cache(maxsize=256)(self._make_walker)
        self._intruder = lru_cache(maxsize=32)(self._make_intruder)

    def between(self, start_s: float, end_s: float) -> list[Actor]:
        """Everybody whose life touches the span."""
        longest = 60.0
        found = []
        for track in range(self._tracks):
            shift = _TRACK_S * track / max(1, self._tracks)
            for turn in range(int((start_s - longest - shift) // _TRACK_S), int((end_s - shift) // _TRACK_S) + 1):
                walker = self._walker(track, turn)
                if walker is not None:
                    found.append(walker)
        for turn in range(max(0, int((start_s - longest) // _INTRUDER_S)), int(end_s // _INTRUDER_S) + 1):
            intruder = self._intruder(turn)
            if intruder is not None:
                found.append(intruder)
        return [actor for actor in found if actor.start_s <= end_s and actor.end_s > start_s]

    def _make_walker(self, track: int, turn: int) -> Actor | None:
        """Somebody who crosses, straight or slanting, now and then with a stop."""
        rng = np.random.default_rng([*self._key, 3, track, turn & 0xFFFFFFFF])
        if rng.random() < 0.35:
            return None
        start = turn * _TRACK_S + _TRACK_S * track / self._tracks + float(rng.uniform(0, 6))
        first = self._line(rng)
        last = float(np.clip(first + rng.normal(0, 25), _FAR, _NEAR))
        side = 1 if rng.random() < 0.5 else -1
        life = self._life("person", start, side, first, rng, 1.0)
        x = self._edge("person", last, -side)
        speed = float(rng.uniform(*_WALK))
        if rng.random() < 0.12:
            _goes(life, life.x + (x - life.x) * float(rng.uniform(0.3, 0.7)), (first + last) / 2, speed)
            life.stay("standing", float(rng.uniform(1, 5)))
        actor = _goes(life, x, last, speed).done()
        return replace(actor, id=1 + (self._first_id + 2 * (track + self._tracks * (turn % 400))) % _IDS)

    def _make_intruder(self, turn: int) -> Actor | None:
        """What comes on wheels in this stretch of time; none while all is normal."""
        rng = np.random.default_rng([*self._key, 4, turn & 0xFFFFFFFF])
        start = turn * _INTRUDER_S + float(rng.uniform(0, 4))
        if start < NORMAL_S:
            return None
        chosen = int(rng.choice(len(_INTRUDERS), p=[share for _, share, _, _ in _INTRUDERS]))
        kind, _, size, times = _INTRUDERS[chosen]
        line, side = self._line(rng), 1 if rng.random() < 0.5 else -1
        end = float(np.clip(line + rng.uniform(-25, 25), _FAR, _NEAR))
        held = _SKATING if kind == "person" else UPRIGHT
        life = self._life(kind, start, side, line, rng, size, held)
        # `go` counts in own sizes: a walker's speed in units is `_WALK` of a walker's height here.
        walker = Life("person", start, 0, line, np.random.default_rng(0))
        walker.bulk = _BULK
        speed = float(rng.uniform(*times)) * float(np.mean(_WALK)) * walker.size / life.size
        actor = _goes(life, self._edge(kind, end, -side), end, speed, "riding").done()
        return replace(actor, id=2 + (self._first_id + 2 * turn) % _IDS)

    def _life(
        self, kind: str, start: float, side: int, y: float, rng: np.random.Generator, size: float, held: Held = UPRIGHT
    ) -> Life:
        life = Life(kind, start, self._edge(kind, y, side), y, rng, held)
        life.bulk = _BULK * size * float(rng.uniform(0.9, 1.1))
        return life

    def _edge(self, kind: str, y: float, side: int) -> float:
        reach = 0.5 * _BULK * (y - 25.0) * (0.75 if kind == "person" else 1.0)
        return -reach if side < 0 else self._width + reach

    def _line(self, rng: np.random.Generator) -> float:
        return float(_FAR + (_NEAR - _FAR) * rng.beta(1.1, 1.3))


def _goes(life: Life, x: float, y: float, speed: float, action: str = "walking") -> Life:
    """Go there in legs so short that the way in the picture shrinks with the size: `go` keeps its speed in pixels."""
    legs = 1 + int(abs(y - life.y) / _SLANT)
    x0, y0 = life.x, life.y
    for leg in range(1, legs + 1):
        life.go(x0 + (x - x0) * leg / legs, y0 + (y - y0) * leg / legs, speed, action=action)
    return life


def walkway(c: Canvas, rng: np.random.Generator, light: str) -> list[Lamp]:
    """Lawn behind, the walkway with its joints running to the horizon, trees at its far side."""
    sky(c, rng, light, 40)
    lawn = muted(rng, (112, 122, 92), (104, 114, 88), (124, 124, 96))
    c.rect(0, 30, c.width, 360, lawn)
    for _ in range(26):
        c.blob(
            float(rng.uniform(0, c.width)),
            float(rng.uniform(34, 104)),
            float(rng.uniform(14, 60)),
            float(rng.uniform(2, 6)),
            shade(lawn, float(rng.uniform(0.88, 1.1))),
        )
    paving = muted(rng, (152, 148, 142), (138, 136, 134), (146, 140, 128))
    c.rect(0, 108, c.width, 360, paving)
    c.rect(0, 106, c.width, 110, shade(paving, 0.75))
    centre = c.width * float(rng.uniform(0.3, 0.7))
    for x in np.arange(-3 * c.width, 4 * c.width, 90.0):  # joints meet at the horizon
        far, near = (y - 25.0 for y in (110.0, 360.0))
        c.line(centre + (float(x) - centre) * far / near, 110, centre + float(x) - centre, 360, shade(paving, 0.9))
    for y in 25 + 85 * 1.28 ** np.arange(0, 6):
        c.line(0, float(y), c.width, float(y), shade(paving, 0.92))
    for _ in range(int(rng.integers(4, 8))):
        tree(c, rng, float(rng.uniform(10, c.width)), float(rng.uniform(70, 106)), float(rng.uniform(26, 48)))
    for _ in range(int(rng.integers(3, 7))):
        bush(c, rng, float(rng.uniform(0, c.width)), float(rng.uniform(98, 110)), float(rng.uniform(12, 24)))
    return []
