"""Synthetic token maps: 6×6 cells, 16 dimensions, 5 frames a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from insight_looks import look_at

from agent.insight.anomaly import Alarm, AnomalyModel, AnomalyPhase, AnomalySettings, Stream
from agent.insight.movement import SHAPE
from agent.insight.regions import CellBox
from config.errors import ConfigError

GRID, DIM, FPS = (6, 6), 16, 5
TOKENS = GRID[0] * GRID[1]
SHORT = AnomalySettings(learn_s=60)


def cells(row: int, col: int, height: int = 1, width: int = 1) -> np.ndarray:
    mask = np.zeros(GRID, bool)
    mask[row : row + height, col : col + width] = True
    return mask.reshape(-1)


@dataclass
class Street:
    """A camera: fixed tokens with noise, and people whose tokens and motion are the same wherever they are."""

    settings: AnomalySettings = SHORT
    seed: int = 0
    noise: float = 0.05
    fps: int = FPS

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.empty = self.rng.standard_normal((TOKENS, DIM)).astype(np.float32)
        self.person = self.rng.standard_normal(DIM).astype(np.float32)
        self.model = AnomalyModel(GRID, DIM, self.settings)
        self.now_s = 1000.0

    def frame(self, person: np.ndarray | None = None) -> np.ndarray:
        noise = self.noise * self.rng.standard_normal((TOKENS, DIM))
        features = (self.empty + noise).astype(np.float32)
        if person is not None:
            features[person] = self.person
        return features

    def step(
        self,
        person: np.ndarray | None = None,
        *,
        cells_s: tuple[float, float] = (0.0, 0.0),
        cut: bool = False,
        hour: float = 12.0,
        ignored: np.ndarray | None = None,
    ) -> Alarm | None:
        self.now_s += 1 / self.fps
        moving = person if any(cells_s) else None
        look = look_at(
            self.frame(person), GRID, 1 / self.fps, moving=moving, cells_s=cells_s, hour=hour, ignored=ignored
        )
        return self.model.update(look, self.now_s, cut=cut)

    def run(
        self, seconds: float, person: np.ndarray | None = None, *, again: bool = False, **kwargs: object
    ) -> list[Alarm]:
        """again: with the tellings of alarms that became worse."""
        events = (self.step(person, **kwargs) for _ in range(round(seconds * self.fps)))  # type: ignore[arg-type]
        return [event for event in events if event is not None and (again or not event.again)]


def on_tokens(regions: tuple[CellBox, ...]) -> tuple[CellBox, ...]:
    """Boxes on the grid of tokens that come nearest to those on the movement map."""
    across, down = SHAPE[1] / GRID[1], SHAPE[0] / GRID[0]
    return tuple((round(x / across), round(y / down), round(w / across), round(h / down)) for x, y, w, h in regions)


def learned(street: Street) -> Street:
    assert street.run(street.settings.learn_s + street.settings.delay_s + 1) == []
    assert street.model.state.phase is AnomalyPhase.WATCHING
    return street


def test_learning_is_visible_and_raises_no_alarm() -> None:
    street = Street()
    assert street.run(30, cells(2, 2, 2, 2)) == []
    assert street.model.state.phase is AnomalyPhase.LEARNING
    assert 0.3 < street.model.state.progress < 0.6


def test_noise_raises_no_more_alarms_than_were_allowed() -> None:
    """Half an hour of noise whose strength wanders (log-normal, correlated over some 10 s). 100 a day are 2.1 in that
    time; 8 or more would happen by chance once in five hundred runs."""
    street = Street(AnomalySettings(learn_s=300, false_alarms_per_day=100), fps=2)
    strength, alarms = 0.0, 0
    while street.now_s < 1000 + 300 + 1800:
        strength = 0.96 * strength + 0.14 * street.rng.standard_normal()
        street.noise = 0.12 * np.exp(strength)
        alarm = street.step()
        alarms += alarm is not None and not alarm.ended
    assert street.model.state.phase is not AnomalyPhase.LEARNING
    assert alarms <= 7


def test_a_stranger_is_one_alarm_that_begins_and_ends_where_it_stood() -> None:
    street = learned(Street())
    arrived_s = street.now_s
    (new,) = street.run(5, cells(3, 1, 2, 2))
    assert (new.ended, new.streams) == (False, (Stream.APPEARANCE,))
    assert on_tokens(new.regions) == ((1, 3, 2, 2),)
    assert new.normal == "nothing moves here at this hour"
    assert new.score > 1 and new.extrapolated
    assert new.onset_s - arrived_s <= 1
    assert street.model.state.phase is AnomalyPhase.ALARM
    (end,) = street.run(15)
    assert (end.ended, end.onset_s, end.accepted) == (True, new.onset_s, False)
    assert 4 <= end.duration_s <= 12
    assert street.model.state.phase is AnomalyPhase.WATCHING


def test_what_passed_while_learning_is_normal_and_another_speed_or_way_is_not() -> None:
    street = Street(AnomalySettings(learn_s=300))

    def pass_by(speed: float) -> list[Alarm]:
        events = []
        for col in range(6) if speed > 0 else range(5, -1, -1):
            events += street.run(1, cells(2, col, 2, 1), cells_s=(speed, 0))
        return events + street.run(20)

    while street.model.state.phase is AnomalyPhase.LEARNING:
        assert pass_by(street.rng.uniform(4, 5)) == []
    for _ in range(5):
        assert pass_by(street.rng.uniform(4, 5)) == []
    fast, wrong = pass_by(20), pass_by(-4.5)
    assert [(e.ended, e.streams[0]) for e in fast] == [(False, Stream.MOTION), (True, Stream.MOTION)]
    assert "mostly right" in fast[0].normal
    assert [(e.ended, e.streams[0]) for e in wrong] == [(False, Stream.MOTION), (True, Stream.MOTION)]


def test_movement_where_nothing_moves_is_an_alarm_there_at_that_hour() -> None:
    street = Street()
    while street.model.state.phase is AnomalyPhase.LEARNING:
        street.run(4, hour=3)
        street.run(4, cells(1, 1, 2, 2), cells_s=(4, 1), hour=15)
    spot = cells(1, 1, 2, 2)
    street.model.normal.motion.hours.seconds *= 500  # a month of it
    street.model.normal.motion.hours.moved *= 500
    assert street.run(5, spot, cells_s=(4, 1), hour=15) == []
    street.run(5, hour=3)
    alarms = street.run(5, spot, cells_s=(4, 1), hour=3)
    assert [(a.ended, a.streams[0], a.normal) for a in alarms] == [
        (False, Stream.MOTION, "nothing moves here at this hour")
    ]


def test_a_single_frame_is_no_alarm() -> None:
    street = learned(Street(AnomalySettings(learn_s=60, min_duration_s=2.0, smoothing_s=0.05)))
    for _ in range(10):
        assert street.step(cells(2, 2, 2, 2)) is None
        street.model.judge.reset()
        assert street.run(1) == []


def test_flagged_frames_and_the_onset_before_them_are_never_learned() -> None:
    street = learned(Street())
    street.run(10)
    before = street.model.normal.appearance.mean.copy(), street.model.learned_s
    street.run(60, cells(2, 2, 3, 3), cells_s=(6, 0))
    stranger = np.flatnonzero(cells(2, 2, 3, 3))
    moved = np.abs(street.model.normal.appearance.mean - before[0])
    assert street.model.learned_s - before[1] <= street.settings.delay_s + 0.5
    assert moved[stranger].max() < 0.02
    assert street.model.normal.motion.sums[..., 0].max() == 0
    assert len(street.model.history.alarms) == 0


def test_what_stays_is_accepted_and_its_place_is_watched_anew() -> None:
    street = learned(Street(AnomalySettings(learn_s=60, accept_after_s=30)))
    parked = cells(3, 3, 2, 2)
    new, end = street.run(120, parked)
    assert (new.ended, end.ended, end.accepted) == (False, True, True)
    assert end.duration_s == pytest.approx(30, abs=1)
    assert [e.ended for e in street.run(5)] == [False]  # the car has gone


def test_what_was_accepted_leaves_no_trace_in_the_history_of_normal_scores() -> None:
    street = learned(Street(AnomalySettings(learn_s=60, accept_after_s=10)))
    before = max(street.model.history.blocks)
    street.run(60, cells(3, 3, 2, 2))
    assert max(street.model.history.blocks) < 1.5 * before


def test_accept_ends_an_alarm_at_once() -> None:
    street = learned(Street())
    assert street.model.accept() is None
    assert [e.ended for e in street.run(5, cells(3, 3, 2, 2))] == [False]
    end = street.model.accept()
    assert end is not None and end.accepted
    assert street.run(60, cells(3, 3, 2, 2)) == []


def test_after_an_interruption_what_is_still_there_is_an_alarm_again_and_was_not_learned() -> None:
    street = learned(Street())
    guest = cells(2, 2, 2, 2)
    (first,) = street.run(5, guest)
    street.model.interrupted()
    assert street.model.state.phase is AnomalyPhase.WATCHING and street.model.standing == ()
    street.now_s += 600
    street.step(guest, cut=True)
    (again,) = street.run(10, guest)
    assert not again.ended and again.onset_s > first.onset_s + 600
    assert len(street.model.standing) == 1
    assert [e.ended for e in street.run(20)] == [True]
    assert street.run(60) == [] and [e.ended for e in street.run(5, guest)] == [False]


CAR, INTRUDER = cells(4, 0, 2, 2), cells(0, 4, 2, 2)


def test_somebody_who_comes_while_a_car_is_parked_is_an_alarm_at_once_and_ends_when_gone() -> None:
    street = learned(Street())
    (car,) = street.run(30, CAR)
    came_s = street.now_s
    (intruder,) = street.run(10, CAR | INTRUDER)
    assert on_tokens(intruder.regions) == ((4, 0, 2, 2),) and not intruder.ended
    assert intruder.onset_s - came_s <= 1 and intruder.onset_s != car.onset_s
    (gone,) = street.run(20, CAR)
    assert (gone.onset_s, gone.ended) == (intruder.onset_s, True)
    assert gone.duration_s == pytest.approx(10, abs=4)
    (drove_off,) = street.run(20)
    assert (drove_off.onset_s, drove_off.ended) == (car.onset_s, True)
    assert on_tokens(drove_off.regions) == ((0, 4, 2, 2),), "what happened elsewhere is not told of the car"


def test_what_walks_about_stays_one_alarm() -> None:
    street = learned(Street())
    events = []
    for _ in range(3):
        for col in (0, 1, 2, 3, 4, 3, 2, 1):
            events += street.run(0.6, cells(2, col, 2, 2), cells_s=(10, 0))
    assert [event.ended for event in events] == [False]


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_two_alarms_that_is_accepted_leaves_the_other(which: int) -> None:
    street = learned(Street())
    told = street.run(5, CAR) + street.run(5, CAR | INTRUDER)
    end = street.model.accept(told[which].onset_s)
    assert end is not None and (end.onset_s, end.accepted) == (told[which].onset_s, True)
    assert [alarm.onset_s for alarm in street.model.standing] == [told[1 - which].onset_s]
    assert street.run(10, CAR | INTRUDER) == []
    (over,) = street.run(20, (CAR, INTRUDER)[which])
    assert (over.onset_s, over.ended) == (told[1 - which].onset_s, True)


def test_a_car_that_has_become_normal_takes_nobody_with_it_who_came_last() -> None:
    street = learned(Street(AnomalySettings(learn_s=60, accept_after_s=30)))
    street.run(25, CAR)
    events = street.run(15, CAR | INTRUDER)
    assert [(event.ended, event.accepted) for event in events] == [(False, False), (True, True)]
    assert events[0].onset_s == street.model.standing[0].onset_s
    assert [event.ended for event in street.run(20, CAR)] == [True]


def test_alarms_at_once_are_bounded() -> None:
    street = learned(Street())
    events = [event for _ in range(60) for event in street.run(1, street.rng.random(TOKENS) < 0.3)]
    begun = sum(not event.ended for event in events)
    assert begun >= 1 and len(street.model.standing) <= 4 and begun <= 60 / 3 + 1


def test_the_tenth_equal_intrusion_of_a_day_is_told_like_the_first_and_says_that_it_is_the_tenth() -> None:
    street = learned(Street())
    told = []
    for _ in range(10):
        told += [event for event in street.run(5, INTRUDER) if not event.ended]
        street.run(40)
    assert [event.today for event in told] == list(range(1, 11))
    assert [event.too_many for event in told] == [False] * 6 + [True] * 4


def test_an_alarm_that_becomes_clearly_worse_is_told_again_but_not_with_every_frame() -> None:
    street = learned(Street())
    spot = cells(2, 2)
    (new,) = street.run(10, spot, again=True)
    told = street.run(20, spot, cells_s=(8, 0), again=True)
    assert told and all(event.again and event.onset_s == new.onset_s for event in told)
    assert [event.score for event in told] == sorted(event.score for event in told)
    assert told[0].score >= 1.25 * new.score and len(told) <= 4


def test_a_glance_at_another_scene_is_no_alarm_and_leaves_the_baseline_alone() -> None:
    street = learned(Street())
    mean = street.model.normal.appearance.mean.copy()
    home, street.empty = street.empty, street.rng.standard_normal((TOKENS, DIM)).astype(np.float32)
    assert street.step(cut=True) is None
    assert street.run(1.0) == []
    street.empty = home
    assert street.step(cut=True) is None
    assert street.run(30) == []
    assert np.abs(street.model.normal.appearance.mean - mean).max() < 0.05


def test_a_scene_that_stays_after_a_cut_is_no_alarm_of_a_thing() -> None:
    street = learned(Street())
    street.empty = street.rng.standard_normal((TOKENS, DIM)).astype(np.float32)
    assert street.step(cut=True) is None
    assert street.run(10) == [], "strange all over: that is for the tamper watch to say"
    assert street.model.strange.all()


def test_a_picture_without_any_noise_becomes_normal_and_a_flicker_of_its_tokens_is_no_alarm() -> None:
    street = Street(AnomalySettings(learn_s=30), noise=0.0)
    street.run(40)
    assert street.model.history.usual < 1
    street.noise = 0.1
    assert street.run(5) == []
    assert [a.ended for a in street.run(5, cells(0, 0, 2, 2))] == [False]


def test_ignored_tokens_raise_no_alarm() -> None:
    street = learned(Street())
    clock = cells(0, 0, 1, 3)
    assert street.run(20, clock, cells_s=(5, 0), ignored=clock) == []


def test_frame_rate_does_not_decide_how_long_learning_takes() -> None:
    slow, fast = (AnomalyModel(GRID, DIM, SHORT) for _ in range(2))
    features = Street().empty
    for model, fps in ((slow, 2), (fast, 25)):
        for i in range(fps * 40):
            model.update(look_at(features, GRID, 1 / fps), i / fps)
    assert slow.learned_s == pytest.approx(fast.learned_s, abs=1)


def test_settings_that_cannot_work_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"anomaly\.false_alarms_per_day: found 0, expected"):
        AnomalySettings(false_alarms_per_day=0)
    with pytest.raises(ConfigError, match=r"anomaly\.learn_s"):
        AnomalySettings(learn_s=1)


def test_what_is_often_seen_passing_is_an_alarm_when_it_stays() -> None:
    street = Street(AnomalySettings(learn_s=300))
    spot = cells(2, 2, 2, 2)
    while street.model.state.phase is AnomalyPhase.LEARNING:
        street.run(2, spot)
        street.run(10)
    assert street.run(2, spot) == []
    (alarm,) = street.run(60, spot)
    assert alarm.streams[0] is Stream.DWELL and on_tokens(alarm.regions) == ((2, 2, 2, 2),)
    assert alarm.normal.startswith("things stay here for at most")
