"""Whatever arrives on a topic that the agent listens to: an answer where one is due, no surprise, nothing changed.

A whole agent takes it, with its cameras, rules and questions. Most payloads go straight to where the network's thread
hands them over; some come through a real broker.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mqtt_world import PATIENCE_S, Subscriber, needs_mosquitto, until

from agent.daemon import Daemon
from agent.mqtt.broker import LocalBroker
from agent.mqtt.session import Incoming
from config.settings import Camera, Device, Events, Mqtt, Settings

pytestmark = needs_mosquitto
BASE = "stillwatch/box"
MANY = int(os.environ.get("STILLWATCH_HOSTILE", "10000"))


@dataclass
class World:
    """A whole agent that does not run its cameras, and who listens to it."""

    daemon: Daemon
    watcher: Subscriber
    faults: list[str]
    folder: Path

    def answers(self, request: str) -> list[dict[str, Any]]:
        return [message.document for message in self.watcher.on(f"replies/{request}")]

    @property
    def state(self) -> object:
        """All that a command could have changed."""
        daemon = self.daemon
        cameras = {
            name: (camera.enabled, camera.reporter.muted_until, camera.watch.learned)
            for name, camera in daemon.cameras.items()
        }
        files = {
            path.relative_to(self.folder)
            for path in self.folder.rglob("*")
            if path.is_file() and not path.name.startswith(("events.db", "retained.json"))
        }
        return cameras, files, daemon.outbox.depth, len(daemon._book.remembered())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("state")
    faults: list[str] = []
    hook, threading.excepthook = threading.excepthook, lambda args: faults.append(repr(args.exc_value))
    with LocalBroker() as broker, Subscriber(broker.port) as watcher:
        mqtt = Mqtt(url=broker.url, discovery="homeassistant")
        cameras = {"front": Camera(source="scene:yard"), "back": Camera(source="scene:yard")}
        daemon = Daemon(Settings(device=Device(id="box"), events=Events(dir=folder), cameras=cameras, mqtt=mqtt))
        assert daemon.link is not None
        daemon.link.wait_connected(PATIENCE_S)
        yield World(daemon, watcher, faults, folder)
        daemon.close()
    threading.excepthook = hook


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["front", "back", "normal", "reset", "../../etc/passwd", "019cead3-9f29-7c52-8d3c-6d2f1b0a4e77"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_keys = st.sampled_from(
    ["camera", "id", "verdict", "action", "for_s", "text", "question", "request_id", "name", "ask", "seconds", "v"]
) | st.text(max_size=5)
_deep = st.integers(10, 20_000).map(lambda n: b'{"a":' + b"[" * n)
_closed = st.integers(10, 8_000).map(lambda n: b'{"a":' + b"[" * n + b"]" * n + b"}")
_huge = st.integers(60_000, 300_000).map(lambda n: b'{"text":"' + b"x" * n + b'"}')
_numbers = st.integers(100, 5_000).map(lambda n: b'{"for_s":' + b"9" * n + b"}")
_payloads = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.dictionaries(_keys, _json, max_size=4).map(lambda value: json.dumps(value).encode()),
    _json.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(_keys, _json, max_size=4).map(lambda value: json.dumps(value).encode("utf-16")),
    st.sampled_from([b"", b"ON\0", b"on off", b"{}{}", b'{"a":1,"a":2}', b"\xff\xd8\xff", b'{"request_id":"\\ud800"}']),
    *(_deep, _closed, _huge, _numbers),
)


def _topics(daemon: Daemon) -> list[str]:
    """Every topic that it listens to, and names that it does not know."""
    assert daemon.link is not None
    commands = [name for name in daemon.link._desk._handlers if name != "analysis"]
    odd = ["dance", "result", "x y", "\u00e4\u2603", "analysis", "$SYS", "x" * 200]
    switches = [f"{BASE}/{camera}/analysis/set" for camera in ("front", "attic", "cmd", "\u2603")]
    return [*(f"{BASE}/cmd/{name}" for name in (*commands, *odd)), *switches, *daemon.link._listeners]


_MAY_SUCCEED = {"acknowledge"}
"""It says which alerts were meant, and none is a right answer."""


def _harmless(topic: str, payload: bytes) -> bool:
    """A payload that is a right order after all is not hostile."""
    if topic.endswith("/analysis/set"):
        return payload.strip().upper() not in (b"ON", b"OFF")
    if topic.endswith(("/cmd/mute", "/cmd/baseline", "/cmd/rules", "/cmd/rule")):
        return b"front" not in payload and b"back" not in payload
    return True


@pytest.mark.timeout(300)
def test_some_hundreds_through_the_broker(world: World) -> None:
    sent = 0

    @settings(max_examples=60, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(st.lists(st.tuples(st.sampled_from(_topics(world.daemon)), _payloads), min_size=3, max_size=8))
    def send(messages: list[tuple[str, bytes]]) -> None:
        nonlocal sent
        before = world.state
        due = []
        for topic, payload in messages:
            if not _harmless(topic, payload):
                continue
            sent += 1
            request = f"{sent}"
            world.watcher.publish(topic, payload, reply_to=f"replies/{request}", correlation=request.encode())
            if topic.startswith(BASE) and "/config/" not in topic:
                due.append((topic, request))
        until(lambda: all(world.answers(request) for _, request in due), f"the answers to {messages!r:.500}")
        for topic, request in due:
            (answer,) = world.answers(request)
            _check(topic, answer)
        assert world.state == before

    send()
    assert sent > 200
    _unharmed(world)


def _deliver(world: World, count: int) -> None:
    """As many as that, handed over as the network's thread does it; each is answered before the next."""
    link = world.daemon.link
    assert link is not None
    answers: list[dict[str, Any]] = []
    done = threading.Semaphore(0)
    send = link._desk._send

    def note(reply: Any) -> None:
        answers.append(json.loads(reply.payload))
        done.release()

    link._desk._send = note
    handed = 0

    @settings(max_examples=count, suppress_health_check=list(HealthCheck), phases=[Phase.generate], database=None)
    @given(st.sampled_from(_topics(world.daemon)), _payloads, st.booleans(), st.sampled_from([None, "a/b", "#", BASE]))
    def hand_over(topic: str, payload: bytes, retained: bool, reply_to: str | None) -> None:
        nonlocal handed
        handed += 1
        if not _harmless(topic, payload):
            return
        link._take(Incoming(topic, payload, retained, reply_to, b"\0"))
        if topic in link._listeners or retained:
            return
        assert done.acquire(timeout=PATIENCE_S), f"no answer to {topic} {payload!r:.200}"
        _check(topic, answers.pop())

    before = world.state
    try:
        hand_over()
    finally:
        link._desk._send = send
    assert handed >= 0.9 * count
    assert world.state == before and not answers
    _unharmed(world)


def _check(topic: str, answer: dict[str, Any]) -> None:
    assert answer["ok"] == (answer["error"] is None)
    assert not answer["ok"] or topic.rpartition("/")[2] in _MAY_SUCCEED, (topic, answer)
    assert "internal error" not in (answer["error"] or ""), (topic, answer)
    assert len(answer["error"] or "") < 2000


def _unharmed(world: World) -> None:
    link = world.daemon.link
    assert link is not None and link.alive() and link.state.connected and link.state.trouble == ()
    assert world.faults == []


@pytest.mark.timeout(300)
def test_some_hundreds_handed_over(world: World) -> None:
    _deliver(world, 400)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand(world: World) -> None:
    _deliver(world, MANY)
