"""An hour with a broker that is cut, slow, restarted with an empty memory and refusing: every alert arrives.

The clocks of outbox and events run sixty times as fast as the wall's; sockets and brokers are real.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from events_memory import memory_folder
from mqtt_proxy import Proxy
from mqtt_world import TOPICS, Subscriber, needs_mosquitto, until

from agent.capture.backoff import Backoff
from agent.events.book import EventBook
from agent.events.model import Anomaly, AnyEvent, SemanticChange, Severity
from agent.events.outbox import Outbox
from agent.events.sinks import Sink
from agent.mqtt.address import BrokerAddress
from agent.mqtt.broker import LocalBroker
from agent.mqtt.client import MqttLink
from agent.mqtt.delivery import Delivery

pytestmark = needs_mosquitto
SPEED = 60.0
CAMERAS = ("front", "yard", "hall")
CAP = 1_000_000
ORDER = ("cut", "delay", "restart", "refuse", "away")


class FastClock:
    """Seconds that pass `SPEED` times as fast as they do."""

    def __init__(self) -> None:
        self._wall, self._began = time.time(), time.monotonic()

    def passed(self) -> float:
        return (time.monotonic() - self._began) * SPEED

    def time(self) -> float:
        return self._wall + self.passed()

    def utc(self) -> datetime:
        return datetime.fromtimestamp(self.time(), timezone.utc)


class Told:
    """A sink that notes every alert that was accepted."""

    def __init__(self) -> None:
        self.alerts: dict[str, list[AnyEvent]] = defaultdict(list)

    def append(self, topic: str, event: AnyEvent) -> None:
        if event.kind == "anomaly":
            self.alerts[event.camera].append(event)

    def close(self) -> None: ...


class Trouble:
    """What happens to the broker, one thing after another. full: whether the outbox had to make room."""

    def __init__(
        self, broker: LocalBroker, way: Proxy, passwords: Path, random: Random, full: Callable[[], bool]
    ) -> None:
        self._broker, self._way, self._passwords, self._random, self._full = broker, way, passwords, random, full
        self.over: set[str] = set()

    def make(self, what: str, sleep: Callable[[float], None]) -> None:
        getattr(self, f"_{what}")(sleep)
        self.over.add(what)

    def _cut(self, sleep: Callable[[float], None]) -> None:
        for _ in range(4):
            self._way.cut()
            sleep(self._random.uniform(2, 20))

    def _delay(self, sleep: Callable[[float], None]) -> None:
        self._way.delay_s = 0.4
        sleep(120)
        self._way.cut()
        self._way.delay_s = 0.0

    def _restart(self, sleep: Callable[[float], None]) -> None:
        """It forgets everything: sessions, retained states, who listened."""
        self._broker.stop()
        (self._broker.folder / "mosquitto.db").unlink(missing_ok=True)
        sleep(self._random.uniform(5, 60))
        self._broker.start()

    def _refuse(self, sleep: Callable[[float], None]) -> None:
        good = self._passwords.read_text()
        self._passwords.write_text("".join(line for line in good.splitlines(keepends=True) if "agent:" not in line))
        self._broker.stop()
        self._broker.start()
        sleep(100)
        self._passwords.write_text(good)
        self._broker.stop()
        self._broker.start()

    def _away(self, sleep: Callable[[float], None]) -> None:
        self._way.refuse = True
        self._way.cut()
        sleep(400)
        while "away" not in self.over and not self._full():  # on a busy machine less is told in that time
            sleep(20)
        self._way.refuse = False


def guarded(stack: ExitStack) -> tuple[LocalBroker, Path]:
    """Nothing is kept on its disk."""
    import subprocess

    options = ("allow_anonymous false", "password_file {dir}/passwords", "persistence false")
    broker = LocalBroker(options=options)
    passwords = broker.folder / "passwords"
    passwords.write_text("agent:a\nwatcher:w\n")
    subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
    stack.callback(broker.remove)
    broker.start()
    return broker, passwords


def run(hours: float) -> None:
    random, clock, told = Random(11), FastClock(), Told()
    sinks: tuple[Sink, ...] = (told,)
    with ExitStack() as stack:
        folder = stack.enter_context(memory_folder())
        broker, passwords = guarded(stack)
        way = stack.enter_context(Proxy(broker.port))
        watcher = stack.enter_context(Subscriber(broker.port, user="watcher", password="w"))
        outbox = stack.enter_context(
            Outbox(folder / "events.db", max_bytes=CAP, clock=clock.time, monotonic=clock.passed)
        )
        link = MqttLink(
            BrokerAddress.parse(way.url, user="agent", password="a"),
            TOPICS,
            outbox,
            delivery=Delivery(outbox, retry_s=0.05),
            backoff=Backoff(first_s=0.1, limit_s=0.5, random=Random(3)),
            will_delay_s=1,
        )
        stack.callback(link.close)
        book = EventBook(
            "box", outbox, topic_of=TOPICS.event, sinks=sinks, stored=lambda _: link.notify(), utc=clock.utc
        )
        stack.callback(book.close)
        until(lambda: link.state.connected, "the first connection")
        before = psutil.Process(os.getpid()).memory_info().rss
        peaks = {"disk": 0, "memory": 0}
        over = threading.Event()
        trouble = Trouble(broker, way, passwords, random, lambda: "full" in outbox.dropped)

        def sleep(simulated_s: float) -> None:
            over.wait(simulated_s / SPEED)

        def happen() -> None:
            for what in ORDER:
                trouble.make(what, sleep)
                sleep(60)
            while not over.is_set():
                trouble.make(random.choice(ORDER), sleep)
                sleep(random.uniform(60, 200))
            way.refuse, way.delay_s = False, 0.0

        thread = threading.Thread(target=happen, daemon=True)
        thread.start()
        while clock.passed() < hours * 3600 or len(trouble.over) < len(ORDER):
            tell(book, random)
            peaks["disk"] = max(peaks["disk"], sum(path.stat().st_size for path in folder.iterdir()))
            peaks["memory"] = max(peaks["memory"], psutil.Process(os.getpid()).memory_info().rss - before)
            sleep(random.expovariate(1 / 6))
        over.set()
        thread.join()
        assert book.flush(30)
        until(lambda: outbox.depth == 0, "all that waited to be sent")
        check(told, watcher)
        assert outbox.dropped.get("refused", 0) == 0
        assert book.dropped == {}
        assert outbox.dropped.get("full", 0) > 0, "what matters less has made room"
        assert peaks["disk"] < 2 * CAP + 4_000_000, "documents and indices, the log and what is set aside"
        assert peaks["memory"] < 60_000_000


def tell(book: EventBook, random: Random) -> None:
    """An alert in its steps; now and then much that matters less."""
    camera = random.choice(CAMERAS)
    alert = book.publish(Anomaly(camera=camera, score=1.7, severity=Severity.HIGH))
    if random.random() < 0.5:
        book.update(alert, text="Somebody.")
    book.update(alert, end=True)
    if random.random() < 0.2:
        for _ in range(20):
            book.publish(SemanticChange(camera=camera, distance=0.2, text="z" * 9000))


def check(told: Told, watcher: Subscriber) -> None:
    """Every alert, in order per camera, once after dedupe, as it was told."""
    assert sum(map(len, told.alerts.values())) > 100

    def first(camera: str) -> dict[tuple[str, int], dict[str, Any]]:
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for message in watcher.on(f"stillwatch/box/{camera}/alert"):
            document = message.document
            found.setdefault((document["id"], document["seq"]), document)
        return found

    for camera in CAMERAS:
        until(lambda c=camera: len(first(c)) >= len(told.alerts[c]), f"the alerts of {camera}")  # type: ignore[misc]
        arrived = first(camera)
        assert [*arrived] == [(event.id, event.seq) for event in told.alerts[camera]]
        for event in told.alerts[camera]:
            document = arrived[event.id, event.seq]
            whole = event.model_dump(mode="json")
            assert {**whole, "replayed": document["replayed"], "age_s": document["age_s"]} == document
    late = [m.document for c in CAMERAS for m in watcher.on(f"stillwatch/box/{c}/alert") if m.document["replayed"]]
    assert late and all(document["age_s"] > 4 for document in late)


@pytest.mark.timeout(300)
def test_some_minutes_of_it() -> None:
    """A quarter of the hour, or as long as each trouble needs to come once."""
    run(0.12)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_hour() -> None:
    run(1.0)
