"""Anomaly: what this camera has not seen at this place, by appearance, by motion or by staying.

Three streams, each with a score per token: appearance (how far the token is from the Gaussian of its place), motion
(how improbable it is that this place moves, and moves so) and dwell (for how much longer than is usual there something
has stayed, or been gone). A stream's frame score is the root of the mean of its highest 1 % of cells, smoothed
causally, and measured in the rarity that this camera's own history gives it; each stream has its part of the allowed
false alarms a day.

An alarm begins when a stream stays past its limit for `min_duration_s` (two thresholds: once past the limit, staying
above half-way counts) and ends when all have been below half-way for `clear_s`. Frames are learned `delay_s` after
they were seen, and only if no alarm began meanwhile: the onset of an anomaly is never learned either. What stays for
`accept_after_s` is the new normal: the alarm ends and its places start anew.

While learning there are no alarms. A few minutes of a quiet camera teach that nothing ever happens here, so whatever
enters afterwards is an anomaly; what passes by while it learns is normal.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from math import exp, inf, sqrt

import numpy as np
from numpy.typing import NDArray

from agent.insight.baseline import WIDTH, Appearance, Floats, Motion, is_moving, project, random_signs
from agent.insight.checks import require
from agent.insight.dwell import Dwell
from agent.insight.hysteresis import Episode, Hysteresis
from agent.insight.rarity import DAY_S, ScoreHistory
from agent.insight.regions import CellBox, large_components, merge_close

_TICK_S = 0.2
_LONGEST_STEP_S = 1.0
"""A longer silence between two frames is a gap, not normal time."""
_TAUGHT_S, _TAUGHT_SHARE = 30.0, 0.25
"""What a person calls normal counts as so many seconds of normal time, and as that share of it."""
_STRANGE = 2.25
"""Appearance score of a cell that looks unlike its place: one and a half of its normal spread."""
_HISTORY_SHARE = 0.5
"""Latter part of all that was learned whose scores are remembered: what a younger baseline found odd says little of
what this one would."""


@dataclass(frozen=True, slots=True)
class AnomalySettings:
    """false_alarms_per_day: how many alarms a day normal life may raise. learn_s: normal time to see before the first
    alarm. age_s: time after which what was learned fades. smoothing_s: time constant of the score. min_duration_s,
    clear_s: how long an alarm must last to begin, and be over to end. accept_after_s: what stays so long is normal.
    cut_grace_s: no alarm begins so soon after a scene cut. seed: of the random projection."""

    false_alarms_per_day: float = 1.0
    learn_s: float = 300.0
    age_s: float = 6 * 3600.0
    smoothing_s: float = 0.4
    min_duration_s: float = 0.5
    clear_s: float = 2.0
    accept_after_s: float = 600.0
    cut_grace_s: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        rule = "more than 0, at most 100 a day"
        require("anomaly.false_alarms_per_day", self.false_alarms_per_day, 0 < self.false_alarms_per_day <= 100, rule)
        require("anomaly.learn_s", self.learn_s, self.learn_s >= 20, "20 s or more")
        require("anomaly.age_s", self.age_s, self.age_s >= self.learn_s, "at least `learn_s`")
        require("anomaly.smoothing_s", self.smoothing_s, self.smoothing_s > 0, "more than 0 s")
        require("anomaly.min_duration_s", self.min_duration_s, self.min_duration_s >= 0, "0 s or more")
        require("anomaly.clear_s", self.clear_s, self.clear_s >= 0, "0 s or more")
        rule = "longer than `min_duration_s`"
        require("anomaly.accept_after_s", self.accept_after_s, self.accept_after_s > self.min_duration_s, rule)
        require("anomaly.cut_grace_s", self.cut_grace_s, self.cut_grace_s >= 0, "0 s or more")

    @property
    def delay_s(self) -> float:
        """How long a frame waits before it is learned: an alarm that began in it is known by then."""
        return self.min_duration_s + 5 * self.smoothing_s


class Stream(str, Enum):
    APPEARANCE = "appearance"
    MOTION = "motion"
    DWELL = "dwell"


class AnomalyPhase(str, Enum):
    LEARNING = "learning"
    WATCHING = "watching"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class AnomalyState:
    """Where an AnomalyModel stands. progress: of learning, 0–1. score: of the last frame, 0 = usual, 1 = the alarm
    limit, no upper end; 0 while learning."""

    phase: AnomalyPhase
    progress: float
    score: float


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that begins, or ends (`ended`, with the same `onset_s`).

    onset_s, duration_s: on the clock of `update`. score: highest so far, 1 = the alarm limit. streams: what is
    unusual, the more unusual first. regions: boxes in cells, at the highest score. per_day: how often normal life
    scores that high; extrapolated: True when that is rarer than the time watched so far can show. accepted: True when
    it ended because it stayed, and is normal from now on.
    """

    onset_s: float
    duration_s: float
    score: float
    streams: tuple[Stream, ...]
    regions: tuple[CellBox, ...]
    per_day: float
    extrapolated: bool
    ended: bool = False
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame as the model saw it: projected tokens, velocities where they were measured, tokens that count."""

    points: Floats
    velocity: Floats | None
    counted: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class _Moment:
    """A moment of probably normal time that waits to be learned."""

    at_s: float
    dt_s: float
    points: Floats
    velocity: Floats | None
    over: Floats
    paused: NDArray[np.bool_]
    scores: dict[Stream, float]


@dataclass(frozen=True, slots=True)
class _Peak:
    """The worst frame of an alarm so far: level and score per stream, regions in cells."""

    levels: dict[Stream, float]
    scores: dict[Stream, float]
    regions: tuple[CellBox, ...]

    @property
    def level(self) -> float:
        return max(self.levels.values())


class AnomalyModel:
    """The normal of one camera, for a grid (rows, cols) and features of `dim` dimensions."""

    def __init__(self, grid: tuple[int, int], dim: int, settings: AnomalySettings | None = None) -> None:
        self.grid, self.dim = grid, dim
        self.settings = settings or AnomalySettings()
        tokens = grid[0] * grid[1]
        self.signs = random_signs(dim, self.settings.seed)
        self.appearance = Appearance(tokens, min(WIDTH, dim))
        self.motion = Motion(grid)
        self.dwell = Dwell(grid)
        self.history = {stream: ScoreHistory() for stream in Stream}
        self.learned_s = 0.0
        self._points = np.zeros_like(self.appearance.mean)
        self._velocity: Floats | None = None
        self._counted: NDArray[np.bool_] | None = None
        self._cells = {stream: np.zeros(tokens, np.float32) for stream in Stream}
        self._smooth: dict[Stream, float] = {}
        self._alarm = Hysteresis(
            enter=1.0, leave=0.5, min_duration_s=self.settings.min_duration_s, clear_s=self.settings.clear_s
        )
        self._told, self._onset_s = False, inf
        self._peak: _Peak | None = None
        self._level = 0.0
        self._last_s = self._grace_until_s = -inf
        self._waiting: deque[_Moment] = deque()
        self._open_s = 0.0
        self._open_scores: dict[Stream, float] = {}
        self._open_over = np.zeros(tokens, np.float32)

    @property
    def state(self) -> AnomalyState:
        progress = min(1.0, self.learned_s / self.settings.learn_s)
        if progress < 1:
            return AnomalyState(AnomalyPhase.LEARNING, progress, 0.0)
        phase = AnomalyPhase.ALARM if self._told else AnomalyPhase.WATCHING
        return AnomalyState(phase, 1.0, max(0.0, self._level))

    def update(
        self,
        features: Floats,
        now_s: float,
        *,
        motion: Floats | None = None,
        cut: bool = False,
        ignored: NDArray[np.bool_] | None = None,
    ) -> Alarm | None:
        """Take in one frame; the alarm that begins or ends with it, if one does.

        features: float32 (T, D), accumulated; only read. All are judged in every frame: blending in time moves tokens
        that were not encoded, too. motion: float32 (T, 2), mean backward flow since the frame before in cells, so that
        the size of the picture doesn't matter, 0 where no pixel changed; None = not measured. cut: this frame starts a
        new shot. ignored: bool (T,), tokens that never count.
        """
        first = self._last_s == -inf
        gap_s = 0.0 if first else now_s - self._last_s
        self._last_s = now_s
        self._velocity = None if motion is None or cut or gap_s <= 0 else motion / np.float32(gap_s)
        self._score_cells(features, ignored, min(gap_s, _LONGEST_STEP_S))
        if cut:
            self._smooth.clear()
            self._grace_until_s = now_s + self.settings.cut_grace_s
        scores = self._frame_scores(gap_s)
        alarm = self._judge(scores, now_s) if self.learned_s >= self.settings.learn_s else None
        flagged = self._told or alarm is not None
        self._learn(scores, now_s, min(gap_s, _LONGEST_STEP_S), normal=not flagged and now_s >= self._grace_until_s)
        return alarm

    def accept(self) -> Alarm | None:
        """Take what is unusual now for normal: its places start anew with what they show. Returns the end of the alarm
        that was on, if one was."""
        alarm = self._end(Episode(self._onset_s, self._last_s), accepted=True) if self._told else None
        places = self._unusual_cells()
        self.appearance.forget(places, self._points, self._counted)
        self._cells[Stream.APPEARANCE] = self.appearance.score(self._points, self._counted)
        if self._velocity is not None:
            self.motion.forget(places, self._velocity)
        self.dwell.forget(places)
        self._smooth.clear()
        self._alarm.cancel()
        self._peak = None
        return alarm

    def seen(self) -> Seen:
        """The last frame, to `teach` it later."""
        return Seen(
            self._points.copy(),
            None if self._velocity is None else self._velocity.copy(),
            None if self._counted is None else self._counted.copy(),
        )

    def teach(self, seen: Seen) -> None:
        """Somebody says that this frame was normal: learn it as if a quarter of all normal time had looked so."""
        seconds = max(_TAUGHT_S, _TAUGHT_SHARE * float(self.appearance.seconds.max()))
        self.appearance.learn(seen.points, seconds, self.settings.age_s, seen.counted)
        if seen.velocity is not None:
            seconds = max(_TAUGHT_S, _TAUGHT_SHARE * float(self.motion.seconds))
            self.motion.learn(seen.velocity, seconds, self.settings.age_s)

    def _score_cells(self, features: Floats, ignored: NDArray[np.bool_] | None, gap_s: float) -> None:
        self._counted = None if ignored is None else ~ignored
        self._points = project(features, self.signs)
        self._cells[Stream.APPEARANCE] = self.appearance.score(self._points, self._counted)
        if self._velocity is None:
            self._cells[Stream.MOTION] = np.zeros(len(self._points), np.float32)
        else:
            self._cells[Stream.MOTION] = self.motion.score(self._velocity)
        moving = np.zeros(len(self._points), bool) if self._velocity is None else is_moving(self._velocity)
        known = self.learned_s >= self.settings.learn_s / 2
        self.dwell.process(known & (self._cells[Stream.APPEARANCE] >= _STRANGE), moving, gap_s)
        self._cells[Stream.DWELL] = self.dwell.score()
        if ignored is not None:
            for cells in self._cells.values():
                cells[ignored] = 0

    def _frame_scores(self, gap_s: float) -> dict[Stream, float]:
        """Score of the frame by stream, in units of normal spread, smoothed over the past."""
        keep = exp(-gap_s / self.settings.smoothing_s)
        for stream, cells in self._cells.items():
            top = max(1, len(cells) // 100)
            score = sqrt(float(np.partition(cells, -top)[-top:].mean()))
            self._smooth[stream] = keep * self._smooth.get(stream, score) + (1 - keep) * score
        return dict(self._smooth)

    def _limits(self) -> dict[Stream, tuple[float, float]]:
        """For each stream that has a history: the scores that count as 0 (usual) and 1 (alarm)."""
        share = self.settings.false_alarms_per_day / len(Stream)
        known = {stream: history for stream, history in self.history.items() if history.usual < inf}
        return {stream: (history.usual, history.limit(share, self._last_s)) for stream, history in known.items()}

    def _judge(self, scores: dict[Stream, float], now_s: float) -> Alarm | None:
        limits = self._limits()
        levels = {stream: (scores[stream] - usual) / (limit - usual) for stream, (usual, limit) in limits.items()}
        self._level = max(levels.values(), default=0.0)
        if now_s < self._grace_until_s and not self._told:
            self._alarm.cancel()
            self._peak = None
            return None
        episode = self._alarm.update(self._level, now_s)
        if self._alarm.open and (self._peak is None or self._level > self._peak.level):
            self._peak = _Peak(levels, scores, self._regions())
        if episode is None:
            self._peak = self._peak if self._alarm.open else None
            return None
        if not self._told:
            self._told, self._onset_s = True, episode.onset_s
            return self._describe(episode)
        if episode.ended:
            return self._end(episode)
        return self.accept() if now_s - episode.onset_s >= self.settings.accept_after_s else None

    def _end(self, episode: Episode, *, accepted: bool = False) -> Alarm:
        alarm = self._describe(episode, ended=True, accepted=accepted)
        for stream in alarm.streams:
            self.history[stream].add_alarm(self._peak_now().scores[stream], self._last_s)
        self._told, self._peak = False, None
        return alarm

    def _describe(self, episode: Episode, *, ended: bool = False, accepted: bool = False) -> Alarm:
        peak = self._peak_now()
        streams = sorted((s for s, level in peak.levels.items() if level >= 1), key=lambda s: -peak.levels[s])
        per_day = self.history[streams[0]].per_day(peak.scores[streams[0]])
        return Alarm(
            onset_s=episode.onset_s,
            duration_s=episode.last_s - episode.onset_s,
            score=peak.level,
            streams=tuple(streams),
            regions=peak.regions,
            per_day=per_day,
            extrapolated=per_day * self.history[streams[0]].span_s < DAY_S,
            ended=ended,
            accepted=accepted,
        )

    def _peak_now(self) -> _Peak:
        assert self._peak is not None, "an alarm has a peak"
        return self._peak

    def _unusual_cells(self) -> NDArray[np.bool_]:
        """bool (T,): cells that alone are past half-way to the alarm limit of a stream."""
        unusual = np.zeros(len(self._points), bool)
        for stream, (usual, limit) in self._limits().items():
            unusual |= np.sqrt(self._cells[stream]) >= (usual + limit) / 2
        return unusual

    def _regions(self) -> tuple[CellBox, ...]:
        _, boxes = large_components(self._unusual_cells().reshape(self.grid))
        return tuple(merge_close(boxes))

    def _learn(self, scores: dict[Stream, float], now_s: float, dt_s: float, *, normal: bool) -> None:
        """Keep this moment until it is known that no alarm began in it, and learn the moments that are old enough."""
        if not normal:
            self._waiting.clear()
            self._open_scores.clear()
            self._open_over = np.zeros_like(self._open_over)
            self._open_s = 0.0
            return
        if self._velocity is None:
            scores = {stream: score for stream, score in scores.items() if stream is not Stream.MOTION}
        if self.dwell.unsettled.any():  # how long it stays is learned when it is over
            scores = {stream: score for stream, score in scores.items() if stream is not Stream.DWELL}
        for stream, score in scores.items():
            self._open_scores[stream] = max(score, self._open_scores.get(stream, score))
        self._open_over = np.maximum(self._open_over, self.dwell.over)
        self._open_s += dt_s
        if self._open_s >= _TICK_S:
            paused = self.dwell.unsettled & (self.dwell.stayed < self.settings.accept_after_s)
            moment = _Moment(
                now_s, self._open_s, self._points.copy(), self._velocity, self._open_over, paused, self._open_scores
            )
            self._waiting.append(moment)
            self._open_s, self._open_scores, self._open_over = 0.0, {}, np.zeros_like(self._open_over)
        while self._waiting and self._waiting[0].at_s <= now_s - self.settings.delay_s:
            self._learn_moment(self._waiting.popleft())

    def _learn_moment(self, moment: _Moment) -> None:
        age_s = self.settings.age_s
        self.appearance.learn(moment.points, moment.dt_s, age_s, self._counted, moment.paused)
        if moment.velocity is not None:
            self.motion.learn(moment.velocity, moment.dt_s, age_s)
        self.dwell.learn(moment.over, moment.dt_s, age_s)
        self.learned_s += moment.dt_s
        for stream, score in moment.scores.items():
            self.history[stream].add(score, moment.dt_s, span_s=_HISTORY_SHARE * self.learned_s)
