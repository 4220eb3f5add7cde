"""Anomaly: what this camera has not seen at this place and hour, by appearance, by motion or by staying.

    look ─▶ Judge (agent.insight.surprise): one map, its highest place ─▶ rarity ─▶ onset ─▶ alarm
                              ▲                                              ▲
                              └───────────── learned, some seconds later ────┘

A frame's score is measured in the rarity that this camera's own history gives it, so what is set is how many false
alarms a day are allowed. An alarm begins when the score stays past its limit (a cumulative sum: half a second at the
limit, less the farther beyond) and ends when it has been below half-way for `clear_s`. Frames are learned `delay_s`
after they were seen, and only if no alarm began meanwhile: the onset of an anomaly is never learned either. What stays
for `accept_after_s` is the new normal: the alarm ends and its places start anew. While an alarm is on, what begins
elsewhere in the picture is an alarm of its own, and one that becomes clearly worse is told again.

While learning there are no alarms. A few minutes of a quiet camera teach that nothing ever happens here, so whatever
enters afterwards is an anomaly; what passes by while it learns is normal. Where nearly all of the picture is strange
there are none either: that is for `agent.insight.tamper` to say.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import Enum
from math import inf
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.insight.baseline import Floats
from agent.insight.checks import require
from agent.insight.claim import Claim
from agent.insight.movement import SHAPE, Movement
from agent.insight.onset import Onset
from agent.insight.rarity import DAY_S, ScoreHistory, many
from agent.insight.regions import CellBox, large_components, merge_close
from agent.insight.surprise import STRANGE, Judge, Look, Normal, Surprise
from agent.insight.surprise import Stream as Stream
from agent.insight.tamper import STRANGE as STRANGE_ALL_OVER

FloatOrMap = TypeVar("FloatOrMap", float, Floats)

_TICK_S = 0.5
_LONGEST_STEP_S = 1.0
"""A longer silence between two frames is a gap, not normal time."""
_TAUGHT_S, _TAUGHT_SHARE = 30.0, 0.25
"""What a person calls normal counts as so many seconds of normal time, and as that share of it."""
_AFTERMATH_S = 30.0
"""Time after an alarm of which nothing is learned: what is left of it in tokens and evidence is not normal."""
_HALF = 0.6
"""Of the highest place's score: cells that are part of what is unusual."""
_SETTLED_S, _SETTLED_SHARE = 4.0, 0.4
"""While learning: what has stayed for so long, and for that share of all the time, is what belongs there."""
_HISTORY_SHARE = 0.5
"""Latter part of all that was learned whose scores are remembered: what a younger baseline found odd says little of
what this one would."""

_LEAVE = 0.5
"""Level, where 1 is the alarm limit: below it an alarm is over."""
HIGH = 1.5
"""Level of an alarm that matters more: half as far again from what is usual."""
_WORSE, _AGAIN_S = 1.25, 5.0
"""Times the level that was told last, and seconds since: then an alarm is told again."""
_MOST, _APART_S = 4, 3.0
"""Alarms that are on at once, at most, and seconds between the beginnings of two."""


@dataclass(frozen=True, slots=True)
class AnomalySettings:
    """false_alarms_per_day: how many alarms a day normal life may raise. learn_s: normal time to see before the first
    alarm. age_s: time after which what was learned fades. smoothing_s: time constant of the evidence. min_duration_s,
    clear_s: how long an alarm at its limit must last to begin, and be over to end. accept_after_s: what stays so long
    is normal. cut_grace_s: no alarm begins so soon after a scene cut. seed: of the random projection."""

    false_alarms_per_day: float = 1.0
    learn_s: float = 300.0
    age_s: float = 6 * 3600.0
    smoothing_s: float = 0.25
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
        return self.min_duration_s + 8 * self.smoothing_s


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
    """An alarm that begins, has become clearly worse (`again`) or ends (`ended`), with the same `onset_s`, which no
    other has.

    onset_s, duration_s: on the clock of `update`. score: highest so far, 1 = the alarm limit. streams: what is
    unusual, the more unusual first. regions: boxes in cells of `agent.insight.movement.SHAPE`, at the highest score.
    per_day: how often normal life scores that high; extrapolated: True when that is rarer than the time watched so far
    can show. normal: what is normal at that place, as a sentence. accepted: True when it ended because it stayed, and
    is normal from now on. today: which alarm within a day this is; too_many: True when that is more than the false
    alarms that are allowed can be by chance, so that either much happens here or what is normal has changed.
    """

    onset_s: float
    duration_s: float
    score: float
    streams: tuple[Stream, ...]
    regions: tuple[CellBox, ...]
    per_day: float
    extrapolated: bool
    again: bool = False
    ended: bool = False
    accepted: bool = False
    normal: str = ""
    today: int = 1
    too_many: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame as the model saw it: projected tokens, movement where it was measured, hour of the day."""

    points: Floats
    movement: Movement | None
    hour: float


@dataclass(frozen=True, slots=True)
class _Moment:
    """A moment of probably normal time that waits to be learned."""

    at_s: float
    dt_s: float
    seen: Seen
    residual: Floats
    over: Floats
    paused: NDArray[np.bool_]
    scores: dict[Stream, float]
    score: float


@dataclass(frozen=True, slots=True)
class _Peak:
    """The worst frame of an alarm so far."""

    level: float
    score: float
    streams: tuple[Stream, ...]
    regions: tuple[CellBox, ...]
    normal: str


@dataclass(slots=True, eq=False)
class _Standing:
    """An alarm that is on. onset: says when it is over. told, told_s: at which level and when it was told last. today:
    as of `Alarm`."""

    onset: Onset
    onset_s: float
    claim: Claim
    peak: _Peak
    told: float
    told_s: float
    today: int


class AnomalyModel:
    """The normal of one camera, for a grid (rows, cols) and features of `dim` dimensions.

    history: scores of normal frames; stream_history: of each stream alone, in its own units; empty while one has not
    been measured."""

    def __init__(self, grid: tuple[int, int], dim: int, settings: AnomalySettings | None = None) -> None:
        self.grid, self.dim = grid, dim
        self.settings = s = settings or AnomalySettings()
        self.normal = Normal(grid, dim, age_s=s.age_s, seed=s.seed)
        self.judge = Judge(self.normal, s.smoothing_s)
        self.history = ScoreHistory()
        self.stream_history = {stream: ScoreHistory() for stream in Stream}
        self.learned_s = 0.0
        self._onset = self._new_onset()
        self._peak: _Peak | None = None
        self._standing: list[_Standing] = []
        self._news: deque[Alarm] = deque()
        self._level = 0.0
        self._last_s = self._grace_until_s = self._learn_from_s = -inf
        self._look: Look | None = None
        self._waiting: deque[_Moment] = deque()
        self._open_s, self._open_score = 0.0, 0.0
        self._open_scores: dict[Stream, float] = {}
        self._open_over = np.zeros(grid[0] * grid[1], np.float32)

    @property
    def state(self) -> AnomalyState:
        progress = min(1.0, self.learned_s / self.settings.learn_s)
        if progress < 1:
            return AnomalyState(AnomalyPhase.LEARNING, progress, 0.0)
        phase = AnomalyPhase.ALARM if self._standing else AnomalyPhase.WATCHING
        return AnomalyState(phase, 1.0, max(0.0, self._level))

    @property
    def standing(self) -> tuple[Alarm, ...]:
        """The alarms that are on, as they stand, the one that began first before the others."""
        return tuple(self._describe(alarm, self._last_s) for alarm in self._standing)

    @property
    def strange(self) -> NDArray[np.bool_]:
        """bool (T,): tokens of the last frame that look unlike their place."""
        return np.asarray(self.judge.strange >= STRANGE)

    def update(self, look: Look, now_s: float, *, cut: bool = False) -> Alarm | None:
        """Take in one frame; the alarm that begins, becomes worse or ends with it, if one does. Where several do, the
        others come with the next frames. cut: it starts a new shot."""
        self._last_s = now_s
        if cut:
            self.judge.reset()
            self._grace_until_s = now_s + self.settings.cut_grace_s
        surprise = self.examine(look)
        if self._strange_all_over(look):
            self._grace_until_s = max(self._grace_until_s, now_s + self.settings.smoothing_s)
        if self.learned_s >= self.settings.learn_s:
            self._decide(surprise, now_s)
        alarm = self._news.popleft() if self._news else None
        if self._standing or alarm is not None:
            self._learn_from_s = now_s + _AFTERMATH_S
        self._wait(look, surprise, now_s, normal=now_s >= max(self._grace_until_s, self._learn_from_s))
        return alarm

    def examine(self, look: Look) -> Surprise:
        """How unusual a frame is. Nothing is learned, and no alarm raised."""
        self._look = look
        return self.judge.process(look, {stream: _finite(h.usual) for stream, h in self.stream_history.items()})

    def learn(self, look: Look) -> Surprise:
        """Take a frame for normal at once, as when a clip of normal time is given. So is all that stays in it, though
        it has not ended, and no place waits to be learned."""
        surprise = self.examine(look)
        self._open_s += min(look.seconds, _LONGEST_STEP_S)
        self._gather(surprise)
        if self._open_s >= _TICK_S:
            moment = self._close(look, 0.0)
            stays = np.maximum(moment.over, self.normal.dwell.stayed)
            self._learn_moment(replace(moment, over=stays, paused=np.zeros_like(moment.paused)))
        return surprise

    def begin_clip(self) -> None:
        """What comes is another time than what was seen so far: nothing of that goes on or stays."""
        self.judge.reset()
        self.normal.dwell.forget(np.ones_like(self.normal.dwell.stayed, bool))

    def learn_if_usual(self, look: Look, surprise: Surprise, now_s: float) -> None:
        """Learn a frame that was examined, some seconds later, unless by then something was unusual."""
        usual = _finite(self.history.usual)
        self._wait(look, surprise, now_s, normal=surprise.score <= max(usual, 1.0))

    def accept(self, onset_s: float | None = None) -> Alarm | None:
        """Take what is unusual now for normal, but for what other alarms are about: its places start anew with what
        they show. onset_s: of the alarm that is meant; None = the one that began first. Returns its end, if it was
        on."""
        places = self.strange | self.normal.dwell.unsettled
        meant = next((alarm for alarm in self._standing if onset_s in (None, alarm.onset_s)), None)
        end = None
        if meant is not None:
            self._standing.remove(meant)
            end = self._end(meant, self._last_s, accepted=True)
        for other in self._standing:
            places &= ~self._tokens(other.claim.near(self._last_s))
        self.normal.appearance.forget(places, self.judge.points)
        self.normal.dwell.forget(places)
        self.judge.strange[places] = 0
        self.judge.unlike[places] = False
        self.judge.calm()
        self._onset.cancel()
        self._peak = None
        if not self._standing:
            self._learn_from_s = self._last_s
        return end

    def interrupted(self) -> None:
        """Nothing is watched for now: alarms that are on end untold, and what is still unusual afterwards is a new
        one."""
        for alarm in self._standing:
            self._remember(alarm)
        self._standing.clear()
        self._news.clear()
        self._onset.cancel()
        self._peak = None

    def seen(self) -> Seen:
        """The last frame, to `teach` it later."""
        hour = 12.0 if self._look is None else self._look.hour
        return Seen(self.judge.points.copy(), self.judge.seen, hour)

    def teach(self, seen: Seen) -> None:
        """Somebody says that this frame was normal: learn it as if a quarter of all normal time had looked so."""
        normal = self.normal
        seconds = max(_TAUGHT_S, _TAUGHT_SHARE * float(normal.appearance.seconds.max()))
        normal.appearance.learn(seen.points, seconds, self.settings.age_s)
        if seen.movement is not None:
            seconds = max(_TAUGHT_S, _TAUGHT_SHARE * normal.motion.seconds)
            normal.motion.learn(seen.movement, seconds, self.settings.age_s, seen.hour)
        self.judge.calm()

    def _strange_all_over(self, look: Look) -> bool:
        if self.learned_s < self.settings.learn_s / 2:
            return False
        strange = self.strange if look.ignored is None else self.strange[~look.ignored]
        return bool(len(strange) and strange.mean() >= STRANGE_ALL_OVER)

    def _decide(self, surprise: Surprise, now_s: float) -> None:
        dwell = self._level_of(self.stream_history[Stream.DWELL], surprise.raw[Stream.DWELL])
        event = self._level_of(self.history, surprise.score)
        self._level = max(dwell, event)
        quiet = now_s < self._grace_until_s
        if quiet:
            self._onset.cancel()
            self._peak = None
        if self._standing:
            self._go_on(surprise, now_s, quiet=quiet)
            return
        if quiet:
            return
        episode = self._onset.update(self._level, now_s)
        if self._onset.open and (self._peak is None or self._level > self._peak.level):
            self._peak = self._describe_peak(surprise, self._level, dwell > event)
        if episode is None:
            self._peak = self._peak if self._onset.open else None
            return
        assert self._peak is not None, "an alarm has a peak"
        self._begin(episode.onset_s, self._peak, np.maximum(*self._levels(surprise)) >= _LEAVE, now_s)

    def _go_on(self, surprise: Surprise, now_s: float, *, quiet: bool) -> None:
        """Follow the alarms that are on. The first is over when nothing is unusual any more, and then all are."""
        first = self._standing[0]
        episode = first.onset.update(self._level, now_s)
        if episode is None or episode.ended:
            over_s = now_s if episode is None else episode.last_s
            self._news.extend(self._end(alarm, over_s) for alarm in self._standing)
            self._standing.clear()
            self._onset.cancel()
            return
        if not quiet:
            self._look_apart(surprise, now_s)
        if now_s - first.onset_s >= self.settings.accept_after_s:
            accepted = self.accept()
            assert accepted is not None
            self._news.append(accepted)

    def _look_apart(self, surprise: Surprise, now_s: float) -> None:
        """What belongs to which alarm, what of it has become worse or is over, and what begins elsewhere."""
        event, dwell = self._levels(surprise)
        unusual = np.maximum(event, dwell) >= _LEAVE
        elsewhere = np.ones(SHAPE, bool)
        for alarm in tuple(self._standing):
            alarm.claim.follow(unusual, now_s)
            near = alarm.claim.near(now_s)
            elsewhere &= ~near
            level, stays = _highest(event, dwell, near)
            if level > alarm.peak.level:
                alarm.peak = self._describe_peak(surprise, level, stays, near)
            if level >= _LEAVE:
                self._tell_again(alarm, now_s)
            over = alarm.onset.update(level, now_s) if alarm is not self._standing[0] else None
            if over is not None and over.ended:
                self._standing.remove(alarm)
                self._news.append(self._end(alarm, over.last_s))
        level, stays = _highest(event, dwell, elsewhere)
        episode = self._onset.update(level, now_s)
        newest_s = max(alarm.onset_s for alarm in self._standing)
        if episode is None or level < 1 or len(self._standing) >= _MOST or now_s - newest_s < _APART_S:
            return
        peak = self._describe_peak(surprise, level, stays, elsewhere)
        self._begin(episode.onset_s, peak, unusual & elsewhere, now_s)

    def _begin(self, onset_s: float, peak: _Peak, unusual: NDArray[np.bool_], now_s: float) -> None:
        before = sum(kept.alarms_within_a_day(now_s) for kept in (self.history, *self.stream_history.values()))
        today = before + len(self._standing) + 1
        alarm = _Standing(self._onset, onset_s, Claim(unusual, now_s), peak, peak.level, now_s, today)
        self._standing.append(alarm)
        self._onset, self._peak = self._new_onset(), None
        self._news.append(self._describe(alarm, now_s))

    def _tell_again(self, alarm: _Standing, now_s: float) -> None:
        """Where an alarm has become clearly worse than was told."""
        level = alarm.peak.level
        worse = level >= _WORSE * alarm.told or alarm.told < HIGH <= level
        if worse and now_s - alarm.told_s >= _AGAIN_S:
            alarm.told, alarm.told_s = level, now_s
            self._news.append(self._describe(alarm, now_s, again=True))

    def _new_onset(self) -> Onset:
        s = self.settings
        return Onset(enter=1.0, leave=_LEAVE, min_duration_s=s.min_duration_s, clear_s=s.clear_s)

    def _levels(self, surprise: Surprise) -> tuple[Floats, Floats]:
        """float32 (54, 80) twice: the level of each place, of appearance and motion, and of dwell."""
        staying = surprise.parts[Stream.DWELL]
        in_own_units = staying * np.float32(surprise.raw[Stream.DWELL] / max(float(staying.max()), 1e-6))
        dwell = self._level_of(self.stream_history[Stream.DWELL], in_own_units)
        return self._level_of(self.history, surprise.total), dwell

    def _level_of(self, history: ScoreHistory, score: FloatOrMap) -> FloatOrMap:
        """0 = usual, 1 = what normal time reaches as often as half of the false alarms are allowed."""
        usual, limit = _finite(history.usual), history.limit(self.settings.false_alarms_per_day / 2)
        return (score - usual) / max(limit - usual, 1e-6)

    def _tokens(self, cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool (T,): tokens that lie under these cells."""
        tokens = np.zeros(self.grid, bool)
        if self._look is not None:
            columns, rows = np.rint(self._look.places[cells]).astype(int).T
            tokens[rows.clip(0, self.grid[0] - 1), columns.clip(0, self.grid[1] - 1)] = True
        return tokens.reshape(-1)

    def _end(self, alarm: _Standing, last_s: float, *, accepted: bool = False) -> Alarm:
        told = self._describe(alarm, last_s, ended=True, accepted=accepted)
        self._remember(alarm)
        return told

    def _remember(self, alarm: _Standing) -> None:
        self._history_of(alarm.peak).add_alarm(alarm.peak.score, self._last_s)

    def _describe(
        self, alarm: _Standing, last_s: float, *, again: bool = False, ended: bool = False, accepted: bool = False
    ) -> Alarm:
        peak = alarm.peak
        history = self._history_of(peak)
        per_day = history.per_day(peak.score)
        return Alarm(
            onset_s=alarm.onset_s,
            duration_s=max(0.0, last_s - alarm.onset_s),
            score=peak.level,
            streams=peak.streams,
            regions=peak.regions,
            per_day=per_day,
            extrapolated=per_day * history.span_s < DAY_S,
            again=again,
            ended=ended,
            accepted=accepted,
            normal=peak.normal,
            today=alarm.today,
            too_many=alarm.today > many(self.settings.false_alarms_per_day),
        )

    def _describe_peak(
        self, surprise: Surprise, level: float, stays: bool, where: NDArray[np.bool_] | None = None
    ) -> _Peak:
        """stays: it is for how long something has stayed that this is unusual. where: cells that count, None = all."""
        part = surprise.parts[Stream.DWELL] if stays else surprise.total
        score, place = surprise.raw[Stream.DWELL] if stays else surprise.score, surprise.place
        if where is not None:
            share = float(part[where].max()) / max(float(part.max()), 1e-6)
            score = share * score if stays else float(part[where].max())
            part = np.asarray(part * where, np.float32)
        if stays or where is not None:
            row, col = np.unravel_index(int(part.argmax()), part.shape)
            place = int(row), int(col)
        shares = {stream: float(each[place]) for stream, each in surprise.parts.items()}
        shares = {s: share for s, share in shares.items() if (s is Stream.DWELL) == stays}
        largest = max(shares.values())
        streams = sorted((s for s, share in shares.items() if share >= largest / 2), key=lambda s: -shares[s])
        _, boxes = large_components(part >= max(_HALF * float(part.max()), 1e-6))
        regions = sorted(merge_close(boxes), key=lambda box: not _holds(box, place))
        return _Peak(level, score, tuple(streams), tuple(regions), self._normal_at(place, streams[0]))

    def _history_of(self, peak: _Peak) -> ScoreHistory:
        return self.stream_history[Stream.DWELL] if peak.streams[0] is Stream.DWELL else self.history

    def _normal_at(self, place: tuple[int, int], stream: Stream) -> str:
        assert self._look is not None
        if stream is Stream.DWELL:
            x, y = self._look.places[place]
            row, col = (int(np.clip(round(float(v)), 0, n - 1)) for v, n in ((y, self.grid[0]), (x, self.grid[1])))
            longest = float(self.normal.dwell.longest.reshape(self.grid)[row, col])
            return f"things stay here for at most {longest:.0f} s" if longest >= 1 else "nothing ever stays here"
        speed, (x, y), share = self.normal.motion.at(*place, self._look.hour)
        if share < 0.005:
            return "nothing moves here at this hour"
        way = ("right" if x > 0 else "left") if abs(x) >= abs(y) else ("down" if y > 0 else "up")
        crossing_s = SHAPE[1] / max(speed, 1e-3)
        return (
            f"something moves here {100 * share:.0f} % of the time at this hour, mostly {way}, "
            f"as fast as would cross the picture in {crossing_s:.0f} s"
        )

    def _wait(self, look: Look, surprise: Surprise, now_s: float, *, normal: bool) -> None:
        """Keep this moment until it is known that no alarm began in it, and learn the moments that are old enough."""
        if not normal:
            self._waiting.clear()
            self._forget_open()
            return
        self._gather(surprise)
        self._open_s += min(look.seconds, _LONGEST_STEP_S)
        if self._open_s >= _TICK_S:
            self._waiting.append(self._close(look, now_s))
        while self._waiting and self._waiting[0].at_s <= now_s - self.settings.delay_s:
            self._learn_moment(self._waiting.popleft())

    def _gather(self, surprise: Surprise) -> None:
        for stream, score in surprise.raw.items():
            self._open_scores[stream] = max(score, self._open_scores.get(stream, score))
        self._open_score = max(self._open_score, surprise.score)
        self._open_over = np.maximum(self._open_over, self.normal.dwell.over)

    def _close(self, look: Look, now_s: float) -> _Moment:
        """What was gathered since the last tick, as one moment."""
        dwell = self.normal.dwell
        paused = dwell.unsettled & (dwell.stayed < self.settings.accept_after_s)
        scores = dict(self._open_scores)
        if dwell.unsettled.any():  # how long it stays is learned when it is over
            del scores[Stream.DWELL]
        moment = _Moment(
            now_s,
            self._open_s,
            self.seen(),
            look.residual.copy(),
            self._open_over,
            paused,
            scores,
            self._open_score,
        )
        self._forget_open()
        return moment

    def _forget_open(self) -> None:
        self._open_s, self._open_score = 0.0, 0.0
        self._open_scores = {}
        self._open_over = np.zeros_like(self._open_over)

    def _learn_moment(self, moment: _Moment) -> None:
        age_s, dt_s, normal = self.settings.age_s, moment.dt_s, self.normal
        normal.learn_noise(moment.residual, dt_s)
        normal.appearance.learn(moment.seen.points, dt_s, age_s, moment.paused)
        if moment.seen.movement is not None:
            normal.motion.learn(moment.seen.movement, dt_s, age_s, moment.seen.hour)
        normal.dwell.learn(moment.over, dt_s, age_s)
        if self.learned_s < self.settings.learn_s:  # what was there at first may have been the guest
            settled = normal.dwell.stayed >= max(_SETTLED_S, _SETTLED_SHARE * self.learned_s)
            normal.appearance.forget(settled, moment.seen.points)
            normal.dwell.forget(settled)
        self.learned_s += dt_s
        span_s = _HISTORY_SHARE * self.learned_s
        for stream, score in moment.scores.items():
            self.stream_history[stream].add(score, dt_s, span_s=span_s)
        self.history.add(moment.score, dt_s, span_s=span_s)


def _finite(value: float) -> float:
    return value if value < inf else 0.0


def _highest(event: Floats, dwell: Floats, where: NDArray[np.bool_]) -> tuple[float, bool]:
    """The highest level among these cells, and whether it is of dwell."""
    if not where.any():
        return 0.0, False
    moving, staying = float(event[where].max()), float(dwell[where].max())
    return max(moving, staying), staying > moving


def _holds(box: CellBox, place: tuple[int, int]) -> bool:
    return box[0] <= place[1] < box[0] + box[2] and box[1] <= place[0] < box[1] + box[3]
