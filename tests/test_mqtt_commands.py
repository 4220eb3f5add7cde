"""Commands over a real broker: every one is answered, none can do harm, whatever it holds."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mqtt_proxy import Proxy
from mqtt_world import Agent, Subscriber, agent, needs_mosquitto, until
from pydantic import JsonValue

from agent.mqtt.broker import LocalBroker
from agent.mqtt.commands import Command, CommandError

pytestmark = needs_mosquitto
BASE = "stillwatch/box"


def ask(command: Command) -> Mapping[str, JsonValue]:
    return {"text": f"You asked: {command.text('question')}"}


def switch(command: Command) -> Mapping[str, JsonValue]:
    if command.arguments["camera"] != "front":
        raise CommandError(f"no camera {command.arguments['camera']!r}")
    return {"enabled": command.arguments["enabled"]}


def broken(command: Command) -> Mapping[str, JsonValue]:
    raise ZeroDivisionError("a fault in the handler")


HANDLERS = {"ask": ask, "analysis": switch, "broken": broken}


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Subscriber, Agent]]:
    with (
        LocalBroker() as broker,
        Subscriber(broker.port) as watcher,
        agent(broker.url, handlers=HANDLERS) as box,
    ):
        until(lambda: watcher.last(f"{BASE}/availability") == "online", "the agent")
        yield watcher, box


_numbers = itertools.count()


def send(watcher: Subscriber, topic: str, payload: bytes | str, **kwargs: Any) -> str:
    """Send it with a response topic of its own, which is returned."""
    reply_to = f"replies/{next(_numbers)}"
    watcher.publish(topic, payload, reply_to=reply_to, **kwargs)
    return reply_to


def answer(watcher: Subscriber, topic: str, payload: bytes | str, **kwargs: Any) -> dict[str, Any]:
    reply_to = send(watcher, topic, payload, **kwargs)
    until(lambda: watcher.on(reply_to), f"the answer to {topic} {payload!r:.60}")
    (message,) = watcher.on(reply_to)
    assert message.correlation == kwargs.get("correlation")
    return message.document


def test_a_command_is_answered_where_it_was_asked(world: tuple[Subscriber, Agent]) -> None:
    watcher, _ = world
    result = answer(
        watcher, f"{BASE}/cmd/ask", '{"request_id": "7", "question": "Who is there?"}', correlation=b"\0\xff"
    )
    assert (result["ok"], result["request_id"], result["command"]) == (True, "7", "ask")
    assert result["result"] == {"text": "You asked: Who is there?"}


def test_without_a_response_topic_the_answer_goes_to_the_result_topic(world: tuple[Subscriber, Agent]) -> None:
    watcher, _ = world
    watcher.publish(f"{BASE}/cmd/ask", '{"request_id": "plain", "question": "?"}')
    until(lambda: any(m.document["request_id"] == "plain" for m in watcher.on(f"{BASE}/cmd/ask/result")), "the answer")


@pytest.mark.parametrize(
    ("name", "payload", "said"),
    [
        ("ask", '{"request_id": "a"', "expected a JSON object"),
        ("ask", "[1]", "expected a JSON object"),
        ("ask", '{"question": 3}', "expected a text for 'question'"),
        ("ask", '{"request_id": 5}', "'request_id'"),
        ("ask", " " * 70_000, "expected at most"),
        ("dance", "{}", "unknown command 'dance'; known: ask, broken"),
        ("broken", "", "internal error: ZeroDivisionError"),
    ],
)
def test_a_wrong_command_is_told_what_is_wrong(
    world: tuple[Subscriber, Agent], name: str, payload: str, said: str
) -> None:
    result = answer(world[0], f"{BASE}/cmd/{name}", payload)
    assert not result["ok"] and said in result["error"]


def test_the_switch_of_a_camera(world: tuple[Subscriber, Agent]) -> None:
    watcher, _ = world
    assert answer(watcher, f"{BASE}/front/analysis/set", "off")["result"] == {"enabled": False}
    assert answer(watcher, f"{BASE}/front/analysis/set", "ON")["result"] == {"enabled": True}
    assert "expected ON or OFF" in answer(watcher, f"{BASE}/front/analysis/set", "maybe")["error"]
    assert "no camera 'attic'" in answer(watcher, f"{BASE}/attic/analysis/set", "ON")["error"]


@pytest.mark.parametrize("reply_to", [f"{BASE}/availability", f"{BASE}/cmd/ask", BASE, "$SYS/broker"])
def test_an_answer_never_goes_where_it_would_pass_for_something_else(
    world: tuple[Subscriber, Agent], reply_to: str
) -> None:
    watcher, _ = world
    before = len(watcher.messages)
    name = f"spoof-{next(_numbers)}"
    watcher.publish(f"{BASE}/cmd/ask", json.dumps({"request_id": name, "question": "?"}), reply_to=reply_to)
    until(lambda: any(m.text.find(name) > 0 for m in watcher.on(f"{BASE}/cmd/ask/result")), "the answer")
    assert not [m for m in watcher.messages[before:] if m.topic == reply_to and '"ok"' in m.text]


def test_a_retained_command_is_an_order_of_another_day() -> None:
    calls: list[Command] = []

    def note(command: Command) -> Mapping[str, JsonValue]:
        calls.append(command)
        return {}

    for protocol in ("5", "3.1.1"):
        with LocalBroker() as broker, Subscriber(broker.port) as watcher:
            watcher.publish(f"{BASE}/cmd/note", '{"request_id": "old"}', retain=True)
            until(lambda: watcher.on(f"{BASE}/cmd/note"), "the broker to keep it")
            with agent(broker.url, protocol=protocol, handlers={"note": note}):
                until(lambda: watcher.last(f"{BASE}/availability") == "online", "the agent")
                watcher.publish(f"{BASE}/cmd/note", '{"request_id": "new"}')
                until(lambda: watcher.on(f"{BASE}/cmd/note/result"), "the answer")
        assert [command.request_id for command in calls] == ["new"]
        calls.clear()


def test_a_command_that_is_sent_while_the_agent_comes_back_is_obeyed_once() -> None:
    """The session outlives the connection, but not for long: what is older is for nobody."""
    calls: list[str | None] = []

    def note(command: Command) -> Mapping[str, JsonValue]:
        calls.append(command.request_id)
        return {}

    with (
        LocalBroker() as broker,
        Proxy(broker.port) as way,
        Subscriber(broker.port) as watcher,
        agent(way.url, handlers={"note": note}) as box,
    ):
        until(lambda: watcher.last(f"{BASE}/availability") == "online", "the agent")
        way.refuse = True
        way.cut()
        until(lambda: not box.link.state.connected, "the loss")
        watcher.publish(f"{BASE}/cmd/note", '{"request_id": "meanwhile"}')
        until(lambda: watcher.on(f"{BASE}/cmd/note"), "the broker to have it")
        way.refuse = False
        until(lambda: calls == ["meanwhile"], "the command")
        until(lambda: watcher.on(f"{BASE}/cmd/note/result"), "the answer")
        way.cut()
        until(lambda: box.link.state.connections == 3, "another connection")
        watcher.publish(f"{BASE}/cmd/note", '{"request_id": "after"}')
        until(lambda: calls[-1:] == ["after"], "the next command")
    assert calls == ["meanwhile", "after"]


def test_a_slow_handler_holds_up_no_events_and_a_flood_is_turned_away() -> None:
    gate = threading.Event()

    def slow(_command: Command) -> Mapping[str, JsonValue]:
        gate.wait(60)
        return {}

    with (
        LocalBroker() as broker,
        Subscriber(broker.port) as watcher,
        agent(broker.url, handlers={"slow": slow}) as box,
    ):
        until(lambda: watcher.last(f"{BASE}/availability") == "online", "the agent")
        for n in range(40):
            watcher.publish(f"{BASE}/cmd/slow", json.dumps({"request_id": str(n)}))
        results = f"{BASE}/cmd/slow/result"
        until(lambda: len(watcher.on(results)) >= 40 - 2 - 16, "those turned away")
        assert all("busy" in m.document["error"] for m in watcher.on(results))
        box.link.set_camera_available("front", True)
        until(lambda: watcher.last(f"{BASE}/front/availability") == "online", "a state meanwhile")
        gate.set()
        until(lambda: len(watcher.on(results)) == 40, "all answers")


_payloads = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["request_id", "question", "camera"]), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
)
_names = st.sampled_from(["cmd/ask", "cmd/analysis", "cmd/x y", "cmd/\u00e4\u2603", "front/analysis/set", "cmd/result"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(_names, _payloads), min_size=1, max_size=12))
@example([("cmd/ask", b'{"a":' + b"[" * 60_000)])
@example([("cmd/ask", b'{"question":"\\ud800","request_id":"\\udfff"}')])
@example([("cmd/ask", b'{"n":' + b"9" * 10_000 + b"}"), ("cmd/ask", b'{"n":NaN}'), ("cmd/ask", b"\xff\xfe")])
def test_hostile_payloads_are_answered_and_change_nothing(
    world: tuple[Subscriber, Agent], messages: list[tuple[str, bytes]]
) -> None:
    watcher, box = world
    sent = [(name, send(watcher, f"{BASE}/{name}", payload)) for name, payload in messages]
    until(lambda: all(watcher.on(reply_to) for _, reply_to in sent), f"the answers to {messages!r:.400}")
    for name, reply_to in sent:
        (result,) = (message.document for message in watcher.on(reply_to))
        assert result["ok"] == (result["error"] is None)
        if name not in ("cmd/ask", "front/analysis/set"):
            assert not result["ok"]
        assert "internal error" not in (result["error"] or "")
    assert box.link.alive() and box.link.state.connected and box.link.state.trouble == ()
