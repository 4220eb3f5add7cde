"""Commands: what can't be done is said, whatever arrives; and what a person calls normal is no alarm the next time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from insight_looks import look_at

from agent.commanding import CameraCommands
from agent.daemon import Daemon
from agent.insight.anomaly import Alarm, AnomalyModel, AnomalySettings
from agent.mqtt.commands import Command, CommandError
from config.settings import Camera, Device, Events, Settings

NAMES = ("snapshot", "test-alert", "mute", "acknowledge", "feedback", "baseline")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CameraCommands]:
    folder = tmp_path_factory.mktemp("state")
    cameras = {"front": Camera(source="scene:yard"), "back": Camera(source="scene:yard")}
    daemon = Daemon(Settings(device=Device(id="box"), events=Events(dir=folder), cameras=cameras))
    yield CameraCommands(daemon.cameras, daemon._book, daemon._archive, folder, {})
    daemon.close()


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("snapshot", {}, "expected a text for 'camera'"),
        ("snapshot", {"camera": "side"}, "no camera 'side'; known: front, back"),
        ("snapshot", {"camera": "back"}, "back has given no frame yet"),
        ("snapshot", {"camera": "back", "size": 3}, "unknown argument 'size'"),
        ("mute", {"camera": "back", "for_s": -1}, "0 to 604800 seconds"),
        ("mute", {"camera": "back", "for_s": True}, "found True"),
        ("acknowledge", {"id": "1"}, "no alert '1'"),
        ("feedback", {"id": "1", "verdict": "normal"}, "no alert '1'"),
        ("feedback", {"id": "1", "verdict": "nice"}, "expected 'normal'"),
        ("baseline", {"camera": "back", "action": "eat"}, "expected 'reset' or 'export'"),
        ("test-alert", {"camera": "back", "text": 5}, "expected a text for 'text'"),
    ],
)
def test_a_command_that_can_not_be_done_says_why(
    commands: CameraCommands, command: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(CommandError, match=says):
        commands.handlers[command](Command(command, arguments))


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["front", "normal"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_keys = st.sampled_from(["camera", "id", "verdict", "action", "for_s", "text"]) | st.text(max_size=5)


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(NAMES), st.dictionaries(_keys, _json, max_size=4))
def test_whatever_is_asked_there_is_an_answer_and_no_surprise(
    commands: CameraCommands, name: str, arguments: dict[str, Any]
) -> None:
    assert set(commands.handlers) == set(NAMES)
    try:
        answer = commands.handlers[name](Command(name, arguments))
    except CommandError as error:
        assert str(error)
    else:
        assert name in ("mute", "acknowledge") and answer


class Street:
    """A place where nothing happens but noise, until somebody stands in one corner of it."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(3)
        self.empty = self.rng.standard_normal((36, 16)).astype(np.float32)
        self.person = self.rng.standard_normal(16).astype(np.float32)
        self.model = AnomalyModel((6, 6), 16, AnomalySettings(learn_s=60))
        self.now_s = 0.0

    def run(self, seconds: float, *, person: bool = False) -> list[Alarm]:
        alarms = []
        for _ in range(round(seconds * 5)):
            seen = self.empty + self.rng.normal(0, 0.05, (36, 16)).astype(np.float32)
            if person:
                seen[[14, 15, 20, 21]] = self.person
            self.now_s += 0.2
            alarm = self.model.update(look_at(seen, (6, 6), 0.2), self.now_s)
            alarms += [] if alarm is None else [alarm]
        return alarms


def test_what_was_said_to_be_normal_raises_no_alarm_the_next_time() -> None:
    street = Street()
    assert street.run(120) == []
    (alarm,) = street.run(4, person=True)
    seen = street.model.seen()
    assert [a.ended for a in street.run(10)] == [True]
    assert [a.ended for a in street.run(4, person=True)] == [False], "without a word it is as strange as before"
    street.run(10)
    street.model.teach(seen)
    assert street.run(4, person=True) == []
    assert not alarm.ended and street.model.state.score < alarm.score


def test_the_path_of_an_export_can_not_leave_its_folder(commands: CameraCommands, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no camera"):
        commands.baseline(Command("baseline", {"camera": "../../etc", "action": "export"}))
