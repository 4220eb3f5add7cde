"""Who does what, when: endless from a seed, and any moment can be asked for without the ones before it.

Time is cut into tracks, each a row of blocks of BLOCK_S seconds. A block holds one short story after another and every
story ends inside its block, so a moment needs one block of each track and nothing else. Tracks are shifted against each
other, so the scene has no common beat. Places in units (360 to the picture's height), times in seconds of the view.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from agent.capture.scene.actor import UPRIGHT, Actor
from agent.capture.scene.stage import ANIMALS, GROUNDS, VEHICLES, kinds_of
from agent.capture.scene.stories import (
    LYING,
    PAIR,
    ROAD,
    SKY,
    SOLO,
    Life,
    Set,
    drives,
    falls,
    leaves_bag,
    leaves_box,
    parks,
)

BLOCK_S = 40.0
_TRACK_SHIFT_S = 13.0
_IDS = 32_000  # ids come round again after this many: they fit a 16-bit label map
_PER_BLOCK = 24


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
        s = Set(self._place, self._width, rng)
        kinds = kinds_of(self._place)
        kind = s.any_of(tuple(k for k in kinds if k in (*VEHICLES, *ANIMALS)))
        if "chair" in kinds and rng.random() < 0.4:
            kind = "chair"
        y = float(rng.choice(GROUNDS[self._place].park)) if kind in VEHICLES else s.walk_line()
        life = Life(kind, -1e9, s.inner(), y, rng, LYING if kind in ANIMALS else UPRIGHT)
        life.stay("parked" if kind in VEHICLES else "lying" if kind in ANIMALS else "left", 2e9)
        return replace(life.done(), id=1 + self._first_id % _IDS)

    def _make_block(self, track: int, block: int) -> tuple[Actor, ...]:
        rng = np.random.default_rng([*self._key, 2, track, block & 0xFFFFFFFF])
        s = Set(self._place, self._width, rng)
        start = block * BLOCK_S - _TRACK_SHIFT_S * track
        end, first = start + BLOCK_S, track == 0 and block == 0
        stories = SOLO + (ROAD if GROUNDS[self._place].drive else ()) + (PAIR if self._tracks[track] == 2 else ())
        if "bird" in kinds_of(self._place):
            stories += SKY
        if first:  # the opening is never dull
            stories = tuple(p for p in stories if p[0] in (falls, drives, parks, leaves_bag, leaves_box))
        tells, weights = zip(*stories, strict=True)
        chances = np.array(weights) / sum(weights)
        t, actors = start + float(rng.uniform(0.4, 1.5) if first else rng.uniform(0.5, 9)), list[Actor]()
        misses = 0
        while misses < 4:
            told = tells[int(rng.choice(len(tells), p=chances))](s, t)
            last = max(a.end_s for a in told)
            if last > end:
                misses += 1
                continue
            actors += told
            t = last + float(rng.uniform(2, 11))
        base = self._first_id + 1 + (len(self._tracks) * (block % 1_000_000) + track) * _PER_BLOCK
        return tuple(replace(a, id=1 + (base + i) % _IDS) for i, a in enumerate(actors))
