"""What a camera's news look like when they are told, completed and ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from agent.capture.frame import Frame
from agent.describing import Describe, DescribingThread
from agent.events.book import EventBook
from agent.events.model import AnyEvent, Severity
from agent.events.outbox import Outbox
from agent.insight.anomaly import Alarm, Stream
from agent.insight.change import Change, ChangeKind
from agent.insight.sight import Sight
from agent.insight.tamper import Tampering
from agent.reporting import CameraReporter
from agent.rules.camera import Moment
from agent.rules.firing import Fired
from agent.rules.telling import RuleTeller
from config.settings import Rule

FEATURES = np.zeros((4, 2), np.float32)
FRAME = Frame(np.zeros((36, 64, 3), np.uint8), "front", 7, 5_000_000_000, datetime.now(timezone.utc))
BOX = (8, 4, 16, 12)


def state(number: int) -> np.ndarray:
    """What a scene means in one of several states, none like another."""
    return np.random.default_rng(number).standard_normal((4, 16)).astype(np.float32)


CHANGE = Change(ChangeKind.DRIFT, 4.2, ((1, 1, 2, 2),), 0.4, 0.1, np.ones(4, bool))


def alarm(score: float, *, onset_s: float = 4.0, again: bool = False, ended: bool = False) -> Alarm:
    return Alarm(onset_s, 1.0, score, (Stream.MOTION,), ((1, 1, 2, 2),), 0.01, False, again=again, ended=ended)


class Desk:
    """A reporter with a real book, and all that was told through it."""

    def __init__(self, folder: Path) -> None:
        self.told: list[AnyEvent] = []
        self._outbox = Outbox(folder / "events.db")
        self._book = EventBook("box", self._outbox, topic_of=lambda event: event.kind, sinks=[self])
        self._describing = DescribingThread()

    def reporter(self, describe: Describe | None, mute: str = "") -> CameraReporter:
        return CameraReporter("front", self._book, self._describing, describe, mute=mute)

    def append(self, _topic: str, event: AnyEvent) -> None:
        self.told.append(event)

    def settle(self) -> list[AnyEvent]:
        assert self._describing.finish(30)
        assert self._book.flush(30)
        return self.told

    def close(self) -> None:
        self._describing.close()
        self._book.close()
        self._outbox.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def words(*said: str) -> Describe:
    left = iter(said)
    return lambda _look: iter([next(left)])


def test_a_change_is_told_at_once_and_completed_with_the_words_before_and_after(desk: Desk) -> None:
    reporter = desk.reporter(words("An empty yard.", "A red car.", "A dog."))
    reporter.first_look(FRAME, FEATURES)
    desk.settle()
    for number in range(2):
        reporter.changed(CHANGE, FRAME, [BOX], {"door": 0.5}, state(number))
        desk.settle()
    first, completed, _, second = desk.told
    assert (first.type.value, first.pending, first.regions, first.zones) == ("new", ("text",), (BOX,), ("door",))
    assert first.evidence["seen_for_s"] == 0.8 and first.evidence["zones"] == {"door": 0.5}
    assert completed.kind == second.kind == "semantic_change"
    assert (completed.id, completed.pending) == (first.id, ())
    assert (completed.before_text, completed.after_text) == ("An empty yard.", "A red car.")
    assert (second.before_text, second.text) == ("A red car.", "A dog.")


def test_a_state_that_comes_back_is_not_described_anew_and_the_event_says_what_is_new_and_what_is_gone(
    desk: Desk,
) -> None:
    reporter = desk.reporter(words("A yard. A red car.", "A yard. A dog. A dog."))
    yard, dogs = state(1), state(2)
    reporter.first_look(FRAME, yard)
    desk.settle()
    for seen in (dogs, yard + 0.01 * state(3), dogs):
        reporter.changed(CHANGE, FRAME, [BOX], {}, seen)
        desk.settle()
    told = [(event.text, event.new_text, event.gone_text) for event in desk.told if event.type.value == "update"]  # type: ignore[union-attr]
    assert told == [
        ("A yard. A dog. A dog.", "A dog. A dog.", "A red car."),
        ("A yard. A red car.", "A red car.", "A dog. A dog."),
        ("A yard. A dog. A dog.", "A dog. A dog.", "A red car."),
    ]


def test_a_rule_is_told_with_what_led_to_it_and_ends_with_its_duration_or_a_reason(desk: Desk) -> None:
    reporter = desk.reporter(words("A person at the door.", "A person at the door."))
    teller = RuleTeller(reporter)
    rule = Rule(name="visitor", ask="Is somebody there?", zone="door", severity="high")
    seen = Sight(FRAME, FEATURES, False, np.ones(4, bool), {}, lambda _tokens: ())
    teller.began(rule, Fired(1.0, 4.0, 4, 5, 0.93), Moment(seen, state(1), (BOX,), 0.9, 3))
    desk.settle()
    teller.ended(rule, Fired(1.0, 9.5, 1, 5, 0.97, over=True), None)
    teller.began(rule, Fired(21.0, 24.0, 5, 5, 0.93), Moment(seen, state(2), (), 0.9, 4))
    teller.ended(rule, None, "its schedule has ended")
    desk.settle()
    first, ended, last = desk.told[0], desk.told[2], desk.told[-1]
    assert (first.kind, first.type.value, first.score, first.severity.value) == ("rule", "new", 0.9, "high")
    assert (first.rule, first.zones, first.regions) == ("visitor", ("door",), (BOX,))  # type: ignore[union-attr]
    assert first.evidence == {"threshold": 0.5, "yes": 4, "answers": 5, "seen_for_s": 3.0, "asked": 3}
    assert (ended.id, ended.type.value, ended.duration_s, ended.score) == (first.id, "end", 8.5, 0.97)
    assert ended.text == "A person at the door." and first.dedupe_key == "front/rule/visitor"
    assert last.id != first.id and "its schedule has ended" in last.degraded


def test_an_alarm_begins_is_described_and_ends_under_one_id(desk: Desk) -> None:
    reporter = desk.reporter(words("A person on the ground."))
    reporter.anomaly(alarm(1.2), FRAME, [BOX], [], FEATURES)
    desk.settle()
    reporter.anomaly(alarm(1.9, ended=True), FRAME, [BOX], [], FEATURES)
    new, update, end = desk.settle()
    assert len({event.id for event in desk.told}) == 1
    assert [event.type.value for event in desk.told] == ["new", "update", "end"]
    assert (new.severity, end.severity) == (Severity.MEDIUM, Severity.HIGH)
    assert update.text == end.text == "A person on the ground."
    assert end.evidence["streams"] == ["motion"]


def test_of_two_alarms_each_is_told_again_and_ended_under_its_own_id(desk: Desk) -> None:
    reporter = desk.reporter(None)
    elsewhere = (40, 20, 8, 8)
    reporter.anomaly(alarm(1.2), FRAME, [BOX], [], FEATURES)
    reporter.anomaly(alarm(1.3, onset_s=9.0), FRAME, [elsewhere], [], FEATURES)
    reporter.anomaly(alarm(1.9, onset_s=9.0, again=True), FRAME, [BOX], ["door"], FEATURES)
    reporter.anomaly(alarm(1.2, ended=True), FRAME, [BOX], [], FEATURES)
    reporter.anomaly(alarm(1.9, onset_s=9.0, ended=True), FRAME, [BOX], [], FEATURES)
    first, second, worse, first_end, second_end = desk.settle()
    assert first.id == first_end.id != second.id == worse.id == second_end.id
    assert (second.region, worse.region, worse.zones) == (elsewhere, BOX, ("door",))
    assert (second.severity, worse.severity, worse.type.value) == (Severity.MEDIUM, Severity.HIGH, "update")


def test_an_alarm_that_is_open_when_the_camera_goes_is_ended_with_the_reason(desk: Desk) -> None:
    reporter = desk.reporter(None)
    reporter.interrupted("nothing is open")
    reporter.anomaly(alarm(1.2), FRAME, [BOX], [], FEATURES)
    reporter.interrupted("the agent has stopped watching")
    new, end = desk.settle()
    assert (new.pending, end.type.value, end.pending) == ((), "end", ())
    assert end.degraded == ("the agent has stopped watching",)


def test_without_words_an_event_says_why_and_waits_for_none(desk: Desk) -> None:
    reporter = desk.reporter(None, mute="knows rendered scenes only")
    reporter.first_look(FRAME, FEATURES)
    reporter.changed(CHANGE, FRAME, [BOX], {}, state(1))
    (only,) = desk.settle()
    assert (only.pending, only.degraded, only.text) == ((), ("knows rendered scenes only",), "")


def test_a_loss_is_told_once_however_often_it_is_tried_again(desk: Desk) -> None:
    reporter = desk.reporter(None)
    reporter.back()
    for _ in range(3):
        reporter.lost("no answer within 10 s; trying again")
    reporter.back()
    reporter.back()
    assert [(event.kind, event.type.value) for event in desk.settle()] == [("health", "new"), ("health", "end")]


def test_who_takes_a_camera_over_ends_its_loss_and_what_else_was_open_ends_with_a_reason(desk: Desk) -> None:
    old, new = desk.reporter(None), desk.reporter(None)
    old.tampered(Tampering.COVERED, FRAME)
    old.lost("no answer")
    new.follow(old)
    new.lost("no answer; trying again")
    new.back()
    new.lost("no answer")
    new.gone("the camera was removed")
    new.gone("twice is once")
    told = [(event.condition.value, event.type.value, event.degraded) for event in desk.settle()]  # type: ignore[union-attr]
    assert told == [
        ("covered", "new", ()),
        ("lost", "new", ()),
        ("covered", "end", ("the camera was set up anew",)),
        ("lost", "end", ()),
        ("lost", "new", ()),
        ("lost", "end", ("the camera was removed",)),
    ]


def test_words_are_spared_and_the_news_say_so(desk: Desk) -> None:
    reporter = desk.reporter(lambda _look: iter(["A yard."]))
    reporter.spare_words(60.0, "tj-thermal at 96 °C")
    seconds = (5, 30, 70)
    for second in seconds:
        frame = replace(FRAME, monotonic_ns=second * 1_000_000_000)
        reporter.changed(CHANGE, frame, [BOX], {}, state(1))
        desk.settle()
    updates = [event for event in desk.settle() if event.type.value == "update"]
    assert [event.text for event in updates] == ["A yard.", "", "A yard."]
    assert updates[1].pending == () and "words at most every 60 s: tj-thermal at 96 °C" in updates[1].degraded[0]


def test_a_muted_camera_tells_no_alerts_and_changes_but_ends_what_is_open_and_its_health(desk: Desk) -> None:
    reporter = desk.reporter(None)
    reporter.anomaly(alarm(1.2), FRAME, [BOX], [], FEATURES)
    assert reporter.mute(3600.0) == reporter.muted_until is not None
    reporter.anomaly(alarm(1.3, ended=True), FRAME, [BOX], [], FEATURES)
    assert reporter.anomaly(alarm(1.4), FRAME, [BOX], [], FEATURES) is None
    assert reporter.changed(CHANGE, FRAME, [BOX], {}, state(1)) is None
    reporter.lost("no answer")
    assert reporter.mute(0.0) is None
    reporter.anomaly(alarm(1.5), FRAME, [BOX], [], FEATURES)
    told = [(event.kind, event.type.value, event.score) for event in desk.settle()]
    assert told == [("anomaly", "new", 1.2), ("anomaly", "end", 1.3), ("health", "new", None), ("anomaly", "new", 1.5)]
