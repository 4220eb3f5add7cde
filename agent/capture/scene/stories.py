"""Short stories: who comes, what they do, how they go. Times in seconds, places in units (360 to the height)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import numpy as np

from agent.capture.scene.actor import UPRIGHT, Actor, Held, Leg
from agent.capture.scene.figure import new_look
from agent.capture.scene.stage import ANIMALS, GROUNDS, RIDDEN, VEHICLES, colour_of, kinds_of, size_at

DOWN = Held(tilt=pi / 2)
LYING = Held(low=1.0)  # of an animal
POSTURES = {"sitting": Held(sit=1.0), "crouching": Held(crouch=1.0), "waving": Held(wave=1.0)}
CARRYING = Held(carry=1.0)


class Life:
    """Writes an actor's legs one after another. What its body holds stays until the next leg changes it."""

    def __init__(
        self, kind: str, start_s: float, x: float, y: float, rng: np.random.Generator, held: Held = UPRIGHT
    ) -> None:
        self.kind, self.t, self.x, self.y, self.rng, self.held = kind, start_s, x, y, rng, held
        self.facing = 1 if rng.random() < 0.5 else -1
        self.phase = float(rng.uniform(0, 2 * pi))
        self.bulk = float(rng.uniform(0.93, 1.07))
        self.legs: list[Leg] = []

    @property
    def size(self) -> float:
        return size_at(self.kind, self.y) * self.bulk

    def go(
        self, x: float, y: float, speed: float, ease: int = 0, action: str = "walking", held: Held | None = None
    ) -> Life:
        """Move to (x, y) at `speed` sizes a second; vehicles drive or are ridden."""
        seconds = max(0.4, abs(x - self.x) / (speed * self.size)) * (1.5 if ease else 1.0)
        self.facing = 1 if x >= self.x else -1
        if self.kind in VEHICLES:
            action = "riding" if self.kind in RIDDEN else "driving"
        return self._add(action, seconds, x, y, ease, held)

    def stay(self, action: str, seconds: float, held: Held | None = None) -> Life:
        """Remain in place, doing `action`, and end up as `held`."""
        return self._add(action, seconds, self.x, self.y, 0, held)

    def change(self, before: str, after: str, seconds: float, held: Held) -> Life:
        """Move the body from doing one thing to doing another; midway it counts as the other."""
        midway = Held(*((a + b) / 2 for a, b in zip(self.held, held, strict=True)))
        return self.stay(before, seconds / 2, midway).stay(after, seconds / 2, held)

    def _add(self, action: str, seconds: float, x: float, y: float, ease: int, held: Held | None) -> Life:
        end, last = self.t + seconds, held or self.held
        leg = Leg(self.t, end, self.x, self.y, x, y, action, self.facing, self.phase, ease, self.held, last)
        self.legs.append(leg)
        self.phase = leg.phase_at(end, self.kind, self.bulk)
        self.t, self.x, self.y, self.held = end, x, y, last
        return self

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

    def vehicle(self, kinds: tuple[str, ...]) -> str:
        """One of those kinds of vehicle that the place can show; cars are the commonest."""
        here = tuple(k for k in kinds if k in kinds_of(self.place))
        return "car" if "car" in here and self.rng.random() < 0.25 else self.any_of(here)


def passes(s: Set, t: float) -> list[Actor]:
    """Somebody, or an animal, crosses the picture."""
    kind = s.any_of(("person", "person", "dog", "cat"))
    y, side = s.walk_line(), s.side()
    speed = float(s.rng.uniform(0.55, 0.8)) if kind == "person" else float(s.rng.uniform(0.8, 1.15))
    return [Life(kind, t, s.edge(-side, kind, y), y, s.rng).go(s.edge(side, kind, y), y, speed).done()]


def runs(s: Set, t: float) -> list[Actor]:
    """A person runs through the picture."""
    y, side = s.walk_line(), s.side()
    life = Life("person", t, s.edge(-side, "person", y), y, s.rng, Held(run=1.0))
    return [life.go(s.edge(side, "person", y), y, float(s.rng.uniform(1.4, 1.8)), action="running").done()]


def visits(s: Set, t: float) -> list[Actor]:
    """A person comes, stands, mostly sits down, crouches or waves for a while, goes."""
    y = s.walk_line()
    life = Life("person", t, s.edge(s.side(), "person", y), y, s.rng).go(s.inner(), y, 0.65)
    life.stay("standing", float(s.rng.uniform(1, 3)))
    doing = s.any_of(("standing", *POSTURES))
    seconds = float(s.rng.uniform(3, 6))
    if doing == "standing":
        life.stay(doing, seconds)
    else:
        life.change("standing", doing, 0.7, POSTURES[doing]).stay(doing, seconds)
        life.change(doing, "standing", 0.7, UPRIGHT).stay("standing", 0.5)
    return [life.go(s.edge(s.side(), "person", y), y, 0.7).done()]


def roams(s: Set, t: float) -> list[Actor]:
    """An animal comes, stands, lies or sits down for a while, goes."""
    kind, y = s.any_of(ANIMALS), s.walk_line()
    life = Life(kind, t, s.edge(s.side(), kind, y), y, s.rng).go(s.inner(), y, 0.8)
    life.stay("standing", float(s.rng.uniform(1.5, 4)))
    rest = s.rng.random()
    if rest < 0.8:
        doing, held = ("lying", LYING) if rest < 0.45 else ("sitting", POSTURES["sitting"])
        life.change("standing", doing, 0.5, held).stay(doing, float(s.rng.uniform(4, 8)))
        life.change(doing, "standing", 0.5, UPRIGHT).stay("standing", 0.8)
    return [life.go(s.edge(s.side(), kind, y), y, 0.95).done()]


def lands(s: Set, t: float) -> list[Actor]:
    """A bird flies in, lands, stands, walks a little, flies off."""
    y, aloft = s.walk_line(), Held(height=float(s.rng.uniform(1.4, 2.0)))
    life = Life("bird", t, s.edge(s.side(), "bird", y), y, s.rng, aloft)
    life.go(s.inner(0.3), y, 1.8, action="flying", held=UPRIGHT)
    life.stay("standing", float(s.rng.uniform(1.5, 4)))
    step = life.size * s.side()
    life.go(life.x + step, y, 0.6).stay("standing", float(s.rng.uniform(1.5, 4)))
    return [life.go(s.edge(s.side(), "bird", y), y, 1.8, action="flying", held=aloft).done()]


def falls(s: Set, t: float) -> list[Actor]:
    """A person comes, falls, lies for some seconds, gets up and goes."""
    y = s.walk_line()
    life = Life("person", t, s.edge(s.side(), "person", y), y, s.rng).go(s.inner(0.3), y, 0.8)
    life.stay("standing", float(s.rng.uniform(0.4, 1.2))).stay("falling", float(s.rng.uniform(0.8, 1.1)), DOWN)
    life.stay("lying", float(s.rng.uniform(4, 10))).stay("rising", 1.6, UPRIGHT).stay("standing", 1.2)
    return [life.go(s.edge(s.side(), "person", y), y, 0.6).done()]


def drives(s: Set, t: float) -> list[Actor]:
    """Something on wheels passes; near lane and far lane have a direction each."""
    kind, lanes = s.vehicle(VEHICLES), GROUNDS[s.place].drive
    lane = int(s.rng.integers(len(lanes)))
    side, y = (1 if lane == 0 else -1), lanes[lane] + float(s.rng.uniform(-3, 3))
    speed = float(s.rng.uniform(0.7, 1.3)) * (1.3 if kind in RIDDEN else 1.0)
    return [Life(kind, t, s.edge(-side, kind, y), y, s.rng).go(s.edge(side, kind, y), y, speed).done()]


def parks(s: Set, t: float) -> list[Actor]:
    """A vehicle comes, parks, stays, drives off the same way on."""
    kind = s.vehicle(tuple(k for k in VEHICLES if k not in RIDDEN))
    ground, side = GROUNDS[s.place], s.side()
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
    bag = Life("bag", left, x + giver.legs[0].facing * 0.16 * giver.size, y + 1.5, s.rng).stay("left", taken - left)
    return [giver.done(), bag.done(), taker.done()]


def leaves_box(s: Set, t: float) -> list[Actor]:
    """A person carries a box in, puts it down and goes; later somebody carries it off."""
    y, x = s.walk_line(), s.inner(0.25)
    crouching = POSTURES["crouching"]
    giver = Life("person", t, s.edge(s.side(), "person", y), y, s.rng, CARRYING).go(x, y, 0.7, action="carrying")
    giver.change("carrying", "crouching", 0.8, crouching._replace(carry=1.0))
    left, spot = giver.t, x + giver.facing * 0.3 * giver.size
    giver.stay("crouching", 0.3, crouching).change("crouching", "standing", 0.8, UPRIGHT).stay("standing", 0.4)
    giver.go(s.edge(s.side(), "person", y), y, 0.85)
    back = giver.t + float(s.rng.uniform(0.5, 3.0))
    side = s.side()
    taker = Life("person", back, s.edge(side, "person", y), y, s.rng)
    taker.go(spot + side * 0.3 * taker.size, y, 0.9).stay("standing", 0.4)
    taker.change("standing", "crouching", 0.8, crouching).stay("crouching", 0.4)
    taken = taker.t
    taker.stay("crouching", 0.3, crouching._replace(carry=1.0)).change("crouching", "carrying", 0.8, CARRYING)
    taker.go(s.edge(s.side(), "person", y), y, 0.7, action="carrying")
    box = Life("box", left, spot, y + 1.5, s.rng).stay("left", taken - left)
    return [giver.done(), box.done(), taker.done()]


Story = Callable[[Set, float], list[Actor]]
SOLO: tuple[tuple[Story, float], ...] = ((passes, 2.0), (visits, 2.2), (roams, 1.8), (falls, 1.8), (runs, 0.8))
SKY: tuple[tuple[Story, float], ...] = ((lands, 1.0),)
ROAD: tuple[tuple[Story, float], ...] = ((drives, 2.6), (parks, 2.4))
PAIR: tuple[tuple[Story, float], ...] = ((leaves_bag, 3.0), (leaves_box, 1.8), (walks_dog, 1.0))
