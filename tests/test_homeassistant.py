"""Home Assistant finds the cameras by itself, over a real broker, and forgets them when they are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
from homeassistant_rules import check
from hypothesis import given
from hypothesis import strategies as st
from mqtt_world import TOPICS, Subscriber, agent, needs_mosquitto, until

from agent.events.form import event_types
from agent.events.model import Anomaly, CameraState
from agent.homeassistant.announcing import Announcer, RetainedTopics
from agent.homeassistant.discovery import Discovery
from agent.mqtt.broker import LocalBroker
from agent.mqtt.topics import Topics

BOX, FRONT, YARD = (f"homeassistant/device/stillwatch_{name}/config" for name in ("box", "box_front", "box_yard"))
BASE = "stillwatch/box"


def discovery(*, images: bool = True, topics: Topics = TOPICS) -> Discovery:
    return Discovery(topics, "homeassistant", name="Porch box", version="1.2.3", images=images)


def documents(*cameras: str, **options: Any) -> dict[str, dict[str, Any]]:
    return {topic: json.loads(text) for topic, text in discovery(**options).documents(cameras).items()}


_names = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


@given(_names, st.lists(_names.filter(lambda n: n not in ("availability", "status", "cmd", "config", "metrics"))))
def test_every_document_keeps_home_assistant_s_rules(device: str, cameras: list[str]) -> None:
    for images in (True, False):
        found = documents(*cameras, topics=Topics("stillwatch", device), images=images)
        assert len(found) == 1 + len(set(cameras))
        for topic, document in found.items():
            check(topic, document)


def test_a_camera_is_a_device_behind_the_box_with_everything_one_wants_to_see() -> None:
    found = documents("front")
    box, front = found[BOX], found[FRONT]
    assert front["device"]["via_device"] in box["device"]["identifiers"]
    platforms = {key: component["platform"] for key, component in front["components"].items()}
    assert platforms == {
        "anomaly": "binary_sensor",
        "motion": "binary_sensor",
        "learning": "binary_sensor",
        "description": "sensor",
        "mode": "sensor",
        "fps": "sensor",
        "fidelity": "sensor",
        "score": "sensor",
        "muted": "sensor",
        "event": "event",
        "analysis": "switch",
        "snapshot": "button",
        "alert_image": "image",
        "snapshot_image": "image",
    }
    assert [entry["topic"] for entry in front["availability"]] == [
        f"{BASE}/availability",
        f"{BASE}/front/availability",
    ]
    without = documents("front", images=False)[FRONT]["components"]
    assert without["alert_image"] == without["snapshot_image"] == {"platform": "image"}, "they are removed"


def test_the_templates_read_what_is_published() -> None:
    """As Home Assistant renders them: null becomes `None`, which it takes for unknown."""
    state = CameraState.model_validate(
        {"ts": "2026-03-14T06:12:09.481Z", "device": "box", "camera": "front", "enabled": True, "text": "x" * 300}
    )
    components = documents("front")[FRONT]["components"]
    shown = {
        key: jinja2.Template(component["value_template"]).render(value_json=json.loads(state.model_dump_json()))
        for key, component in components.items()
        if component.get("state_topic") == f"{BASE}/front/state"
    }
    assert (shown["anomaly"], shown["learning"], shown["fps"]) == ("OFF", "ON", "0.0")
    assert (shown["mode"], shown["fidelity"], shown["score"], shown["muted"]) == ("None",) * 4
    assert shown["description"] == "x" * 255
    status = {"degraded": ["no"], "queue_depth": 3, "dropped": {"full": 2, "disk": 1}, "memory": {"resident": 9}}
    box = documents()[BOX]["components"]
    told = {
        key: jinja2.Template(component["value_template"]).render(value_json={**status, "backend": "cpu"})
        for key, component in box.items()
    }
    assert told == {"trouble": "ON", "queue": "3", "dropped": "3", "memory": "9", "backend": "cpu"}


@needs_mosquitto
def test_it_is_told_again_when_home_assistant_starts_and_taken_back_when_a_camera_goes(tmp_path: Path) -> None:
    def announced(cameras: tuple[str, ...], *, off: bool = False) -> None:
        """One run of the agent."""
        retained = RetainedTopics(tmp_path / "retained.json")
        with agent(broker.url, retracted=retained.forgotten) as box:
            announcer = Announcer(box.link, TOPICS, retained, None if off else discovery(), images=not off)
            announcer.announce(cameras)
            for camera in cameras:
                box.link.set_camera_available(camera, True)
                if not off:
                    box.link.keep(TOPICS.image(camera, "alert"), b"\xff\xd8")
            until(lambda: watcher.last(f"{BASE}/front/availability") == "online", "the camera")
            if not off:
                until(lambda: watcher.on(FRONT), "the announcement")
                before = len(watcher.on(FRONT))
                watcher.publish("homeassistant/status", "offline")
                watcher.publish("homeassistant/status", "online")
                until(lambda: len(watcher.on(FRONT)) > before, "it to be told again")
                assert watcher.on(FRONT)[-1].payload == watcher.on(FRONT)[0].payload
        until(lambda: watcher.last(f"{BASE}/availability") == "offline", "goodbye")

    def kept() -> set[str]:
        """What somebody sees who comes now."""
        with Subscriber(broker.port) as late, agent(broker.url, device="other"):
            until(lambda: late.on("stillwatch/other/availability"), "what is retained, and what comes after")
            return {m.topic for m in late.messages if m.retain and m.payload and "other" not in m.topic}

    with LocalBroker() as broker, Subscriber(broker.port) as watcher:
        announced(("front", "yard"))
        assert {BOX, FRONT, YARD, f"{BASE}/yard/availability", f"{BASE}/yard/image/alert"} <= kept()
        announced(("front",))
        assert kept() == {
            *(BOX, FRONT, f"{BASE}/availability", f"{BASE}/front/availability", f"{BASE}/front/image/alert")
        }
        announced(("front",), off=True)
        assert kept() == {f"{BASE}/availability", f"{BASE}/front/availability"}
        assert YARD not in (tmp_path / "retained.json").read_text()


@needs_mosquitto
def test_every_telling_comes_once_more_as_the_event_entity_reads_it() -> None:
    with LocalBroker() as broker, Subscriber(broker.port) as watcher, agent(broker.url) as box:
        alert = box.book.publish(Anomaly(camera="front", score=0.8, zones=("door",)))
        box.book.update(alert, text="A dog.")
        box.book.update(alert, end=True)
        until(lambda: all(len(watcher.on(f"{BASE}/front/{leaf}")) == 3 for leaf in ("alert", "event")), "the alert")
        forms = [message.document for message in watcher.on(f"{BASE}/front/event")]
        assert [form["event_type"] for form in forms] == ["anomaly", "anomaly_update", "anomaly_end"]
        assert {*(form["event_type"] for form in forms)} <= {*event_types()}
        for form, message in zip(forms, watcher.on(f"{BASE}/front/alert"), strict=True):
            same = ("id", "seq", "ts", "text", "zones", "score", "severity", "replayed", "age_s")
            assert [form[name] for name in same] == [message.document[name] for name in same]
            assert all(not isinstance(value, dict) for value in form.values())


@pytest.mark.parametrize("text", ["", "{", "[3]", '{"a": 1}', "[[]]"])
def test_a_damaged_note_of_what_is_retained_is_no_reason_not_to_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "retained.json").write_text(text)
    retained = RetainedTopics(tmp_path / "retained.json")
    assert retained.replace(["a"]) == []
    assert RetainedTopics(tmp_path / "retained.json").replace([]) == ["a"]
