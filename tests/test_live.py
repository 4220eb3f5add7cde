"""`stillwatch watch`: what is told is shown, in place while it goes on, and as lines for a pipe."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_world import Agent, agent, needs_mosquitto, until
from rich.console import Console

from agent.events.model import (
    Anomaly,
    AnyEvent,
    Condition,
    EventType,
    Health,
    SemanticChange,
    event,
)
from agent.live import Scene, Wanted, watch_screen
from agent.mqtt.address import BrokerAddress
from agent.mqtt.broker import LocalBroker

ROOT = Path(__file__).parents[1]


def telling(event_id: str, seq: int, type: EventType, *, pending: tuple[str, ...] = ()) -> AnyEvent:
    news = Anomaly(camera="front", pending=pending)
    told = event(news, event_id=event_id, type=type, ts=datetime.now(timezone.utc), device="box")
    return told.model_copy(update={"seq": seq})


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=12), st.data())
def test_tellings_that_come_twice_change_nothing(ids: list[str], data: st.DataObject) -> None:
    """At least once, in order: a replay starts again at some earlier telling."""
    told = [
        telling(name, seq, data.draw(st.sampled_from(EventType)), pending=data.draw(st.sampled_from([(), ("text",)])))
        for seq, name in enumerate(ids, start=1)
    ]
    once, again = Scene(), Scene()
    printed = [one.seq for one in map(once.take, told) if one is not None]
    came: list[AnyEvent] = []
    for one in told:
        came += [one, *came[data.draw(st.integers(0, len(came))) :], one]
    assert [one.seq for one in map(again.take, came) if one is not None] == printed
    assert (once.open, once.events) == (again.open, again.events)
    last = {one.id: one.type for one in told}
    assert set(once.open) == {name for name, type in last.items() if type is not EventType.END}


@contextmanager
def watching(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "watch", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def tell_until(box: Agent, heard: threading.Event) -> str:
    """Until somebody listens an event goes unheard."""
    while not heard.wait(0.2):
        last = box.book.publish(Anomaly(camera="front", score=2.0, zones=("door",)))
        box.book.publish(SemanticChange(camera="front", distance=0.1))
        box.book.publish(Anomaly(camera="yard"))
    return last


@needs_mosquitto
@pytest.mark.timeout(200)
def test_a_pipe_gets_lines_of_what_was_asked_for_and_ctrl_c_ends_it() -> None:
    lines: list[dict[str, object]] = []
    heard = threading.Event()

    def read(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(json.loads(line))
            heard.set()

    with (
        LocalBroker() as broker,
        agent(broker.url) as box,
        watching("--broker", broker.url, "--json", "--camera", "front", "--kind", "anomaly") as process,
    ):
        reader = threading.Thread(target=read, args=(process,), daemon=True)
        reader.start()
        last = tell_until(box, heard)
        box.book.update(last, end=True)
        until(lambda: lines[-1]["type"] == "end", "the end")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        reader.join(10)
    assert {(line["camera"], line["kind"]) for line in lines} == {("front", "anomaly")}
    assert lines[0]["topic"] == "stillwatch/box/front/alert"


@needs_mosquitto
def test_a_terminal_shows_what_goes_on_in_place() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, height=30)
    stop = threading.Event()
    with LocalBroker() as broker, agent(broker.url) as box:
        address = BrokerAddress.parse(broker.url)
        thread = threading.Thread(target=watch_screen, args=(address, Wanted(), stop, console))
        thread.start()
        until(lambda: "listening to" in out.getvalue(), "the connection")
        alert = box.book.publish(Anomaly(camera="front", score=2.0, pending=("text",)), within={"text": 60.0})
        box.book.publish(Health(camera="yard", condition=Condition.LOST, text="no frame"))
        until(lambda: "2 going on" in out.getvalue() and "… text" in out.getvalue(), "both")
        box.book.update(alert, text="A dog in the hall.", done=("text",))
        until(lambda: "A dog in the hall." in out.getvalue(), "the words")
        box.book.update(alert, end=True)
        until(lambda: "over after" in out.getvalue() and "1 going on" in out.getvalue(), "the end")
        broker.stop()
        until(lambda: "connection lost" in out.getvalue(), "the loss")
        broker.start()
        before = len(out.getvalue())
        until(lambda: "connected" in out.getvalue()[before:], "the way back")
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
    assert "still going on" in out.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "either --broker or --config"),
        (("--broker", "mqtt://127.0.0.1:1"), 69, "can't reach"),
        (("--broker", "http://x"), 78, "expected mqtt://"),
        (("--broker", "mqtt://h", "--kind", "cat"), 2, "expected one of anomaly"),
    ],
)
def test_what_can_not_be_done_is_said(arguments: tuple[str, ...], status: int, said: str) -> None:
    with watching(*arguments) as process:
        _, err = process.communicate(timeout=100)
    assert process.returncode == status and said in err.replace("\n", " ")


@needs_mosquitto
def test_it_ends_by_itself_after_its_seconds_and_when_nobody_reads() -> None:
    with LocalBroker() as broker, agent(broker.url) as box:
        with watching("--broker", broker.url, "--seconds", "1") as process:
            out, err = process.communicate(timeout=100)
            assert process.returncode == 0, err
            assert "0 events seen" in out
        with watching("--broker", broker.url, "--json") as process:
            assert process.stdout is not None
            process.stdout.close()
            gone = threading.Event()
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                box.book.publish(Anomaly(camera="front"))
                gone.wait(0.2)
            assert process.poll() == 0
