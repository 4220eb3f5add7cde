"""`cmd/ask` and `cmd/rules`: over a real broker and a rendered camera, and against whatever else arrives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mqtt_world import Subscriber, needs_mosquitto, until
from rules_world import scene, sight, with_thing

from agent.daemon import Daemon
from agent.mqtt.broker import LocalBroker
from agent.mqtt.commands import Command, CommandError
from agent.questions.answering import Answering
from agent.questions.moments import Moments
from agent.questions.remote import ask_running
from config.errors import StillwatchError
from config.settings import Camera, Device, Events, Mqtt, Rule, Settings

BASE = "stillwatch/box"


def configured(folder: Path, source: str = "scene:yard", broker: str | None = None) -> Settings:
    zones = {"door": [(0.0, 0.0), (80.0, 0.0), (80.0, 80.0)]}
    rule = Rule(name="person", ask="Is there a person?", of="1/1")
    return Settings(
        device=Device(id="box"),
        events=Events(dir=folder, clips=None),
        mqtt=None if broker is None else Mqtt(url=broker),
        cameras={"front": Camera(source=source, zones=zones, rules=[rule])},
    )


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(configured(tmp_path_factory.mktemp("state")))
    yield daemon
    daemon.close()


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("ask", {}, "expected a text for 'question'"),
        ("ask", {"question": "Is it day?", "camera": "back"}, "no camera 'back'; known: front"),
        ("ask", {"question": "x" * 301}, "at most 300 characters"),
        ("ask", {"question": "Is it day?", "last_s": -1}, "0 to 3600 seconds"),
        ("ask", {"question": "Is it day?", "last_s": True}, "found True"),
        ("ask", {"question": "Is it day?", "when": 1}, "unknown argument 'when'"),
        ("ask", {"question": "Is it day?"}, "front has given no frame yet"),
        ("rules", {"action": "eat"}, "expected one of list, set, remove, reset"),
        ("rules", {"action": "set"}, "expected 'rule' with 'set'"),
        ("rules", {"action": "remove", "name": "dog"}, "no rule 'dog'; known: person"),
        ("rules", {"action": "set", "rule": {"name": "a"}}, "rule.ask: missing"),
        ("rules", {"action": "set", "rule": {"name": "a", "ask": "b", "off": "1/2"}}, "rule.off: unknown key"),
        ("rules", {"action": "set", "rule": {"name": "a", "ask": "b", "of": "3/2"}}, "rule.of: expected K/N"),
        ("rules", {"action": "set", "rule": {"name": "a", "ask": "b", "zone": "roof"}}, "no zone roof"),
        ("rules", {"action": "set", "rule": [1]}, "rule: "),
    ],
)
def test_what_can_not_be_done_is_said(idle: Daemon, name: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(CommandError, match=says):
        idle._attending.handlers[name](Command(name, arguments))


def test_questions_are_limited_and_the_answer_says_for_how_long(idle: Daemon) -> None:
    now_s = [1000.0]
    answering = Answering(idle.cameras, per_minute=2, monotonic=lambda: now_s[0])
    question = Command("ask", {"question": "Is it day?"})
    for says in ("no frame yet", "no frame yet", "2 questions in a minute; try again in 45 s"):
        with pytest.raises(CommandError, match=says):
            answering.ask(question)
        now_s[0] += 7.5
    now_s[0] += 45
    with pytest.raises(CommandError, match="no frame yet"):
        answering.ask(question)
    with answering._turn(), pytest.raises(CommandError, match="busy"):
        answering.ask(question)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["front", "set"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "ask", "of", "zone"]) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=6,
)
_keys = st.sampled_from(["camera", "question", "last_s", "action", "rule", "name"]) | st.text(max_size=5)


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["ask", "rules"]), st.dictionaries(_keys, _json, max_size=4))
def test_whatever_is_asked_the_rules_stay_valid(idle: Daemon, name: str, arguments: dict[str, Any]) -> None:
    handler = idle._attending.handlers[name]
    try:
        answer = handler(Command(name, arguments))
    except StillwatchError as error:
        assert str(error)
    else:
        assert name == "rules" and answer["camera"] == "front"
    finally:
        idle._attending.handlers["rules"](Command("rules", {"action": "reset"}))
    assert [state.rule.name for state in idle.cameras["front"].attendant.rules.states] == ["person"]


@needs_mosquitto
@pytest.mark.timeout(300)
def test_a_running_agent_answers_in_parts_and_its_rules_change_and_stay_changed(tmp_path: Path) -> None:
    with LocalBroker() as broker, Subscriber(broker.port) as desk:
        desk.publish(f"{BASE}/cmd/rules", '{"action": "remove", "name": "person"}', retain=True)  # of another day
        source = "scene:yard?seed=3&fps=5&width=320&height=180"
        daemon, stop = Daemon(configured(tmp_path, source, broker.url)), threading.Event()
        running = threading.Thread(target=daemon.run, args=(stop,))
        running.start()
        try:
            until(lambda: desk.on(f"{BASE}/front/alert"), "somebody in the yard")
            alert = desk.on(f"{BASE}/front/alert")[0].document
            assert (alert["kind"], alert["rule"], alert["type"]) == ("rule", "person", "new")
            assert alert["pending"] == ["text", "snapshot"] and alert["score"] >= 0.5
            assert alert["dedupe_key"] == "front/rule/person"

            desk.publish(f"{BASE}/cmd/ask", '{"question": "Is it day?", "last_s": 5, "request_id": "1"}')
            until(lambda: desk.on(f"{BASE}/cmd/ask/result"), "an answer")
            answer = desk.on(f"{BASE}/cmd/ask/result")[0].document
            assert answer["ok"] and answer["request_id"] == "1" and answer["result"]["text"] in ("Yes.", "No.")
            spans = answer["result"]["evidence"]
            assert spans and all(span["at"] <= span["until"] for span in spans)
            assert all(0 <= span["probability"] <= 1 for span in spans)

            question = '{"question": "Describe the scene.", "request_id": "2"}'
            desk.publish(f"{BASE}/cmd/ask", question, reply_to="desk/inbox", correlation=b"\x01\x02")
            until(lambda: any("result" in m.document for m in desk.on("desk/inbox")), "an answer on its own topic")
            *parts, result = (message.document for message in desk.on("desk/inbox"))
            assert [part["part"] for part in parts] == list(range(len(parts))) and parts
            assert "".join(part["text"] for part in parts) == result["result"]["text"] != ""
            assert {message.correlation for message in desk.on("desk/inbox")} == {b"\x01\x02"}

            pieces: list[str] = []
            settings, config = configured(tmp_path, source, broker.url), tmp_path / "agent.yaml"
            told = ask_running(settings, config, "Describe the scene.", "front", 0.0, pieces.append)
            assert "".join(pieces) == told.text != "" and told.lines == []
            told = ask_running(settings, config, "Is it day?", None, 5.0, pieces.append)
            assert told.text in ("Yes.", "No.") and all(" yes)" in line for line in told.lines) and told.lines
            with pytest.raises(StillwatchError, match="no camera 'back'"):
                ask_running(settings, config, "Is it day?", "back", 0.0, pieces.append)

            desk.publish(f"{BASE}/cmd/rules", '{"action": "set", "rule": {"name": "dog", "ask": "Is there a dog?"}}')
            until(lambda: desk.on(f"{BASE}/cmd/rules/result"), "the rules")
            (listed,) = (message.document for message in desk.on(f"{BASE}/cmd/rules/result"))
            named = {rule["name"]: rule["source"] for rule in listed["result"]["rules"]}
            assert named == {"person": "file", "dog": "command"}
            until(lambda: "dog" in (desk.last(f"{BASE}/front/rules") or ""), "the rules that the broker keeps")
        finally:
            stop.set()
            running.join(60)
        until(lambda: desk.last(f"{BASE}/availability") == "offline", "goodbye, which is said last")
        last = {m.document["id"]: m.document for m in desk.on(f"{BASE}/front/alert")}
        assert all(event["type"] == "end" for event in last.values())
    again = Daemon(configured(tmp_path))
    assert [state.rule.name for state in again.cameras["front"].attendant.rules.states] == ["person", "dog"]
    again.close()


def test_where_the_words_mean_nothing_the_answer_says_so_and_rules_are_not_asked(tmp_path: Path) -> None:
    daemon = Daemon(configured(tmp_path, source="rtsp://127.0.0.1:1/none"))
    attendant = daemon.cameras["front"].attendant
    answer = daemon._attending.handlers["ask"](Command("ask", {"question": "Is it day?"}))
    assert "knows rendered scenes only" in str(answer["text"]) and answer["degraded"] == [attendant.mute]
    assert attendant.followers == ()
    daemon.close()


def test_what_was_seen_is_kept_by_change_and_within_its_bytes() -> None:
    empty, size = scene(), scene().nbytes // 2
    moments = Moments(max_bytes=4 * size)
    for tenth in range(100):
        moments.see(sight(empty, tenth / 10))
    (still,) = moments.since(0)
    assert (still.start_s, still.until_s) == (0.0, 9.5)
    for second in range(10, 20):
        moments.see(sight(with_thing(empty, (1, 2, 3), seed=second), float(second)))
    kept = moments.since(0)
    assert [moment.start_s for moment in kept] == [16.0, 17.0, 18.0, 19.0]
    assert moments.nbytes == 4 * size
    assert [moment.start_s for moment in moments.since(17.5)] == [18.0, 19.0]
    moments.shed(0.5)
    assert [moment.start_s for moment in moments.since(0)] == [18.0, 19.0]
    future = moments.now()
    moments.see(sight(empty, 19.1))
    assert np.allclose(future.result(1).features, empty, atol=0.01)
