"""A real broker, a subscriber that sees what anybody would see, and an agent's link, for tests over real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import paho.mqtt.client as paho
import pytest
from events_memory import memory_folder
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.capture.backoff import Backoff
from agent.events.book import EventBook
from agent.events.outbox import Outbox
from agent.mqtt.address import BrokerAddress
from agent.mqtt.answers import Answers
from agent.mqtt.broker import MISSING, LocalBroker, find_mosquitto
from agent.mqtt.client import MqttLink
from agent.mqtt.commands import Handler
from agent.mqtt.delivery import Delivery
from agent.mqtt.topics import Topics

needs_mosquitto = pytest.mark.skipif(find_mosquitto() is None, reason=MISSING)
TOPICS = Topics("stillwatch", "box")
PATIENCE_S = 60.0


_processes: list[tuple[subprocess.Popen[Any], Path | None]] = []


@contextmanager
def watched(process: subprocess.Popen[Any], log: Path | None = None) -> Iterator[None]:
    """As long as this is open, who waits learns at once that an agent has died, and what it said last. log: where it
    says it, None = to the pipe that its stderr is."""
    _processes.append((process, log))
    try:
        yield
    finally:
        _processes.remove((process, log))


def _death() -> str | None:
    """Of an agent that nobody has ended."""
    for process, log in _processes:
        if process.poll() not in (None, 0, -signal.SIGKILL):
            words = b""
            if log is not None:
                words = log.read_bytes()
            elif process.stderr is not None:
                os.set_blocking(process.stderr.fileno(), False)
                with suppress(BlockingIOError):
                    words = os.read(process.stderr.fileno(), 1 << 20)
            return f"the agent ended with status {process.returncode}: {words[-3000:].decode(errors='replace')}"
    return None


def until(true: Callable[[], Any], what: str) -> None:
    """Wait for it, for as long as a busy machine may take and the agent lives."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for {what}"
        if (death := _death()) is not None:
            assert true(), f"waited for {what}; {death}"
            return
        time.sleep(0.02)


@dataclass(frozen=True)
class Message:
    topic: str
    payload: bytes
    retain: bool
    correlation: bytes | None

    @property
    def text(self) -> str:
        return self.payload.decode()

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.payload)  # type: ignore[no-any-return]


class Subscriber:
    """Subscribes to everything (or `topic`) and remembers it; persistent sessions survive a broker's restart.

    Others take QoS 0: who acknowledges to a broker that is gone loses what came before it went and is still unread.
    """

    def __init__(self, port: int, *, topic: str = "#", persistent: bool = False, **login: str) -> None:
        self.messages: list[Message] = []
        self._by_topic: dict[str, list[Message]] = {}
        self._ready = threading.Event()
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=f"watcher-{id(self)}", protocol=paho.MQTTv5
        )
        if login:
            self._client.username_pw_set(login["user"], login["password"])
        self._client.reconnect_delay_set(1, 2)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, int(persistent))
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._note
        keep = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        keep.SessionExpiryInterval = 600
        self._client.connect("127.0.0.1", port, clean_start=not persistent, properties=keep if persistent else None)
        self._client.loop_start()
        assert self._ready.wait(PATIENCE_S)

    def _note(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        noted = Message(message.topic, bytes(message.payload), message.retain, correlation)
        self.messages.append(noted)
        self._by_topic.setdefault(message.topic, []).append(noted)

    def on(self, topic: str) -> list[Message]:
        return list(self._by_topic.get(topic, ()))

    def last(self, topic: str) -> str | None:
        found = self.on(topic)
        return found[-1].text if found else None

    def says(self, topic: str, text: str) -> bool:
        """Whether it is what came last there."""
        return self.last(topic) == text

    def publish(
        self,
        topic: str,
        payload: bytes | str = b"",
        *,
        retain: bool = False,
        reply_to: str | None = None,
        correlation: bytes | None = None,
        qos: int = 1,
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if reply_to is not None:
            properties.ResponseTopic = reply_to
        if correlation is not None:
            properties.CorrelationData = correlation
        self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Agent:
    """What the daemon builds, without cameras."""

    outbox: Outbox
    book: EventBook
    link: MqttLink


@contextmanager
def agent(
    url: str,
    *,
    handlers: Mapping[str, Handler] | None = None,
    folder: Path | None = None,
    connected: bool = True,
    delivery: Mapping[str, Any] | None = None,
    device: str = TOPICS.device,
    retracted: Callable[[str], None] = lambda _topic: None,
    address: BrokerAddress | None = None,
    answers: Answers | None = None,
    **parts: Any,
) -> Iterator[Agent]:
    with ExitStack() as stack:
        folder = folder or stack.enter_context(memory_folder())
        outbox = stack.enter_context(Outbox(folder / "events.db"))
        topics = Topics(TOPICS.root, device)
        link = MqttLink(
            address or BrokerAddress.parse(url, **parts),
            topics,
            outbox,
            handlers=handlers,
            delivery=Delivery(outbox, retry_s=0.05, **(delivery or {})),
            backoff=Backoff(first_s=0.2, limit_s=1.0, random=Random(3)),
            will_delay_s=1,
            retracted=retracted,
            answers=answers,
        )
        stack.callback(link.close)
        book = EventBook(device, outbox, topic_of=topics.event, stored=lambda _: link.notify())
        stack.callback(book.close)
        if connected:
            link.wait_connected(PATIENCE_S)
        yield Agent(outbox, book, link)


@contextmanager
def guarded_broker(*acl: str, options: tuple[str, ...] = (), **users: str) -> Iterator[LocalBroker]:
    """A broker with passwords (user=password) and an access list."""
    with_passwords = ("allow_anonymous false", "password_file {dir}/passwords", "acl_file {dir}/acl")
    broker = LocalBroker(options=(*with_passwords, *options))
    (broker.folder / "acl").write_text("\n".join(acl) + "\n")
    passwords = broker.folder / "passwords"
    passwords.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
    subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
    with broker:
        yield broker
