"""Who does what, when: endless from a seed, and any moment can be asked for without the ones before it.

Time is cut into tracks, each a row of blocks of BLOCK_S seconds. A block holds one short story after another (somebody
passes, a car parks, a person falls, a bag is left and fetched) and every story ends inside its block, so a moment needs
one block of each track and nothing else. Tracks are shifted against each other, so the scene has no common beat.
Coordinates are units (360 to the picture's height), times seconds of the view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import pi, sin

import numpy as np

from agent.capture.scene.backdrop import GROUNDS
from agent.capture.scene.figure import Look, Pose, new_look
from agent.capture.scene.stage import ANIMALS, VEHICLES, colour_of, kinds_of, size_at

BLOCK_S = 40.0
_TRACK_SHIFT_S = 13.0
_IDS = 32_000  # ids come round again after this many: they fit a 16-bit label map
_PER_BLOCK = 24
_CYCLE = {
    "person": 0.78,
    "dog": 0.75,
    "cat": 0.7,
    "car": 0.5,
    "truck": 0.43,
    "bag": 1.0,
}  # travel in sizes per gait or wheel turn


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of an actor's life: straight from (x0, y0) to (x1, y1), tilt from tilt0 to tilt1, low from low0 to low1;
    `ease` −1 starts gently, +1 stops gently."""

    start_s: float
    end_s: float
    x0: float
    y0: float
    x1: float
    y1: float
    action: str
    facing: int
    phase: float = 0.0
    ease: int = 0
    tilt: tuple[float, float] = (0.0, 0.0)
    low: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Actor:
    """An individual with its life: legs follow each other without a gap."""

    id: int
    look: Look
    bulk: float
    legs: tuple[Leg, ...]

    @property
    def start_s(self) -> float:
        return self.legs[0].start_s

    @property
    def end_s(self) -> float:
        return self.legs[-1].end_s

    def at(self, t: float) -> tuple[Pose, str] | None:
        """Pose in units and action at a time; None before and after its life."""
        if not self.start_s <= t < self.end_s:
            return None
        leg = next(leg for leg in self.legs if t < leg.end_s)
        share = (t - leg.start_s) / (leg.end_s - leg.start_s)
        way = share * share if leg.ease < 0 else share * (2 - share) if leg.ease > 0 else share
        x, y = leg.x0 + (leg.x1 - leg.x0) * way, leg.y0 + (leg.y1 - leg.y0) * way
        kind = self.look.kind
        size = size_at(kind, y) * self.bulk
        going = leg.action in ("walking", "driving")
        turns = abs(x - leg.x0) / (size_at(kind, leg.y0) * self.bulk * _CYCLE[kind])
        tilt = leg.tilt[0] + (leg.tilt[1] - leg.tilt[0]) * share * share
        stride = min(1.0, (t - leg.start_s) / 0.3, (leg.end_s - t) / 0.3) if leg.action == "walking" else 0.0
        pose = Pose(
            x,
            y,
            size,
            leg.facing,
            phase=leg.phase + (-1 if kind in VEHICLES else 1) * 2 * pi * turns,
            stride=stride if not tilt else 0.3 * sin(min(1.0, tilt)),
            tilt=tilt,
            moving=leg.action == "driving" and going,
            low=leg.low[0] + (leg.low[1] - leg.low[0]) * share,
        )
        action = leg.action
        if action in ("falling", "rising"):  # what it looks like decides at both ends of the movement
            midway = "falling" if action == "falling" else "lying" if tilt > 0.9 else "standing"
            action = "standing" if tilt < 0.3 else "lying" if tilt > 1.35 else midway
        return pose, action


class _Life:
    """Writes an actor's legs one after another."""

    def __init__(self, kind: str, start_s: float, x: float, y: float, rng: np.random.Generator) -> None:
        self.kind, self.t, self.x, self.y, self.rng = kind, start_s, x, y, rng
        self.facing = 1 if rng.random() < 0.5 else -1
        self.phase = float(rng.uniform(0, 2 * pi))
        self.bulk = float(rng.uniform(0.93, 1.07))
        self.legs: list[Leg] = []

    @property
    def size(self) -> float:
        return size_at(self.kind, self.y) * self.bulk

    def go(self, x: float, y: float, speed: float, ease: int = 0) -> _Life:
        """Walk or drive to (x, y) at `speed` sizes a second."""
        seconds = max(0.4, abs(x - self.x) / (speed * self.size)) * (1.5 if ease else 1.0)
        self.facing = 1 if x >= self.x else -1
        action = "driving" if self.kind in VEHICLES else "walking"
        self._add(Leg(self.t, self.t + seconds, self.x, self.y, x, y, action, self.facing, self.phase, ease))
        turns = abs(x - self.x) / (self.size * _CYCLE[self.kind])
        self.phase += (-1 if self.kind in VEHICLES else 1) * 2 * pi * turns
        self.x, self.y = x, y
        return self

    def stay(
        self, action: str, seconds: float, tilt: tuple[float, float] = (0.0, 0.0), low: tuple[float, float] = (0.0, 0.0)
    ) -> _Life:
        """Remain in place, doing `action`."""
        self._add(
            Leg(self.t, self.t + seconds, self.x, self.y, self.x, self.y, action, self.facing, self.phase, 0, tilt, low)
        )
        return self

    def _add(self, leg: Leg) -> None:
        self.legs.append(leg)
        self.t = leg.end_s

    def done(self, colour: str | None = None) -> Actor:
        """The finished actor; its id is given when the block is put together."""
        look = new_look(self.kind, colour or colour_of(self.kind, self.rng), self.rng)
        return Actor(0, look, self.bulk, tuple(self.legs))


@dataclass(frozen=True, slots=True)
class _Set:
    place: str
    width: float
    rng: np.random.Generator

    def edge(self, side: int, kind: str, y: float) -> float:
        """Just outside the left (−1) or right (+1) border."""
        reach = size_at(kind, y) * (0.62 if kind != "person" else 0.3)
        return -reach if side < 0 else self.width + reach

    def side(self) -> int:
        return 1 if self.rng.random() < 0.5 else -1

    def walk_line(self) -> float:
        bands = GROUNDS[self.place].walk
        top, low = bands[int(self.rng.integers(len(bands)))]
        return float(self.rng.uniform(top, low))

    def inner(self, margin: float = 0.14) -> float:
        return float(self.rng.uniform(margin, 1 - margin)) * self.width

    def any_of(self, kinds: tuple[str, ...]) -> str:
        return kinds[int(self.rng.integers(len(kinds)))]


def _passes(s: _Set, t: float) -> list[Actor]:
    """Somebody, or an animal, crosses the picture."""
    kind = s.any_of(("person", "person", "dog", "cat"))
    y, side = s.walk_line(), s.side()
    speed = float(s.rng.uniform(0.55, 0.8)) if kind == "person" else float(s.rng.uniform(0.8, 1.15))
    return [_Life(kind, t, s.edge(-side, kind, y), y, s.rng).go(s.edge(side, kind, y), y, speed).done()]


def _visits(s: _Set, t: float) -> list[Actor]:
    """A person comes, stands a while, goes."""
    y = s.walk_line()
    life = _Life("person", t, s.edge(s.side(), "person", y), y, s.rng).go(s.inner(), y, 0.65)
    life.stay("standing", float(s.rng.uniform(3, 8))).go(s.edge(s.side(), "person", y), y, 0.7)
    return [life.done()]


def _roams(s: _Set, t: float) -> list[Actor]:
    """An animal comes, stands, lies down for a while, goes."""
    kind, y = s.any_of(ANIMALS), s.walk_line()
    life = _Life(kind, t, s.edge(s.side(), kind, y), y, s.rng).go(s.inner(), y, 0.8)
    life.stay("standing", float(s.rng.uniform(1.5, 4)))
    if s.rng.random() < 0.7:
        life.stay("standing", 0.4, low=(0.0, 1.0)).stay("lying", float(s.rng.uniform(4, 8)), low=(1.0, 1.0))
        life.stay("standing", 0.4, low=(1.0, 0.0)).stay("standing", 0.8)
    return [life.go(s.edge(s.side(), kind, y), y, 0.95).done()]


def _falls(s: _Set, t: float) -> list[Actor]:
    """A person comes, falls, lies for some seconds, gets up and goes."""
    y = s.walk_line()
    life = _Life("person", t, s.edge(s.side(), "person", y), y, s.rng).go(s.inner(0.3), y, 0.8)
    life.stay("standing", float(s.rng.uniform(0.4, 1.2))).stay("falling", float(s.rng.uniform(0.8, 1.1)), (0.0, pi / 2))
    down = (pi / 2, pi / 2)
    life.stay("lying", float(s.rng.uniform(4, 10)), down).stay("rising", 1.6, (pi / 2, 0.0)).stay("standing", 1.2)
    return [life.go(s.edge(s.side(), "person", y), y, 0.6).done()]


def _drives(s: _Set, t: float) -> list[Actor]:
    """A vehicle passes; near lane and far lane have a direction each."""
    kind, lanes = s.any_of(VEHICLES), GROUNDS[s.place].drive
    lane = int(s.rng.integers(len(lanes)))
    side, y = (1 if lane == 0 else -1), lanes[lane] + float(s.rng.uniform(-3, 3))
    speed = float(s.rng.uniform(0.7, 1.3))
    return [_Life(kind, t, s.edge(-side, kind, y), y, s.rng).go(s.edge(side, kind, y), y, speed).done()]


def _parks(s: _Set, t: float) -> list[Actor]:
    """A vehicle comes, parks, stays, drives off the same way on."""
    kind, ground, side = s.any_of(VEHICLES), GROUNDS[s.place], s.side()
    road, y = float(s.rng.choice(ground.drive)), float(s.rng.choice(ground.park))
    life = _Life(kind, t, s.edge(-side, kind, road), road, s.rng).go(s.inner(0.25), y, 0.8, ease=1)
    life.stay("parked", float(s.rng.uniform(7, 13)))
    return [life.go(s.edge(side, kind, road), road, 0.8, ease=-1).done()]


def _walks_dog(s: _Set, t: float) -> list[Actor]:
    """A person and a dog cross together."""
    y, side = s.walk_line(), s.side()
    start, end = s.edge(-side, "dog", y) - side * 40, s.edge(side, "dog", y) + side * 110
    person = _Life("person", t, start, y, s.rng)
    seconds = abs(end - start) / (0.62 * person.size)
    person.go(end, y, 0.62)
    dog = _Life("dog", t, start + side * 95, y + 3, s.rng)
    dog.go(end + side * 95, y + 3, abs(end - start) / seconds / dog.size)
    return [person.done(), dog.done()]


def _leaves_bag(s: _Set, t: float) -> list[Actor]:
    """A person leaves a bag and goes; later somebody fetches it."""
    y, x = s.walk_line(), s.inner(0.22)
    giver = _Life("person", t, s.edge(s.side(), "person", y), y, s.rng).go(x, y, 0.85).stay("standing", 1.6)
    left = giver.t - 0.8
    giver.go(s.edge(s.side(), "person", y), y, 0.85)
    back = giver.t + float(s.rng.uniform(0.5, 3.0))
    taker = _Life("person", back, s.edge(s.side(), "person", y), y, s.rng).go(x, y, 0.95).stay("standing", 1.4)
    taken = taker.t - 0.7
    taker.go(s.edge(s.side(), "person", y), y, 0.95)
    bag = _Life("bag", left, x, y - 1.5, s.rng).stay("left", taken - left)
    return [giver.done(), bag.done(), taker.done()]


_Story = Callable[[_Set, float], list[Actor]]
_SOLO: tuple[tuple[_Story, float], ...] = ((_passes, 2.0), (_visits, 1.6), (_roams, 1.8), (_falls, 1.3))
_ROAD: tuple[tuple[_Story, float], ...] = ((_drives, 2.6), (_parks, 2.4))
_PAIR: tuple[tuple[_Story, float], ...] = ((_leaves_bag, 3.0), (_walks_dog, 1.0))


def _capacities(objects: int) -> tuple[int, ...]:
    """How many objects each track may show at once; they add up to `objects`."""
    return (2,) * (objects >= 2) + (1,) * (objects - 2 if objects >= 2 else objects)


class Timeline:
    """The lives of one view. `width` in units; never more than `objects` at once; `first_id` starts its ids."""

    def __init__(self, place: str, key: tuple[int, ...], width: float, objects: int, first_id: int = 0) -> None:
        self._place, self._key, self._width, self._first_id = place, key, width, first_id
        rng = np.random.default_rng([*key, 1])
        resides = objects >= 2 and rng.random() < 0.35
        self._tracks = _capacities(objects - resides)
        self._residents = (self._resident(rng),) if resides else ()
        self._block = lru_cache(maxsize=32)(self._make_block)

    def between(self, start_s: float, end_s: float) -> list[Actor]:
        """Everybody whose life touches the span, in order of id given."""
        found = list(self._residents)
        for track in range(len(self._tracks)):
            shift = _TRACK_SHIFT_S * track
            for block in range(int((start_s + shift) // BLOCK_S), int((end_s + shift) // BLOCK_S) + 1):
                found += [a for a in self._block(track, block) if a.start_s <= end_s and a.end_s > start_s]
        return found

    def _resident(self, rng: np.random.Generator) -> Actor:
        """Something that is there from the beginning and never moves."""
        s = _Set(self._place, self._width, rng)
        kinds = kinds_of(self._place)
        vehicles = tuple(k for k in kinds if k in VEHICLES)
        kind = s.any_of(vehicles) if vehicles and rng.random() < 0.7 else s.any_of(ANIMALS)
        y = float(rng.choice(GROUNDS[self._place].park)) if kind in VEHICLES else s.walk_line()
        life = _Life(kind, -1e9, s.inner(), y, rng)
        if kind in VEHICLES:
            life.stay("parked", 2e9)
        else:
            life.stay("lying", 2e9, low=(1.0, 1.0))
        return replace(life.done(), id=1 + self._first_id % _IDS)

    def _make_block(self, track: int, block: int) -> tuple[Actor, ...]:
        rng = np.random.default_rng([*self._key, 2, track, block & 0xFFFFFFFF])
        s = _Set(self._place, self._width, rng)
        start = block * BLOCK_S - _TRACK_SHIFT_S * track
        end, first = start + BLOCK_S, track == 0 and block == 0
        stories = _SOLO + (_ROAD if GROUNDS[self._place].drive else ()) + (_PAIR if self._tracks[track] == 2 else ())
        if first:  # the opening is never dull
            stories = tuple(p for p in stories if p[0] in (_falls, _drives, _parks, _leaves_bag))
        tells, weights = zip(*stories, strict=True)
        chances = np.array(weights) / sum(weights)
        t, actors = start + float(rng.uniform(0.4, 1.5) if first else rng.uniform(0.5, 5)), list[Actor]()
        misses = 0
        while misses < 4:
            told = tells[int(rng.choice(len(tells), p=chances))](s, t)
            last = max(a.end_s for a in told)
            if last > end:
                misses += 1
                continue
            actors += told
            t = last + float(rng.uniform(1, 6))
        base = self._first_id + 1 + (len(self._tracks) * (block % 1_000_000) + track) * _PER_BLOCK
        return tuple(replace(a, id=1 + (base + i) % _IDS) for i, a in enumerate(actors))
