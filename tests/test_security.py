"""docs/security.md: its numbers are the code's, its access list lets each do their work and no more."""

from __future__ import annotations

import importlib
import inspect
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from capture_servers import closed_port
from faults_world import ROOT, run
from mqtt_world import PATIENCE_S, Subscriber, guarded_broker, needs_mosquitto, until

from agent.mqtt.broker import LocalBroker

PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
LIMIT = re.compile(r"^\| [^|]+ \| ([\d.]+)[^|]* \| `([\w.]+?)\.(\w+)(?::(\w+))?` \|$", re.MULTILINE)
LIMITS = LIMIT.findall(PAGE)
USERS = ("box", "other", "viewer", "home", "ops")


@pytest.mark.parametrize(("number", "module", "name", "argument"), LIMITS)
def test_a_limit_is_that_of_the_code(number: str, module: str, name: str, argument: str) -> None:
    found = getattr(importlib.import_module(module), name)
    if argument:
        found = inspect.signature(found).parameters[argument].default
    assert float(number) == found


def test_every_row_of_the_table_is_compared() -> None:
    table = PAGE[PAGE.index("## Limits") : PAGE.index("What arrives is read")]
    assert len(LIMITS) == table.count("\n| ") - 1 > 10


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalBroker]:
    lines = (ROOT / "examples/mosquitto.acl").read_text(encoding="utf-8").splitlines()
    with guarded_broker(*lines, **{user: user[0] for user in USERS}) as started:
        yield started


MAY = [
    ("box", "stillwatch/box/front/alert", True),
    ("box", "stillwatch/other/front/alert", False),
    ("box", "stillwatch/other/config/desired", False),
    ("viewer", "stillwatch/box/cmd/mute", False),
    ("viewer", "stillwatch/box/config/desired", False),
    ("home", "stillwatch/box/cmd/mute", True),
    ("home", "stillwatch/box/front/analysis/set", True),
    ("home", "stillwatch/box/config/desired", False),
    ("home", "stillwatch/box/front/alert", False),
    ("ops", "stillwatch/box/config/desired", True),
    ("ops", "stillwatch/box/config/reported", False),
    ("ops", "stillwatch/box/cmd/mute", False),
]


@needs_mosquitto
@pytest.mark.parametrize(("user", "topic", "may"), MAY)
def test_who_may_publish_what(broker: LocalBroker, user: str, topic: str, may: bool) -> None:
    assert may_publish(broker, user, topic) == may


@needs_mosquitto
def test_a_viewer_sees_events_and_no_configuration(broker: LocalBroker) -> None:
    with (
        Subscriber(broker.port, user="viewer", password="v") as viewer,
        Subscriber(broker.port, user="ops", password="o") as ops,
        Subscriber(broker.port, user="box", password="b") as box,
    ):
        ops.publish("stillwatch/box/config/desired", "secret")
        until(lambda: box.on("stillwatch/box/config/desired"), "the configuration at the box")
        box.publish("stillwatch/box/front/alert", "{}")
        until(lambda: viewer.on("stillwatch/box/front/alert"), "the alert")
        assert not viewer.on("stillwatch/box/config/desired")
        assert not ops.on("stillwatch/box/front/alert")


def may_publish(broker: LocalBroker, user: str, topic: str) -> bool:
    """By what the broker's acknowledgement says."""
    answers: list[Any] = []
    connected, answered = threading.Event(), threading.Event()

    def note(_client: Any, _data: Any, _number: int, reason: Any, _properties: Any) -> None:
        answers.append(reason)
        answered.set()

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.username_pw_set(user, user[0])
    client.on_connect = lambda *_: connected.set()
    client.on_publish = note
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        assert connected.wait(PATIENCE_S)
        client.publish(topic, b"x", qos=1)
        assert answered.wait(PATIENCE_S)
    finally:
        client.disconnect()
        client.loop_stop()
    return not answers[0].is_failure


@needs_mosquitto
@pytest.mark.timeout(200)
def test_nothing_listens_beyond_loopback(tmp_path: Path) -> None:
    port = closed_port()
    with (
        LocalBroker() as broker,
        Subscriber(broker.port) as subscriber,
        run(tmp_path, mqtt={"url": broker.url}, metrics={"port": port}) as agent,
    ):
        until(lambda: subscriber.last("stillwatch/box/front/availability") == "online", "frames")
        assert listening(agent.pid) == {f"127.0.0.1:{port}"}


def listening(pid: int) -> set[str]:
    """Addresses at which a process takes TCP connections, or UDP packets that nobody asked for."""
    own, found = set(), set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                own.add(target[8:-1])
    for table, states in (("tcp", {"0A"}), ("tcp6", {"0A"}), ("udp", {"07"}), ("udp6", {"07"})):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] in states and fields[9] in own:
                address, port = fields[1].split(":")
                digits = [str(int(address[i : i + 2], 16)) for i in (6, 4, 2, 0)] if len(address) == 8 else [address]
                found.add(f"{'.'.join(digits)}:{int(port, 16)}")
    return found
