"""Short stories: who comes, what they do, how they go. Times in seconds, places in units (360 to the height)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import numpy as np

from agent.capture.scene.actor import CYCLE, Actor, Leg
from agent.capture.scene.figure import new_look
from agent.capture.scene.stage import ANIMALS, GROUNDS, VEHICLES, colour_of, size_at


class Life:
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

    def go(self, x: float, y: float, speed: float, ease: int = 0) -> Life:
        """Walk or drive to (x, y) at `speed` sizes a second."""
        seconds = max(0.4, abs(x - self.x) / (speed * self.size)) * (1.5 if ease else 1.0)
        self.facing = 1 if x >= self.x else -1
        action = "driving" if self.kind in VEHICLES else "walking"
        self._add(Leg(self.t, self.t + seconds, self.x, self.y, x, y, action, self.facing, self.phase, ease))
        turns = abs(x - self.x) / (self.size * CYCLE[self.kind])
        self.phase += (-1 if self.kind in VEHICLES else 1) * 2 * pi * turns
        self.x, self.y = x, y
        return self

    def stay(
        self, action: str, seconds: float, tilt: tuple[float, float] = (0.0, 0.0), low: tuple[float, float] = (0.0, 0.0)
    ) -> Life:
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
class Set:
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


def passes(s: Set, t: float) -> list[Actor]:
    """Somebody, or an animal, crosses the picture."""
    kind = s.any_of(("person", "person", "dog", "cat"))
    y, side = s.walk_line(), s.side()
    speed = float(s.rng.uniform(0.55, 0.8)) if kind == "person" else float(s.rng.uniform(0.8, 1.15))
    return [Life(kind, t, s.edge(-side, kind, y), y, s.rng).go(s.edge(side, kind, y), y, speed).done()]


def visits(s: Set, t: float) -> list[Actor]:
    """A person comes, stands a while, goes."""
    y = s.walk_line()
    life = Life("person", t, s.edge(s.side(), "person", y), y, s.rng).go(s.inner(), y, 0.65)
    life.stay("standing", float(s.rng.uniform(3, 8))).go(s.edge(s.side(), "person", y), y, 0.7)
    return [life.done()]


def roams(s: Set, t: float) -> list[Actor]:
    """An animal comes, stands, lies down for a while, goes."""
    kind, y = s.any_of(ANIMALS), s.walk_line()
    life = Life(kind, t, s.edge(s.side(), kind, y), y, s.rng).go(s.inner(), y, 0.8)
    life.stay("standing", float(s.rng.uniform(1.5, 4)))
    if s.rng.random() < 0.7:
        life.stay("standing", 0.4, low=(0.0, 1.0)).stay("lying", float(s.rng.uniform(4, 8)), low=(1.0, 1.0))
        life.stay("standing", 0.4, low=(1.0, 0.0)).stay("standing", 0.8)
    return [life.go(s.edge(s.side(), kind, y), y, 0.95).done()]


def falls(s: Set, t: float) -> list[Actor]:
    """A person comes, falls, lies for some seconds, gets up and goes."""
    y = s.walk_line()
    life = Life("person", t, s.edge(s.side(), "person", y), y, s.rng).go(s.inner(0.3), y, 0.8)
    life.stay("standing", float(s.rng.uniform(0.4, 1.2))).stay("falling", float(s.rng.uniform(0.8, 1.1)), (0.0, pi / 2))
    down = (pi / 2, pi / 2)
    life.stay("lying", float(s.rng.uniform(4, 10)), down).stay("rising", 1.6, (pi / 2, 0.0)).stay("standing", 1.2)
    return [life.go(s.edge(s.side(), "person", y), y, 0.6).done()]


def drives(s: Set, t: float) -> list[Actor]:
    """A vehicle passes; near lane and far lane have a direction each."""
    kind, lanes = s.any_of(VEHICLES), GROUNDS[s.place].drive
    lane = int(s.rng.integers(len(lanes)))
    side, y = (1 if lane == 0 else -1), lanes[lane] + float(s.rng.uniform(-3, 3))
    speed = float(s.rng.uniform(0.7, 1.3))
    return [Life(kind, t, s.edge(-side, kind, y), y, s.rng).go(s.edge(side, kind, y), y, speed).done()]


def parks(s: Set, t: float) -> list[Actor]:
    """A vehicle comes, parks, stays, drives off the same way on."""
    kind, ground, side = s.any_of(VEHICLES), GROUNDS[s.place], s.side()
    road, y = float(s.rng.choice(ground.drive)), float(s.rng.choice(ground.park))
    life = Life(kind, t, s.edge(-side, kind, road), road, s.rng).go(s.inner(0.25), y, 0.8, ease=1)
    life.stay("parked", float(s.rng.uniform(7, 13)))
    return [life.go(s.edge(side, kind, road), road, 0.8, ease=-1).done()]


def walks_dog(s: Set, t: float) -> list[Actor]:
    """A person and a dog cross together."""
    y, side = s.walk_line(), s.side()
    start, end = s.edge(-side, "dog", y) - side * 40, s.edge(side, "dog", y) + side * 110
    person = Life("person", t, start, y, s.rng)
    seconds = abs(end - start) / (0.62 * person.size)
    person.go(end, y, 0.62)
    dog = Life("dog", t, start + side * 95, y + 3, s.rng)
    dog.go(end + side * 95, y + 3, abs(end - start) / seconds / dog.size)
    return [person.done(), dog.done()]


def leaves_bag(s: Set, t: float) -> list[Actor]:
    """A person leaves a bag and goes; later somebody fetches it."""
    y, x = s.walk_line(), s.inner(0.22)
    giver = Life("person", t, s.edge(s.side(), "person", y), y, s.rng).go(x, y, 0.85).stay("standing", 1.6)
    left = giver.t - 0.8
    giver.go(s.edge(s.side(), "person", y), y, 0.85)
    back = giver.t + float(s.rng.uniform(0.5, 3.0))
    taker = Life("person", back, s.edge(s.side(), "person", y), y, s.rng).go(x, y, 0.95).stay("standing", 1.4)
    taken = taker.t - 0.7
    taker.go(s.edge(s.side(), "person", y), y, 0.95)
    bag = Life("bag", left, x, y - 1.5, s.rng).stay("left", taken - left)
    return [giver.done(), bag.done(), taker.done()]


Story = Callable[[Set, float], list[Actor]]
SOLO: tuple[tuple[Story, float], ...] = ((passes, 2.0), (visits, 1.6), (roams, 1.8), (falls, 1.8))
ROAD: tuple[tuple[Story, float], ...] = ((drives, 2.6), (parks, 2.4))
PAIR: tuple[tuple[Story, float], ...] = ((leaves_bag, 4.0), (walks_dog, 1.0))
