"""The rules of one camera: which are due with a frame, and what the answers come to.

Twice a second each rule that watches gets an answer. Where nothing has changed since it was asked last, that is the
answer from then; the model is asked anew when tokens have drifted from the state that it was asked about: all tokens,
or those of the rule's zone. Questions that are due together are read in one run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.insight.reference import Reference, unit_rows
from agent.insight.regions import PixelBox
from agent.insight.sight import Sight
from agent.rules.asking import Answered
from agent.rules.firing import Fired, Firing
from config.schedule import covers
from config.settings import Rule

LOOK_EVERY_S = 0.5
DRIFT = 0.25
"""Share of the mean distance between two places from which a token counts as changed: half of what is told as a change,
since a question that need not have been asked costs little."""
LEAST_TOKENS = 2


class Asks(Protocol):
    """Who answers: `Asking`, or something that does so at once."""

    def ask(self, camera: str, features: NDArray[np.float32], questions: Sequence[str], answered: Answered) -> None: ...


class RuleSink(Protocol):
    """Who is told; called from the frame loop or the thread that asks, never from two at once."""

    def began(self, rule: Rule, fired: Fired, moment: Moment) -> None: ...

    def ended(self, rule: Rule, fired: Fired | None, reason: str | None) -> None:
        """fired: None when it is over for another reason than an answer, which is said then."""
        ...


@dataclass(frozen=True, slots=True)
class Moment:
    """What was seen when a rule fired. regions: what differs from when the answer was no last, source pixels.
    probability: of yes. asked: how often the model was asked this rule so far."""

    sight: Sight
    features: NDArray[np.float32]
    regions: tuple[PixelBox, ...]
    probability: float
    asked: int


class RuleState:
    """One rule at work. probability: the answer that holds, None before the first."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.firing = Firing(rule)
        self.watching = True
        self.probability: float | None = None
        self.asked = 0
        self.about: Reference | None = None
        """What the answer was about; None = ask anew."""
        self.without: Reference | None = None
        """What was seen when the answer was no last."""

    def forget(self, now_s: float) -> None:
        self.firing.cancel(now_s)
        self.probability = self.about = self.without = None


class CameraRules:
    """A `Follower`: `see` from the frame loop, everything else from any thread."""

    def __init__(
        self,
        camera: str,
        rules: Sequence[Rule],
        asks: Asks,
        sink: RuleSink,
        *,
        every_s: float = LOOK_EVERY_S,
        always: bool = False,
        observe: Callable[[RuleState, float], None] = lambda _state, _now_s: None,
    ) -> None:
        """always: schedules don't count. observe: called with each answer that a rule gets, new or not."""
        self._camera, self._asks, self._sink = camera, asks, sink
        self._every_s, self._always, self._observe = every_s, always, observe
        self._states = [RuleState(rule) for rule in rules]
        self._lock = threading.RLock()
        self._next_s = -np.inf
        self._now_s = 0.0
        self._pending = False
        self._scene = 0  # rises when tokens are not to be compared any more

    @property
    def nbytes(self) -> int:
        """Of the states of the scene that are compared with; what reports memory reads it."""
        with self._lock:
            kept = {id(seen): seen for state in self._states for seen in (state.about, state.without) if seen}
            return sum(seen.unit.nbytes for seen in kept.values())

    @property
    def states(self) -> list[RuleState]:
        """Of all rules, in their order; the objects change while they are read."""
        with self._lock:
            return list(self._states)

    def replace(self, rules: Sequence[Rule]) -> None:
        """Other rules from now on. A rule that stays exactly as it was goes on; of one that doesn't, what is open
        ends."""
        with self._lock:
            before = {state.rule.name: state for state in self._states}
            kept = [before.get(rule.name) for rule in rules]
            states = [
                state if state is not None and state.rule == rule else RuleState(rule)
                for state, rule in zip(kept, rules, strict=True)
            ]
            for state in self._states:
                if state not in states:
                    self._stop(state, "the rule was changed or removed")
            self._states = states

    def interrupted(self, reason: str) -> None:
        with self._lock:
            self._scene += 1
            for state in self._states:
                self._stop(state, reason)

    def see(self, sight: Sight) -> None:
        with self._lock:
            now_s = self._now_s = sight.now_s
            if sight.broken:
                self._scene += 1
                for state in self._states:
                    state.about = state.without = None
            if self._pending or now_s < self._next_s or not self._states:
                return
            late_s = now_s - self._next_s
            self._next_s = now_s + self._every_s - (late_s if late_s < self._every_s else 0)  # so often on average
            watching = [state for state in self._states if self._watches(state, sight.frame.utc)]
            if not watching:
                return
            unit = unit_rows(sight.features)
            due = _due(watching, unit, sight)
            for state in watching:
                if state not in due:
                    self._settle(state, unit, sight, sight.features)
            if not due:
                return
            self._pending = True
            features, scene = sight.features.copy(), self._scene

        def answered(found: Sequence[float] | None) -> None:
            with self._lock:
                self._pending = False
                if found is not None and scene == self._scene:
                    self._take(due, found, unit, sight, features)

        self._asks.ask(self._camera, features, [state.rule.ask for state in due], answered)

    def _watches(self, state: RuleState, utc: datetime) -> bool:
        schedule = state.rule.schedule
        watching = self._always or schedule is None or covers(schedule.times, schedule.timezone, utc)
        if state.watching and not watching:
            self._stop(state, "its schedule has ended")
        state.watching = watching
        return watching

    def _take(
        self,
        due: Sequence[RuleState],
        found: Sequence[float],
        unit: NDArray[np.float32],
        sight: Sight,
        features: NDArray[np.float32],
    ) -> None:
        about = Reference(unit)
        for state, probability in zip(due, found, strict=True):
            if state not in self._states:
                continue  # replaced meanwhile
            state.probability, state.about = probability, about
            state.asked += 1
            if probability < state.rule.threshold:
                state.without = about
            self._settle(state, unit, sight, features)

    def _settle(self, state: RuleState, unit: NDArray[np.float32], sight: Sight, features: NDArray[np.float32]) -> None:
        """The answer holds in this frame, too."""
        assert state.probability is not None
        fired = state.firing.update(state.probability, sight.now_s)
        self._observe(state, sight.now_s)
        if fired is None:
            return
        if fired.over:
            self._sink.ended(state.rule, fired, None)
            return
        differs = np.zeros(len(unit), bool)
        if state.without is not None:
            differs = state.without.drifted(unit, DRIFT, sight.counted) & _area(state, sight)
        regions = sight.boxes(differs)
        moment = Moment(sight, features, regions, state.probability, state.asked)
        self._sink.began(state.rule, fired, moment)

    def _stop(self, state: RuleState, reason: str) -> None:
        if state.firing.on:
            self._sink.ended(state.rule, None, reason)
        state.forget(self._now_s)


def _due(watching: Sequence[RuleState], unit: NDArray[np.float32], sight: Sight) -> list[RuleState]:
    """Those that must be asked anew; rules that were asked together are compared in one step."""
    drifted: dict[Reference, NDArray[np.bool_]] = {}
    due = []
    for state in watching:
        about = state.about
        if about is not None and about not in drifted:
            drifted[about] = about.drifted(unit, DRIFT, sight.counted)
        if about is None or int((drifted[about] & _area(state, sight)).sum()) >= LEAST_TOKENS:
            due.append(state)
    return due


def _area(state: RuleState, sight: Sight) -> NDArray[np.bool_]:
    return sight.counted if state.rule.zone is None else sight.zones[state.rule.zone]
