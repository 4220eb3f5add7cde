"""One camera, from frame to news: the coherent path, then change and anomaly, then the report.

Nothing here waits for text, disk or network, and nothing that goes wrong with one frame reaches the next.
"""

from __future__ import annotations

import queue
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TypeVar, cast

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.areas import Areas, Points, token_cells
from agent.capture.frame import Frame
from agent.coherence.pipeline import Pictures, TemporalVLM
from agent.coherence.profile import Profile
from agent.coherence.quality import Flicker
from agent.coherence.result import FrameResult
from agent.coherence.settings import PROFILES
from agent.coherence.tuning import AutoTune, Decision
from agent.insight.anomaly import Alarm, AnomalyModel, AnomalyPhase, Seen
from agent.insight.change import SemanticChange
from agent.insight.looking import cell_places, look_of
from agent.insight.movement import cells_in_frame
from agent.insight.regions import CellBox, PixelBox, cells_to_source, large_components, merge_close
from agent.insight.sight import Follower, Sight
from agent.insight.surprise import CellPlaces
from agent.insight.tamper import Tampering, TamperWatch, edges_of
from agent.metrics import Metrics
from agent.reporting import CameraReporter
from engines.plan import Mode
from engines.preprocess import Placement

log = structlog.get_logger()

T = TypeVar("T")

_KEEP_EVERY_S = 300.0
_GAP_S = 5.0
"""Frames farther apart than this are not compared."""
_MOVED_FOR_S = 60.0
"""A camera that looks elsewhere for so long stays there: what is normal is learned anew."""
_ALARMS_REMEMBERED = 32
_MOVED_PX = 0.75
"""Source pixels a frame: above what noise and sway make of a still scene."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How things are in front of the camera after a frame. motion: 0–1. score: 1 = the alarm limit, None = learning.
    fidelity, coherence: as of `FrameResult`. flicker: of the blended features in the last seconds."""

    mode: Mode | None = None
    motion: float = 0.0
    score: float | None = None
    alarm: bool = False
    fidelity: float | None = None
    coherence: float | None = None
    flicker: Flicker | None = None


@dataclass(frozen=True, slots=True)
class _View:
    """What depends on the size of the picture. cell_px: (width, height) of a token in source pixels; unwatched: bool
    (T,), tokens that see no picture or an ignored area. tokens: those of each zone, bool (T,). cell_places: as of
    `agent.insight.looking`."""

    placement: Placement
    cell_px: tuple[float, float]
    zones: Areas
    unwatched: NDArray[np.bool_]
    tokens: Mapping[str, NDArray[np.bool_]]
    cell_places: CellPlaces

    def shares(self, tokens: NDArray[np.bool_]) -> dict[str, float]:
        """Of each zone that sees any of the tokens (T,), the share of its tokens that are among them."""
        seen = {zone: float(tokens[inside].mean()) for zone, inside in self.tokens.items() if inside.any()}
        return {zone: share for zone, share in seen.items() if share > 0}

    def far_from(self, placement: Placement) -> bool:
        """Whether tokens look elsewhere than they did: at frames of another size, or by more than a quarter of a
        token."""
        mine = self.placement
        if (mine.frame_size, mine.scale) != (placement.frame_size, placement.scale):
            return True
        moved = np.abs(np.subtract(mine.crop[:2], placement.crop[:2]))
        return bool((moved > np.array(self.cell_px) / 4).any())


class CameraWatch:
    """Sees the frames of one camera, in order, from one thread; the public attributes may be read from any.

    keep: called now and then with the anomaly model and the time of the last frame; copies what is to be kept. auto:
    choose the profile from what is seen. followers: see each frame that was judged.
    """

    def __init__(
        self,
        vlm: TemporalVLM,
        pictures: Pictures,
        patch_size: int,
        change: SemanticChange,
        anomaly: AnomalyModel,
        keep: Callable[[AnomalyModel, float], None],
        reporter: CameraReporter,
        *,
        zones: Mapping[str, Points] | None = None,
        ignore: Mapping[str, Points] | None = None,
        metrics: Metrics | None = None,
        auto: bool = False,
        followers: Sequence[Follower] = (),
    ) -> None:
        self.reading = Reading()
        self.frames = 0
        self.modes: Counter[str] = Counter()
        self.tokens = self.encoded = 0
        """Of all frames: tokens that see picture, and those of them that ran through the network."""
        self.ghosts = 0
        """Tokens whose blended features kept what was gone, and were mended."""
        self._vlm, self._pictures, self._patch_size = vlm, pictures, patch_size
        self._change, self._anomaly, self._reporter = change, anomaly, reporter
        self._zones, self._ignore, self._metrics = zones or {}, ignore or {}, metrics
        self._followers = tuple(followers)
        self._tuning = AutoTune() if auto else None
        self._settings = vlm.settings
        self._detail: float | None = None
        self._limited: float | None = None
        self.profile: Decision | None = None
        self._view: _View | None = None
        self._described = False
        self._keep = keep
        self._keep_at_s: float | None = None
        self._orders: queue.SimpleQueue[tuple[Future[object], Callable[[], object]]] = queue.SimpleQueue()
        self._tamper = TamperWatch()
        self._seen_s: float | None = None
        self._told: dict[float, str] = {}
        """Of each alarm that is on and was told, by its onset: the event's id."""
        self._alarms: OrderedDict[str, Seen] = OrderedDict()
        self._now_s = 0.0
        self._fault: str | None = None

    @property
    def times(self) -> Profile:
        """Where the time of all frames went."""
        return self._vlm.profile

    @property
    def holdings(self) -> dict[str, object]:
        """What holds memory, by part, for `agent.coherence.memory.by_part`."""
        return {**self._vlm.holdings, "insight": (self._change, self._anomaly, self._followers, self._reporter.states)}

    @property
    def learned(self) -> float:
        """Progress of learning what is normal, 0–1."""
        return self._anomaly.state.progress

    def see(self, frame: Frame) -> None:
        """Take in one frame and report what it brings. Raises nothing: what fails costs this frame."""
        self._obey()
        try:
            if self._limited != self._detail:
                self._limited = self._detail
                self._apply()
            result = self._vlm.process(frame)
            self._count(frame, result)
            self._tune(frame, result)
            self._judge(frame, result)
        except Exception as error:  # a frame enters here
            self.modes[Mode.ERROR.value] += 1
            if repr(error) != self._fault:  # said once, not with every frame
                self._fault = repr(error)
                log.exception("a frame could not be judged", camera=self._reporter.camera, frame=frame.index)

    def limit(self, detail: float | None) -> None:
        """Let a frame encode at most this share of the grid, cuts excepted, from the next frame on; None = no limit."""
        self._detail = detail

    def accept(self, event_id: str) -> Future[object]:
        """What this alarm was about is normal; from any thread. Done before the next frame: True, or False when the
        alarm is not remembered (the last 32 are)."""
        return self._order(partial(self._accept, event_id))

    def relearn(self) -> Future[object]:
        """Forget what is normal here and learn it anew; from any thread. Done before the next frame."""
        return self._order(self._relearn)

    def copy(self, take: Callable[[AnomalyModel, float], T]) -> Future[T]:
        """What `take` makes of the anomaly model and the time of the last frame, between two frames; from any
        thread."""
        return cast("Future[T]", self._order(lambda: take(self._anomaly, self._now_s)))

    def _order(self, action: Callable[[], object]) -> Future[object]:
        future: Future[object] = Future()
        self._orders.put((future, action))
        return future

    def _obey(self) -> None:
        with suppress(queue.Empty):
            while True:
                future, action = self._orders.get_nowait()
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(action())
                except Exception as error:  # whoever gave the order gets it
                    future.set_exception(error)

    def _accept(self, event_id: str) -> bool:
        seen = self._alarms.get(event_id)
        if seen is None:
            return False
        self._anomaly.teach(seen)
        for onset_s in [onset_s for onset_s, told in self._told.items() if told == event_id]:
            self._anomaly.accept(onset_s)
            self._reporter.end_alarm(onset_s, notes=("it was said to be normal",))
            del self._told[onset_s]
        return True

    def _relearn(self) -> None:
        self._reporter.interrupted("normal is being learned anew")
        old = self._anomaly
        self._anomaly = AnomalyModel(old.grid, old.dim, old.settings)
        self._tamper.accept()
        self._seen_s = None
        self._alarms.clear()
        self._told.clear()
        self._keep(self._anomaly, self._now_s)

    def pause(self) -> None:
        """Analysis is switched off: what is open ends, and the next frame starts anew. The anomaly baseline stays."""
        self._break_off("analysis was switched off")
        for follower in self._followers:
            follower.interrupted("analysis was switched off")
        self.reading = Reading()
        self._vlm.reset()
        self._change.reset()
        self._described = False

    def _break_off(self, reason: str) -> None:
        """Alarms that are on are over because they can't be seen any more; what goes on afterwards is told anew."""
        self._reporter.interrupted(reason)
        self._anomaly.interrupted()
        self._told.clear()

    def close(self, reason: str = "the agent has stopped watching") -> None:
        """After the last frame: end what is open and say why, keep what was learned."""
        self._reporter.interrupted(reason)
        for follower in self._followers:
            follower.interrupted(reason)
        if self.frames:
            self._keep(self._anomaly, self._now_s)
        self._vlm.close()

    def _tune(self, frame: Frame, result: FrameResult) -> None:
        decision = None if self._tuning is None else self._tuning.process(result, frame.monotonic_ns / 1e9)
        if decision is not None:
            self.profile = decision
            self._settings = PROFILES[decision.profile]
            self._apply()
            log.info("profile chosen", camera=self._reporter.camera, profile=decision.profile, reason=decision.reason)

    def _apply(self) -> None:
        """Tune the coherent path to the settings, within the limit on detail."""
        settings = self._settings
        if self._limited is not None:
            most = max(settings.refresh_tokens, 1, int(self._limited * self._vlm.costs.tokens))
            settings = replace(settings, budget_tokens=min(most, settings.budget_tokens or most))
        self._vlm.tune(settings)

    def _count(self, frame: Frame, result: FrameResult) -> None:
        watched = int(result.seen.sum())
        self.frames += 1
        self.modes[result.mode.value] += 1
        self.tokens += watched
        self.encoded += min(result.tokens_encoded, watched)
        self.ghosts += len(result.quality.ghosts)
        if self._metrics is not None:
            self._metrics.frame(
                self._reporter.camera,
                result.mode.value,
                min(result.tokens_encoded, watched),
                watched,
                result.stages_ms,
                frame.utc.timestamp(),
            )

    def _judge(self, frame: Frame, result: FrameResult) -> None:
        if result.mode is Mode.ERROR:
            self.reading = Reading(result.mode)
            return
        now_s = self._now_s = frame.monotonic_ns / 1e9
        if frame.discontinuity and self._described:
            self._change.reset()
            self._described = False
        view = self._enter(frame, result)
        if result.reframed and self._described:
            self._change.described(result.accumulated)
        elif result.slid is not None and result.revealed is not None:
            self._change.slide(result.slid, result.revealed, result.accumulated)
        at_home = result.placement is None or result.placement == self._pictures.placement(frame.size)
        change = self._change.update(result.accumulated, now_s, cut=result.cut, ignored=view.unwatched)
        if not self._described:
            self._reporter.first_look(frame, result.accumulated)
            self._change.described(result.accumulated)
            self._described = True
        if change is not None:  # told before more is worked out
            boxes = self._boxes(change.regions, result.placement)
            self._reporter.changed(change, frame, boxes, view.shares(change.tokens), result.accumulated)
            self._change.described(result.accumulated)
        alarm = self._watch_anomaly(frame, result, view, now_s) if at_home else None
        self._seen_s = now_s if at_home else None  # normal is known by place: while the picture slides none is judged
        if alarm is not None:
            boxes = tuple(cells_in_frame(box, frame.size) for box in alarm.regions)
            told = self._reporter.anomaly(alarm, frame, boxes, view.zones.touched(boxes), result.accumulated)
            if alarm.ended:
                self._told.pop(alarm.onset_s, None)
            elif told is not None and not alarm.again:
                self._told[alarm.onset_s] = told
                self._alarms[told] = self._anomaly.seen()
                if len(self._alarms) > _ALARMS_REMEMBERED:
                    self._alarms.popitem(last=False)
        self._show(frame, result, view)
        state = self._anomaly.state
        learning = state.phase is AnomalyPhase.LEARNING
        self.reading = Reading(
            result.mode,
            result.avg_motion,
            None if learning else state.score,
            state.phase is AnomalyPhase.ALARM,
            result.fidelity,
            result.coherence,
            result.quality.flicker,
        )
        if self._keep_at_s is None or now_s >= self._keep_at_s:
            if self._keep_at_s is not None:
                self._keep(self._anomaly, now_s)
            self._keep_at_s = now_s + _KEEP_EVERY_S

    def _watch_anomaly(self, frame: Frame, result: FrameResult, view: _View, now_s: float) -> Alarm | None:
        """The alarm that begins, becomes worse or ends with this frame. That a camera was moved or covered is told."""
        gap_s = inf if self._seen_s is None else now_s - self._seen_s
        anew = gap_s > _GAP_S or result.cut or frame.discontinuity
        look = look_of(frame, result, view.cell_places, 0.0 if anew else gap_s, whole=anew, ignored=view.unwatched)
        alarm = self._anomaly.update(look, now_s, cut=anew)
        judges = self._anomaly.state.phase is not AnomalyPhase.LEARNING
        strange = self._anomaly.strange[~view.unwatched]
        if judges and result.picture is not None and self._watch_tampering(frame, strange, result.picture, now_s):
            return None
        if alarm is None:  # what began while nothing was to be told, and goes on
            untold = [standing for standing in self._anomaly.standing if standing.onset_s not in self._told]
            if untold and self._reporter.muted_until is None:
                return untold[0]
        return alarm

    def _watch_tampering(
        self, frame: Frame, strange: NDArray[np.bool_], picture: NDArray[np.uint8], now_s: float
    ) -> bool:
        """Whether the camera was moved or covered with this frame: then no alarm of a thing goes on."""
        event = self._tamper.process(strange, edges_of(picture), now_s)
        began = event is not None and not event.over
        if event is not None:
            if began:
                self._break_off(f"the camera was {event.kind.value}")
            self._reporter.tampered(None if event.over else event.kind, frame)
        standing = self._tamper.standing
        if standing is not None and standing.kind is Tampering.MOVED and now_s - standing.since_s >= _MOVED_FOR_S:
            self._reporter.tampered(None, frame)
            self._relearn()
            return True
        return began

    def _show(self, frame: Frame, result: FrameResult, view: _View) -> None:
        """Let the followers see it."""
        placement = result.placement or view.placement

        def boxes(tokens: NDArray[np.bool_]) -> tuple[PixelBox, ...]:
            _, found = large_components(tokens.reshape(result.tokens.grid))
            return _source_boxes(merge_close(found), placement, self._patch_size)

        broken = result.cut or frame.discontinuity or result.reframed or result.slid is not None
        moved = result.moving & (np.abs(result.motion).max(axis=1) >= _MOVED_PX)
        sight = Sight(frame, result.accumulated, broken, ~view.unwatched, view.tokens, boxes, moved)
        for follower in self._followers:
            follower.see(sight)

    def _enter(self, frame: Frame, result: FrameResult) -> _View:
        placement = result.placement or self._pictures.placement(frame.size)
        if self._view is None or self._view.far_from(placement):
            cells = token_cells(placement, result.tokens.grid, self._patch_size)
            ignored = Areas(self._ignore, frame.size).tokens(cells)
            cell_px = (float(cells[0, 2]), float(cells[0, 3]))
            places = cell_places(placement, self._patch_size)
            zones = {name: Areas({name: points}, frame.size).tokens(cells) for name, points in self._zones.items()}
            self._view = _View(
                placement, cell_px, Areas(self._zones, frame.size), ignored | ~result.seen, zones, places
            )
        return self._view

    def _boxes(self, regions: tuple[CellBox, ...], placement: Placement | None) -> tuple[PixelBox, ...]:
        assert self._view is not None
        return _source_boxes(regions, placement or self._view.placement, self._patch_size)


def _source_boxes(regions: Sequence[CellBox], placement: Placement, patch_size: int) -> tuple[PixelBox, ...]:
    boxes = [cells_to_source(box, placement, patch_size) for box in regions]
    return tuple(box for box in boxes if box[2] and box[3])
