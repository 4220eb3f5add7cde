"""A camera whose normal life is known, and events in it at known times: what an anomaly model is measured on.

On a street people pass on the pavements and vehicles in their lanes, each lane its own way; in a yard nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from agent.capture.scene.actor import UPRIGHT, Actor
from agent.capture.scene.stage import GROUNDS
from agent.capture.scene.stories import CARRYING, DOWN, POSTURES, Life, Set

_NEVER_S = 1e9


@dataclass(frozen=True, slots=True)
class Drill:
    """One event. onset_s: when what is unusual begins to be in the picture; end_s: when it is over."""

    kind: str
    onset_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class _Played:
    actors: list[Actor]
    onset_s: float
    end_s: float


def _intrusion(s: Set, t: float) -> _Played:
    """Somebody walks about where nobody ever is."""
    y = s.walk_line()
    life = Life("person", t, s.edge(-1, "person", y), y, s.rng).go(s.width * 0.5, y, 0.6).stay("standing", 4)
    actor = life.go(s.edge(1, "person", y), y, 0.6).done()
    return _Played([actor], _seen_s(actor, s), life.t)


def _loitering(s: Set, t: float) -> _Played:
    y = _pavement(s)
    life = Life("person", t, s.edge(-1, "person", y), y, s.rng).go(s.width * 0.45, y, 0.7)
    stands_s = life.t
    life.stay("standing", 60)
    ends_s = life.t
    return _Played([life.go(s.edge(1, "person", y), y, 0.7).done()], stands_s, ends_s)


def _fall(s: Set, t: float) -> _Played:
    y = _pavement(s)
    life = Life("person", t, s.edge(-1, "person", y), y, s.rng).go(s.width * 0.5, y, 0.7)
    falls_s = life.t
    life.stay("falling", 0.9, DOWN).stay("lying", 30)
    ends_s = life.t
    life.stay("rising", 1.6, UPRIGHT).stay("standing", 1)
    return _Played([life.go(s.edge(1, "person", y), y, 0.7).done()], falls_s, ends_s)


def _left_object(s: Set, t: float) -> _Played:
    y = _pavement(s)
    life = Life("person", t, s.edge(-1, "person", y), y, s.rng, CARRYING).go(s.width * 0.55, y, 0.7, action="carrying")
    life.change("carrying", "crouching", 0.8, POSTURES["crouching"]).change("crouching", "standing", 0.8, UPRIGHT)
    left_s = life.t
    life.go(s.edge(1, "person", y), y, 0.8)
    box = Life("box", left_s - 0.8, s.width * 0.6, y + 1.5, s.rng).stay("left", 60.8)
    return _Played([life.done(), box.done()], left_s, box.t)


def _wrong_way(s: Set, t: float) -> _Played:
    lane = GROUNDS[s.place].drive[0]
    life = Life("car", t, s.edge(1, "car", lane), lane, s.rng).go(s.edge(-1, "car", lane), lane, 0.8)
    actor = life.done()
    return _Played([actor], _seen_s(actor, s), life.t)


def _crowd(s: Set, t: float) -> _Played:
    actors, gathered_s, ends_s = [], 0.0, t + 50
    for i in range(7):
        y = _pavement(s) - 6 + 2 * i
        life = Life("person", t + 0.6 * i, s.edge((-1) ** i, "person", y), y, s.rng)
        life.go(s.width * (0.3 + 0.06 * i), y, 0.75)
        gathered_s = max(gathered_s, life.t) if i < 4 else gathered_s
        life.stay("standing", ends_s - life.t)
        actors.append(life.go(s.edge((-1) ** i, "person", y), y, 0.75).done())
    return _Played(actors, gathered_s, ends_s)


def _vehicle_on_pavement(s: Set, t: float) -> _Played:
    y = _pavement(s)
    life = Life("motorbike", t, s.edge(-1, "motorbike", y), y, s.rng).go(s.edge(1, "motorbike", y), y, 1.5)
    actor = life.done()
    return _Played([actor], _seen_s(actor, s), life.t)


EVENTS: Mapping[str, Callable[[Set, float], _Played]] = MappingProxyType(
    {
        "loitering": _loitering,
        "fall": _fall,
        "left object": _left_object,
        "wrong way": _wrong_way,
        "crowd": _crowd,
        "vehicle on the pavement": _vehicle_on_pavement,
        "intrusion": _intrusion,
    }
)
REMOVED = "removed object"


class DrillTimeline:
    """Normal life with events. starts: (kind, seconds) in order; a `removed object` is there from the beginning until
    then. drills: the same with what was made of them. quiet: nothing happens else. Units and seconds of the view."""

    def __init__(
        self,
        place: str,
        seed: int,
        width: float,
        starts: Sequence[tuple[str, float]],
        *,
        seconds: float,
        quiet: bool = False,
    ) -> None:
        rng = np.random.default_rng([seed, 17])
        s = Set(place, width, rng)
        actors = [] if quiet else list(_passing(s, seconds))
        self.drills: list[Drill] = []
        for kind, start_s in starts:
            if kind == REMOVED:
                y = _pavement(s) - 4
                box = Life("box", -_NEVER_S, s.width * 0.75, y, rng).stay("left", _NEVER_S + start_s)
                played = _Played([box.done()], start_s, start_s + 60)
            else:
                played = EVENTS[kind](s, start_s)
            actors += played.actors
            self.drills.append(Drill(kind, played.onset_s, played.end_s))
        self._actors = [replace(actor, id=1 + i % 32_000) for i, actor in enumerate(actors)]
        self._starts = np.array([actor.start_s for actor in self._actors])
        self._ends = np.array([actor.end_s for actor in self._actors])

    def between(self, start_s: float, end_s: float) -> list[Actor]:
        """Everybody whose life touches the span."""
        return [self._actors[i] for i in np.flatnonzero((self._starts <= end_s) & (self._ends > start_s))]


def _passing(s: Set, seconds: float) -> Sequence[Actor]:
    """People on both pavements, one on each every ten seconds or so, and vehicles in both lanes."""
    actors = []
    for top, low in GROUNDS[s.place].walk:
        t = float(s.rng.uniform(0, 5))
        while t < seconds:
            y, side = float(s.rng.uniform(top, low)), s.side()
            life = Life("person", t, s.edge(-side, "person", y), y, s.rng)
            actors.append(life.go(s.edge(side, "person", y), y, float(s.rng.uniform(0.55, 0.85))).done())
            t += float(s.rng.uniform(4, 16))
    for lane, line in enumerate(GROUNDS[s.place].drive):
        t, side = float(s.rng.uniform(0, 8)), 1 if lane == 0 else -1
        while t < seconds:
            kind = s.any_of(("car", "car", "car", "truck"))
            life = Life(kind, t, s.edge(-side, kind, line), line, s.rng)
            life.go(s.edge(side, kind, line), line, float(s.rng.uniform(0.7, 1.2)))
            actors.append(life.done())
            t = life.t + float(s.rng.uniform(3, 14))
    return actors


def _pavement(s: Set) -> float:
    top, low = GROUNDS[s.place].walk[-1]
    return (top + low) / 2


def _seen_s(actor: Actor, s: Set) -> float:
    """When the actor's ground point enters the picture."""
    times = np.arange(actor.start_s, actor.end_s, 0.1)
    inside = [t for t in times if (now := actor.at(float(t))) is not None and 0 <= now[0].x <= s.width]
    return float(inside[0]) if inside else actor.start_s
