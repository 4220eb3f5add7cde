"""How unusual each place of a frame is, by what was normal: appearance and movement on one map, evidence carried along.

Each stream gives a map over the cells of `agent.insight.movement`. What is unusual is followed: the map of the frame
before is fetched from where each place was then, by the flow, and blended with the new one. So a cyclist adds up along
his way, and what flickers at one place does not. Each stream is measured in what its highest place reaches in normal
frames that it has not learned (two halves of the normal time, each judged by the other), and the maps are added: a
stream that is restless on this camera counts for less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import exp

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.insight.memory import TokenMemory
from agent.insight.movement import CELL_PX, Movement, UsualMovement, movement

Floats = NDArray[np.float32]
CellPlaces = Floats
"""float32 (h, w, 2): where each cell of the movement map lies on the token grid, (x, y), for `cv2.remap`."""


class Sense(str, Enum):
    """What a place can be unusual by."""

    APPEARANCE = "appearance"
    MOTION = "motion"


_KEEP_S = 0.35
"""Time constant of the evidence."""
_TRUST = {Sense.APPEARANCE: 0.5, Sense.MOTION: 1.0}
"""A walker a few tokens high looks much like the next cyclist: looks decide where ways of moving leave it open."""
_RESTLESS = 0.98
"""Quantile of normal frames that a stream is measured in."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one frame shows. points: float32 (T, K), projected tokens. fresh: bool (T,), those to judge anew. cells:
    float32 (h, w, 3) as of `cells_of_flow`. seconds: since the frame before, 0 = none."""

    points: Floats
    fresh: NDArray[np.bool_]
    cells: Floats
    seconds: float


class Normal:
    """What was seen in normal time. grid: (rows, cols) of tokens; shape: (h, w) of cells."""

    def __init__(self, grid: tuple[int, int], shape: tuple[int, int], *, age_s: float = 6 * 3600.0) -> None:
        self.memory = TokenMemory(grid)
        self.usual = UsualMovement(shape)
        self._age_s = age_s

    def learn(self, look: Look) -> None:
        fresh = np.flatnonzero(look.fresh) if len(self.memory) else np.arange(len(look.points))
        self.memory.learn(look.points[fresh], fresh)
        if look.seconds:
            self.usual.learn(self.movement(look), look.seconds, self._age_s)

    def movement(self, look: Look) -> Movement:
        """How things move, seen at the size that they have here."""
        return movement(look.cells, look.seconds or 1.0, self.usual.windows())

    def strangeness(self, look: Look, before: Floats | None) -> Floats:
        """float32 (T,): how far each token is from all remembered; those not fresh keep what they had `before`."""
        if before is None:
            return self.memory.distance(look.points, np.arange(len(look.points), dtype=np.int64))
        fresh, now = np.flatnonzero(look.fresh), np.array(before)
        if len(fresh):
            now[fresh] = self.memory.distance(look.points[fresh], fresh)
        return now


@dataclass(frozen=True, slots=True)
class Surprise:
    """A frame's maps, float32 (h, w). total: their sum, what is decided by. parts: the streams that it is made of; in
    motion 1, in appearance a half is what one normal frame in fifty reaches."""

    total: Floats
    parts: dict[Sense, Floats]

    @property
    def score(self) -> float:
        return float(self.total.max())

    @property
    def place(self) -> tuple[int, int]:
        """(row, col) of the highest cell."""
        row, col = np.unravel_index(int(self.total.argmax()), self.total.shape)
        return int(row), int(col)


class Judge:
    """Judges frames in order against a `Normal`. at: where each cell lies on the token grid. scale: what each stream
    reaches in normal frames."""

    def __init__(self, normal: Normal, at: CellPlaces, grid: tuple[int, int], scale: dict[Sense, float]) -> None:
        self.normal, self._at, self._grid, self._scale = normal, at, grid, scale
        shape = at.shape[:2]
        y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
        self._own = np.dstack([x, y])
        self.reset()

    def reset(self) -> None:
        """Forget the frames before, after a cut."""
        self.strange: Floats | None = None
        self._carried: dict[Sense, Floats] = {}

    def process(self, look: Look) -> Surprise:
        self.strange = self.normal.strangeness(look, self.strange)
        seen = self.normal.movement(look)
        tokens = np.sqrt(self.strange).reshape(self._grid)
        maps = {
            Sense.APPEARANCE: cv2.remap(
                tokens, self._at[..., 0], self._at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            ),
            Sense.MOTION: np.sqrt(self.normal.usual.surprise(seen)),
        }
        keep = np.float32(exp(-look.seconds / _KEEP_S)) if look.seconds else np.float32(0)
        from_where = self._own - seen.velocity * np.float32(look.seconds / CELL_PX)
        for sense, new in maps.items():
            before = self._carried.get(sense)
            if before is not None:
                fetched = cv2.remap(before, from_where[..., 0], from_where[..., 1], cv2.INTER_LINEAR)
                new = keep * fetched + (1 - keep) * new
            self._carried[sense] = np.asarray(new, np.float32)
        parts = {s: carried * np.float32(_TRUST[s] / self._scale[s]) for s, carried in self._carried.items()}
        return Surprise(np.add(*(parts[sense] for sense in Sense)), parts)


def plain_scale() -> dict[Sense, float]:
    return dict.fromkeys(Sense, 1.0)


def calibrate(looks: Sequence[Look], at: CellPlaces, grid: tuple[int, int]) -> dict[Sense, float]:
    """What each stream reaches in normal frames that were not learned: two halves, each judged by the other."""
    half = len(looks) // 2
    highest: dict[Sense, list[float]] = {sense: [] for sense in Sense}
    for learned, judged in ((looks[:half], looks[half:]), (looks[half:], looks[:half])):
        judge = Judge(learn(learned, at, grid), at, grid, plain_scale())
        for look in judged:
            for sense, part in judge.process(look).parts.items():
                highest[sense].append(float(part.max()))
    return {sense: max(1e-3, float(np.quantile(found, _RESTLESS))) for sense, found in highest.items()}


def learn(looks: Sequence[Look], at: CellPlaces, grid: tuple[int, int]) -> Normal:
    normal = Normal(grid, (at.shape[0], at.shape[1]))
    for look in looks:
        normal.learn(look)
    return normal
