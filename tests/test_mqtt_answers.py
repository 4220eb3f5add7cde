"""Answers to commands over connections that end before the broker took them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from mqtt_proxy import Proxy
from mqtt_world import Subscriber, agent, needs_mosquitto, until
from pydantic import JsonValue

from agent.mqtt.answers import Answers
from agent.mqtt.broker import LocalBroker
from agent.mqtt.client import MqttLink
from agent.mqtt.commands import Command, Reply

BASE = "stillwatch/box"


@dataclass
class World:
    """clock: of the answers' age, in seconds."""

    broker: LocalBroker
    way: Proxy
    asker: Subscriber
    clock: list[float] = field(default_factory=lambda: [0.0])
    calls: list[str] = field(default_factory=list)
    hang: bool = False
    link: MqttLink | None = None

    def __post_init__(self) -> None:
        self.answers = Answers(lambda: self.clock[0])

    def note(self, command: Command) -> Mapping[str, JsonValue]:
        if self.hang:
            self.way.delay_s = 3600.0
        self.calls.append(command.request_id or "")
        return {}

    def ask(self, request: str) -> None:
        """With QoS 0: the command itself is sent once."""
        self.asker.publish(f"{BASE}/cmd/note", request, correlation=b"\x00\xff", reply_to="desk/7", qos=0)

    def ask_and_lose(self, request: str) -> None:
        """The command is obeyed, and its answer on its way when the connection ends; there is none until `connect`."""
        self.hang = True
        self.ask(request)
        until(lambda: self.way.holds_up(b'"command":"note"'), "the answer to be sent")
        self.hang, self.way.refuse, self.way.delay_s = False, True, 0.0
        self.way.cut()

    def connect(self) -> None:
        self.clock[0] += 1.0
        self.way.refuse = False

    def wait_listening(self) -> None:
        """A state is sent after the subscriptions, so when it has come commands come through."""
        assert self.link is not None
        with Subscriber(self.broker.port, topic=f"{BASE}/front/availability") as watcher:
            for said in ("online", "offline"):
                self.link.set_camera_available("front", said == "online")
                until(partial(watcher.says, f"{BASE}/front/availability", said), said)


@contextmanager
def world(*, topic: str = "#") -> Iterator[World]:
    """topic: what who asks is subscribed to."""
    with LocalBroker() as broker, Proxy(broker.port) as way, Subscriber(broker.port, topic=topic) as asker:
        found = World(broker, way, asker)
        with agent(way.url, handlers={"note": found.note}, answers=found.answers) as box:
            found.link = box.link
            found.wait_listening()
            yield found


@needs_mosquitto
def test_an_answer_that_was_on_its_way_comes_over_the_next_connection() -> None:
    with world() as w:
        w.ask_and_lose('{"request_id": "7"}')
        w.clock[0] = 58.0
        w.connect()
        until(lambda: w.asker.on("desk/7"), "the answer")
        (answer,) = w.asker.on("desk/7")
        assert answer.document["request_id"] == "7" and answer.correlation == b"\x00\xff"
        assert w.calls == ["7"] and not w.asker.on(f"{BASE}/cmd/note/result")


@needs_mosquitto
def test_an_old_answer_reaches_nobody() -> None:
    with world() as w:
        w.ask_and_lose('{"request_id": "old"}')
        w.clock[0] = 60.0
        w.connect()
        w.asker.publish(f"{BASE}/cmd/note", '{"request_id": "new"}', reply_to="desk/7")
        until(lambda: w.asker.on("desk/7"), "the next answer")
        assert {answer.document["request_id"] for answer in w.asker.on("desk/7")} == {"new"}


@needs_mosquitto
def test_an_answer_does_not_go_without_its_correlation_data() -> None:
    with world() as w:
        w.ask_and_lose('{"request_id": "old"}')
        w.way.only_311 = True
        w.connect()
        w.wait_listening()
        w.asker.publish(f"{BASE}/cmd/note", '{"request_id": "new"}')
        until(lambda: w.asker.on(f"{BASE}/cmd/note/result"), "an answer to the next command")
        assert not w.asker.on("desk/7")


@needs_mosquitto
def test_an_answer_waits_for_who_asked_to_be_back_too() -> None:
    with world(topic="nothing") as w:
        w.ask_and_lose('{"request_id": "7"}')
        w.connect()
        until(lambda: w.answers.due_in() == 0.25, "the broker to say that nobody listens")
        with Subscriber(w.broker.port, topic="desk/7") as back:
            w.clock[0] = 30.0
            until(lambda: back.on("desk/7"), "the answer")
        until(lambda: w.answers.due_in() is None, "it to be said once")


def reply(number: int, *, named: bool = True, part: bool = False, size: int = 10) -> Reply:
    return Reply(f"desk/{number}", "x" * size, None, named, part)


def said(answers: Answers) -> list[str]:
    found = []
    while (answer := answers.next()) is not None:
        found.append(answer.reply.topic)
    return found


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30), st.integers(0, 30))
def test_answers_stay_in_order_and_one_that_names_no_request_is_sent_once(
    kinds: list[tuple[bool, bool]], on_their_way: int
) -> None:
    """kinds: whether each names its request, and is a part."""
    answers = Answers(lambda: 0.0)
    for number, (named, part) in enumerate(kinds):
        answers.add(reply(number, named=named, part=part))
    sent = [answer for _ in range(on_their_way) if (answer := answers.next()) is not None]
    answers.lost(sent)
    assert said(answers) == [
        f"desk/{number}" for number, (named, _) in enumerate(kinds) if named or number >= on_their_way
    ]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=40))
def test_answers_are_bounded_and_pieces_give_way_first(kinds: list[tuple[bool, int]]) -> None:
    """kinds: whether each is a part, and its size."""
    answers = Answers(lambda: 0.0, most=5, max_bytes=200)
    for number, (part, size) in enumerate(kinds):
        answers.add(reply(number, part=part, size=size))
    sizes = {f"desk/{number}": (part, size + len(f"desk/{number}")) for number, (part, size) in enumerate(kinds)}
    kept = said(answers)
    assert len(kept) <= 5 and sum(sizes[topic][1] for topic in kept) <= 200
    if kinds:
        last = f"desk/{len(kinds) - 1}"
        assert last in kept or sizes[last][0]  # the newest answer is among them, whatever pieces came before it
