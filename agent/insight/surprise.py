"""How unusual each place of a frame is, by what was normal: three streams on one map, evidence carried along.

Appearance (does this look like what was here, or like what is seen at this distance), motion (does this move as things
do here, at this hour) and dwell (has this stayed for longer than things do) each give a map over the cells of
`agent.insight.movement`. What is unusual is followed: the map of the frame before is fetched from where each place was
then, by the flow, and blended with the new one. So a cyclist adds up along his way, and what flickers at one place does
not. The maps of appearance and motion are added, each by what it reaches in this camera's normal time: a stream that is
restless here counts for less. Dwell is judged by itself: it needs seconds where the others need moments. What vanishes
within the picture went behind something and is still there for a while; what leaves by its edge is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import exp

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.insight.baseline import WIDTH, Appearance, project, random_signs
from agent.insight.dwell import Dwell
from agent.insight.movement import NOTHING_MOVES, SHAPE, STILL, Movement, UsualMovement

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
CellPlaces = Floats
"""float32 (54, 80, 2): where each cell of the frame lies on the token grid, (x, y), for `cv2.remap`."""


class Stream(str, Enum):
    """What a place can be unusual by."""

    APPEARANCE = "appearance"
    MOTION = "motion"
    DWELL = "dwell"


_KEEP_S = 0.25
"""Time constant of the evidence, lengthened by `smoothing_s` where that is set."""
_BEHIND_S = 3.0
"""Time constant of what went behind something."""
_EDGE = 0.06
"""Share of the picture's width that is its edge."""
_LEAST = {Stream.APPEARANCE: 0.8, Stream.MOTION: 1.5, Stream.DWELL: 1.0}
"""What a stream is measured in, at least, however little it has ever reached."""
STRANGE = 2.25
"""Score of a token that looks unlike its place: one and a half of its normal spread, squared."""
_NOISY = 6.0
"""Grey levels: where the picture is noisier than this, as in rain, flow counts only where the residual stands out."""
_STANDS_OUT = 3.0
_FEW = 0.3
_IN_TURN = 4
"""Tokens a frame that are judged though they have not changed: what is normal has."""
_CELLS = np.arange(SHAPE[1], dtype=np.float32), np.arange(SHAPE[0], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Look:
    """What one frame shows. features: float32 (T, D), tokens before blending in time. fresh: bool (T,), those that may
    have changed since the frame before and are judged anew. moved: bool (T,), whose pixels changed. residual: float32
    (T,), grey levels. cells: as of `cells_of_flow`, None = not measured. seconds: since the frame before, 0 = none.
    places: where the cells lie on the token grid. hour: of the day. ignored: bool (T,), tokens that never count."""

    features: Floats
    fresh: Mask
    moved: Mask
    residual: Floats
    cells: Floats | None
    seconds: float
    places: CellPlaces
    hour: float = 12.0
    ignored: Mask | None = None


class Normal:
    """What was seen in normal time. noise: float32 (T,), usual residual of a token, grey levels."""

    def __init__(self, grid: tuple[int, int], dim: int, *, age_s: float, seed: int = 0) -> None:
        self.grid, self.age_s = grid, age_s
        self.signs = random_signs(dim, seed)
        self.appearance = Appearance(grid, min(WIDTH, dim))
        self.motion = UsualMovement()
        self.dwell = Dwell(grid)
        self.noise = np.zeros(grid[0] * grid[1], np.float32)
        self.seconds = 0.0

    def movement(self, look: Look) -> Movement | None:
        """How things move, without what flow makes of rain; None when it was not measured."""
        if look.cells is None or look.seconds <= 0:
            return None
        cells, noisy = look.cells, self.noise > _NOISY
        if cells is not STILL and noisy.any():
            counts = look.moved | (look.residual > _STANDS_OUT * self.noise) | ~noisy
            cells = cells * (on_cells(counts.astype(np.float32), look.places, self.grid) > _FEW)[..., None]
        if cells is not STILL and look.ignored is not None and look.ignored.any():
            cells = cells * (on_cells(look.ignored.astype(np.float32), look.places, self.grid) < 0.5)[..., None]
        return self.motion.see(cells, look.seconds)

    def learn_noise(self, residual: Floats, dt_s: float) -> None:
        """Follow what residuals usually are, little moved by what passes."""
        self.seconds = min(self.seconds + dt_s, self.age_s)
        bounded = np.minimum(residual, 2 * self.noise + 2)
        self.noise += np.float32(min(1.0, dt_s / self.seconds)) * (bounded - self.noise)


@dataclass(frozen=True, slots=True)
class Surprise:
    """A frame's maps, float32 (54, 80). total: appearance and motion together. parts: the streams, by what is usual.
    raw: the highest of each stream in its own units, before it was measured by what is usual. score: of the frame, with
    what went behind something; place: (row, col) of that."""

    total: Floats
    parts: dict[Stream, Floats]
    raw: dict[Stream, float]
    score: float
    place: tuple[int, int]


class Judge:
    """Judges frames in order against a `Normal`. points: float32 (T, K), the tokens as they were judged last, and
    strange: float32 (T,), how strange they were, squared, unlike: bool (T,), which were not what is mostly there.
    scored: tokens judged in the last frame."""

    def __init__(self, normal: Normal, smoothing_s: float = _KEEP_S) -> None:
        self.normal, self._keep_s = normal, smoothing_s
        x, y = np.meshgrid(*_CELLS)
        self._own = np.dstack([x, y])
        tokens = len(normal.noise)
        self.points = np.zeros((tokens, normal.appearance.mean.shape[1]), np.float32)
        self.strange, self.unlike = np.zeros(tokens, np.float32), np.zeros(tokens, bool)
        self.scored = 0
        self.seen: Movement | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the frames before, after a cut."""
        self._whole, self._turn = True, 0
        self._carried: dict[Stream, Floats] = {}
        self._unmeasured_s = 0.0
        self._held, self._place = 0.0, (0, 0)
        self._at = self._going = np.zeros(2, np.float32)

    def calm(self) -> None:
        """Drop the evidence so far: what it was about is normal."""
        self._carried.clear()
        self._held = 0.0

    def process(self, look: Look, scales: Mapping[Stream, float]) -> Surprise:
        """scales: what each stream reaches in normal time."""
        self._score_tokens(look)
        self.seen = self.normal.movement(look)
        self.normal.dwell.process(self.unlike, look.moved, look.seconds)
        counted = np.float32(1) if look.ignored is None else (~look.ignored).astype(np.float32)
        carried = self._carry(
            look,
            {
                Stream.APPEARANCE: on_cells(np.sqrt(self.strange) * counted, look.places, self.normal.grid),
                Stream.DWELL: self._dwell(look, counted),
            },
        )
        parts = {s: carried[s] / np.float32(max(_LEAST[s], scales.get(s, 0.0))) for s in Stream}
        total = np.add(parts[Stream.APPEARANCE], parts[Stream.MOTION])
        score = self._hold(total, look.seconds)
        raw = {stream: float(carried[stream].max()) for stream in Stream}
        return Surprise(total, parts, raw, score, self._place)

    def _dwell(self, look: Look, counted: Floats | np.float32) -> Floats:
        dwell = self.normal.dwell
        if not dwell.stayed.any():
            return NOTHING_MOVES.share
        return on_cells(dwell.score() * counted, look.places, self.normal.grid)

    def _score_tokens(self, look: Look) -> None:
        due = look.fresh.copy()
        due[(self._turn + np.arange(_IN_TURN)) % len(due)] = True
        self._turn = (self._turn + _IN_TURN) % len(due)
        slots = np.arange(len(due)) if self._whole else np.flatnonzero(due)
        self.scored, self._whole = len(slots), False
        if len(slots):
            points = project(look.features[slots], self.normal.signs)
            self.points[slots] = points
            self.strange[slots], self.unlike[slots] = self.normal.appearance.score(points, slots)

    def _carry(self, look: Look, maps: dict[Stream, Floats]) -> dict[Stream, Floats]:
        """The evidence so far where it has moved to, blended with that of this frame."""
        keep = np.float32(exp(-look.seconds / self._keep_s)) if look.seconds else np.float32(0)
        from_where = None
        if self.seen is not None:
            maps[Stream.MOTION] = self.normal.motion.surprise(self.seen, look.hour)
            elapsed = look.seconds + self._unmeasured_s
            from_where = self._own - self.seen.velocity * np.float32(elapsed)
            self._unmeasured_s = 0.0
        elif look.moved.any() and Stream.MOTION in self._carried:  # flow rests: what is known stands
            self._unmeasured_s += look.seconds
            maps[Stream.MOTION] = self._carried[Stream.MOTION]
        else:
            maps[Stream.MOTION] = np.zeros(SHAPE, np.float32)
        for stream, new in maps.items():
            before = self._carried.get(stream)
            if before is None or new is before or stream is Stream.DWELL:
                self._carried[stream] = new
                continue
            if from_where is not None:
                fetched = cv2.remap(before, from_where[..., 0], from_where[..., 1], cv2.INTER_LINEAR)
                before = np.asarray(fetched, np.float32)
            self._carried[stream] = np.asarray(keep * before + (1 - keep) * new, np.float32)
        return self._carried

    def _hold(self, total: Floats, seconds: float) -> float:
        edge = _EDGE * SHAPE[1]
        inside = edge < self._place[1] < SHAPE[1] - 1 - edge
        held = self._held * exp(-seconds / (_BEHIND_S if inside else self._keep_s))
        row, col = np.unravel_index(int(total.argmax()), SHAPE)
        score = float(total[row, col])
        if score >= held:
            self._place, held = (int(row), int(col)), score
            self._at, self._going = np.array(self._place, np.float32), self._velocity_around(*self._place)
        elif inside:
            self._at = self._at + self._going * np.float32(seconds)
            row, col = np.clip(np.round(self._at), 0, np.array(SHAPE) - 1)
            self._place = int(row), int(col)
        self._held = held
        return held

    def _velocity_around(self, row: int, col: int) -> Floats:
        """(down, right) in cells a second, of what moves around a cell."""
        if self.seen is None:
            return np.zeros(2, np.float32)
        around = np.s_[max(0, row - 2) : row + 3, max(0, col - 2) : col + 3]
        moves = self.seen.share[around] > 0
        if not moves.any():
            return np.zeros(2, np.float32)
        return np.asarray(self.seen.velocity[around][moves].mean(axis=0)[::-1], np.float32)


def on_cells(tokens: Floats, places: CellPlaces, grid: tuple[int, int]) -> Floats:
    """float32 (54, 80): values of tokens (T,) where the cells lie."""
    found = cv2.remap(
        tokens.astype(np.float32).reshape(grid),
        places[..., 0],
        places[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(found, np.float32)
