"""What stands in examples/ and in the pages for Home Assistant and Node-RED does what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from mqtt_world import Subscriber, agent, needs_mosquitto, until

from agent.events.form import event_types
from agent.events.model import EVENT, Anomaly, RuleAlert, Severity, new_id
from agent.homeassistant.discovery import Discovery
from agent.mqtt.broker import LocalBroker
from agent.mqtt.topics import Topics
from config.loading import load

ROOT = Path(__file__).parents[1]
FLOW: list[dict[str, Any]] = json.loads((ROOT / "examples/node-red/alerts.json").read_text(encoding="utf-8"))
NODE = shutil.which("node") or ""
needs_node = pytest.mark.skipif(not NODE, reason="node is not installed: what runs in Node-RED can't be run")
HOME = (ROOT / "docs/home-assistant.md").read_text(encoding="utf-8")
ALERT = json.loads(
    re.search(r"### `<cam>/alert`\n```json\n(.*?)```", (ROOT / "docs/mqtt.md").read_text(encoding="utf-8"), re.DOTALL)[
        1
    ]  # type: ignore[index]
)


@needs_mosquitto
@pytest.mark.timeout(200)
def test_the_paho_example_prints_each_telling_once_over_a_restart_of_the_broker() -> None:
    with LocalBroker() as broker, agent(broker.url) as box:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "examples/paho_alerts.py"), "--port", str(broker.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        lines: list[str] = []

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            heard = threading.Event()
            while not lines and not heard.wait(0.2):
                first = box.book.publish(Anomaly(camera="front", text="before"))
            broker.stop()
            broker.start()
            box.book.update(first, text="after")
            box.book.update(first, end=True)
            until(lambda: any("anomaly end" in line for line in lines), "the end of the alert")
        finally:
            process.kill()
            process.wait()
            reader.join(10)
    assert len([line for line in lines if "after" in line and " update " in line]) == 1
    assert len(lines) == len(set(lines))


def test_the_flow_can_be_imported() -> None:
    ids = [node["id"] for node in FLOW]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[0-9a-f]{16}", node_id) for node_id in ids)
    tabs = {node["id"] for node in FLOW if node["type"] == "tab"}
    brokers = {node["id"] for node in FLOW if node["type"] == "mqtt-broker"}
    for node in FLOW:
        if node["type"] in ("tab", "mqtt-broker"):
            continue
        assert node["z"] in tabs and isinstance(node["x"], int) and isinstance(node["y"], int)
        assert all(target in ids for wire in node["wires"] for target in wire)
        if node["type"].startswith("mqtt"):
            assert node["broker"] in brokers
        if node["type"] == "switch":
            assert len(node["wires"]) == len(node["rules"]) == node["outputs"]


def test_the_flow_speaks_of_topics_and_fields_that_there_are() -> None:
    by_name = {node.get("name"): node for node in FLOW}
    topics = Topics("stillwatch", "porch-box")
    assert by_name["alerts"]["topic"] == topics.camera("X", "alert").replace("porch-box/X", "+/+")
    assert topics.command(by_name["command"]["topic"]) == ("mute", None)
    assert by_name["answers"]["topic"] == topics.result("X").replace("porch-box", "+").replace("/X/", "/+/")
    assert [rule["v"] for rule in by_name["step"]["rules"]] == ["new", "update", "end"]
    code = " ".join(node.get("func", "") for node in FLOW)
    assert set(re.findall(r"\bevent\.(\w+)", code)) <= set(ALERT)
    json.loads(by_name["mute an hour"]["payload"])


def through_the_flow(messages: list[dict[str, Any]]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """What reaches each debug node when these come in as `alerts`, and what function nodes keep, by name."""
    asked = json.dumps({"flow": FLOW, "from": "alerts", "messages": messages})
    command = [NODE, str(ROOT / "tests/node_red.js")]
    ended = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    return found["reached"], found["stores"]


@needs_mosquitto
@needs_node
def test_the_flow_tells_each_step_of_an_alert_once() -> None:
    with (
        LocalBroker() as broker,
        Subscriber(broker.port, topic="stillwatch/+/+/alert") as desk,
        agent(broker.url) as box,
    ):
        first = box.book.publish(Anomaly(camera="front", severity=Severity.HIGH, pending=("text",)))
        box.book.update(first, done=("text",), text="A person stands at the door.")
        second = box.book.publish(RuleAlert(camera="back", rule="visitor", ask="Is a person there?", score=0.9))
        box.book.update(first, end=True)
        until(lambda: len(desk.messages) == 4, "the tellings")
    came = [{"topic": message.topic, "payload": message.document} for message in desk.messages]
    reached, _ = through_the_flow([*came, *came])
    told = [(said["topic"], said["payload"], said["event"]["id"]) for said in reached["notification"]]
    assert sorted(told) == sorted(
        [
            ("anomaly at front", "something unusual, high", first),
            ("anomaly at front", "A person stands at the door.", first),
            ("rule at back", "something unusual, medium", second),
        ]
    )
    assert {said["tag"] for said in reached["notification"]} == {"front/anomaly", "back/rule/visitor"}
    assert [said["payload"]["id"] for said in reached["over"]] == [first]


@needs_node
def test_the_flow_keeps_the_last_thousand_alerts_and_lets_unnumbered_ones_pass() -> None:
    ids = [new_id() for _ in range(1100)]
    came = [{"payload": {**ALERT, "id": event_id, "seq": n + 1}} for n, event_id in enumerate(ids)]
    late = {"payload": {**ALERT, "id": ids[-1], "seq": 0, "replayed": True, "age_s": 7.5}}
    reached, stores = through_the_flow([*came, came[-1], late, late])
    assert len(reached["notification"]) == 1102
    assert reached["notification"][-1]["late"] == 7.5
    assert len(stores["once"]["seen"]) == 1000 and ids[-1] in stores["once"]["seen"]


def test_the_page_for_home_assistant_names_what_is_announced(tmp_path: Path) -> None:
    documents = Discovery(Topics("stillwatch", "box"), "homeassistant", name=None, version="1", images=True)
    told = {key: json.loads(text) for key, text in documents.documents(["front"]).items()}
    names = {c["name"] for document in told.values() for c in document["components"].values()}
    assert [name for name in names if name not in HOME] == []
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", HOME, re.DOTALL)]
    config, *automations = blocks
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump({**config, "cameras": {"front": {"source": "scene:yard"}}}))
    mqtt = load(path, {}).mqtt
    assert mqtt is not None and mqtt.discovery == "homeassistant" and mqtt.images is not None
    for automation in automations:
        assert automation["triggers"] and automation["actions"], automation["alias"]


def test_the_notification_of_the_page_says_something() -> None:
    alert = EVENT.validate_python(ALERT).model_dump(mode="json")
    first = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", HOME, re.DOTALL)[1])

    def rendered(template: str) -> str:
        return jinja2.Template(template).render(trigger={"payload_json": alert})

    assert first["triggers"][0]["topic"] == "stillwatch/porch-box/front/alert"
    assert rendered(first["conditions"][0]) == "True"
    data = first["actions"][0]["data"]
    assert rendered(data["title"]) == "anomaly at front"
    assert rendered(data["message"]) == "Something is unusual."
    assert rendered(data["data"]["tag"]) == alert["dedupe_key"]
    assert "anomaly_update" in event_types()
