"""What an agent in a process of its own does when disk, memory, model or clock fail it, and how often it starts again.

What other tests prove already is listed in docs/reliability.md.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from events_memory import memory_folder
from faults_world import BASE, CUTTING, ROOT, fill, remount, run, small_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from mqtt_world import Subscriber, needs_mosquitto, until

from agent.applying.journal import Journal
from agent.events.book import EventBook
from agent.events.lock import StateLock
from agent.events.model import Anomaly, Severity
from agent.events.outbox import Outbox
from agent.mqtt.broker import LocalBroker
from agent.service import stateformat

RESTARTS = int(os.environ.get("STILLWATCH_RESTARTS", "12"))
"""Of whole processes, two to three seconds each. docs/reliability.md has the command for a thousand."""

needs_time = pytest.mark.timeout(300)


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker() as started:
        yield started


def changes(subscriber: Subscriber, camera: str = "front") -> list[dict[str, Any]]:
    return [message.document for message in subscriber.on(f"{BASE}/{camera}/change")]


def more_changes(subscriber: Subscriber) -> None:
    before = len({change["id"] for change in changes(subscriber)})
    until(lambda: len({change["id"] for change in changes(subscriber)}) > before, "a change after it")


@needs_mosquitto
@needs_time
@pytest.mark.slow
def test_a_disk_that_is_filled_under_it_stops_no_alert(tmp_path: Path, broker: LocalBroker) -> None:
    with (
        small_disk(tmp_path / "disk") as disk,
        Subscriber(broker.port) as subscriber,
        run(tmp_path, events={"dir": str(disk / "state")}, mqtt={"url": broker.url}) as agent,
    ):
        until(lambda: changes(subscriber), "a change")
        hog = fill(disk)
        more_changes(subscriber)
        assert agent.poll() is None
        hog.unlink()
        more_changes(subscriber)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(60) == 0
        with Outbox(disk / "state" / "events.db") as outbox:
            assert (outbox.damaged, outbox.depth) == (None, 0)


@needs_time
def test_a_state_folder_that_is_read_only_is_told_at_the_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        remount(disk, "ro")
        with run(tmp_path, events={"dir": str(disk / "state")}) as agent:
            assert agent.wait(120) == 78
    said = (tmp_path / "agent.log").read_text().splitlines()[-1]
    assert "Read-only file system" in said and "events.dir" in said, said


@needs_mosquitto
@needs_time
@pytest.mark.slow
def test_without_memory_it_goes_on_or_ends_and_the_next_run_delivers(tmp_path: Path, broker: LocalBroker) -> None:
    """From one moment on it gets not a page more."""
    mqtt = {"url": broker.url}
    with Subscriber(broker.port) as subscriber:
        with run(tmp_path, mqtt=mqtt) as agent:
            until(lambda: changes(subscriber), "a change")
            pages = int(Path(f"/proc/{agent.pid}/statm").read_text().split()[0])
            resource.prlimit(agent.pid, resource.RLIMIT_AS, (pages * resource.getpagesize(),) * 2)
            try:
                assert agent.wait(12) not in (0, 2, 78), "systemd would leave it alone then"
            except Exception as error:  # it goes on
                assert type(error).__name__ == "TimeoutExpired", error
                agent.kill()
        with run(tmp_path, mqtt=mqtt, log="next.log") as agent:
            more_changes(subscriber)
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(60) == 0
        with sqlite3.connect(tmp_path / "state/events.db") as database:
            (last,) = database.execute("SELECT seq FROM camera WHERE name = 'front'").fetchone()
        kinds = ("change", "health", "alert")  # a camera that gets no memory may be lost for a while
        told = lambda: {m.document["seq"] for kind in kinds for m in subscriber.on(f"{BASE}/front/{kind}")}  # noqa: E731
        until(lambda: told() >= set(range(1, last + 1)), "every telling")


@needs_mosquitto
@needs_time
@pytest.mark.slow
def test_a_model_that_is_replaced_under_it_is_not_looked_at_until_the_next_start(
    tmp_path: Path, broker: LocalBroker
) -> None:
    model = tmp_path / "model"
    shutil.copytree(ROOT / "engines/reference/model", model)
    with Subscriber(broker.port) as subscriber, run(tmp_path, model=str(model), mqtt={"url": broker.url}) as agent:
        until(lambda: changes(subscriber), "a change")
        for file in list(model.iterdir()):
            halved = file.with_suffix(".half")
            halved.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
            halved.replace(file)
        more_changes(subscriber)
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(60) == 0
    with run(tmp_path, model=str(model), log="next.log") as agent:
        assert agent.wait(120) == 78
    assert str(model) in (tmp_path / "next.log").read_text().splitlines()[-1]


@needs_mosquitto
@needs_time
@pytest.mark.slow
def test_weights_that_are_cut_in_place_end_it_so_that_it_is_started_again(tmp_path: Path, broker: LocalBroker) -> None:
    """ONNX Runtime maps what it has not repacked; a map of a file that became shorter kills whoever reads it."""
    model = tmp_path / "model"
    shutil.copytree(ROOT / "engines/reference/model", model)
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    mqtt = {"url": broker.url}
    with Subscriber(broker.port) as subscriber:
        with run(tmp_path, model=str(model), mqtt=mqtt) as agent:
            until(lambda: changes(subscriber), "a change")
            os.truncate(weights, 0)
            until(lambda: agent.poll() is not None, "the end")
            assert agent.returncode == -signal.SIGBUS, "systemd starts it again, as after any signal"
        weights.write_bytes(whole)
        with run(tmp_path, model=str(model), mqtt=mqtt, log="next.log"):
            more_changes(subscriber)


@settings(max_examples=25)
@given(st.lists(st.one_of(st.floats(-4e8, 4e8), st.just("restart"), st.just("send")), max_size=12))
def test_a_clock_that_jumps_loses_and_reorders_nothing(steps: list[float | str]) -> None:
    """Wall time jumps by up to twelve years each way between any two events, and over restarts."""
    wall, passed = [1.7e9], [0.0]
    with memory_folder() as folder:
        told, sent = 0, []

        def opened() -> Outbox:
            return Outbox(folder / "o.db", clock=lambda: wall[0], monotonic=lambda: passed[0])

        outbox = opened()
        for step in [*steps, "restart", "send"]:
            passed[0] += 1
            if isinstance(step, float):
                wall[0] = max(0.0, wall[0] + step)
                with EventBook("box", outbox, topic_of=lambda _: "t") as book:
                    book.publish(Anomaly(camera="front", score=1.0, severity=Severity.HIGH))
                    assert book.flush(20)
                told += 1
            elif step == "restart":
                outbox.close()
                outbox = opened()
            else:
                waiting = outbox.pending(100)
                assert all(stored.age_s >= 0 for stored in waiting)
                sent += [stored.document["seq"] for stored in waiting]
                outbox.delivered([stored.row for stored in waiting])
        outbox.close()
        assert sent == list(range(1, told + 1))


def test_a_thousand_starts_keep_what_was_told() -> None:
    """The parts of a start that touch the state folder."""
    with memory_folder() as folder:
        for number in range(1, 1001):
            lock, outbox = StateLock(folder), Outbox(folder / "events.db")
            stateformat.prepare(folder)
            journal = Journal(folder / "config")
            journal.begin()
            with EventBook("box", outbox, topic_of=lambda _: "t") as book:
                book.publish(Anomaly(camera="front", score=1.0, severity=Severity.HIGH))
                assert book.flush(20)
            assert (outbox.depth, journal.interrupted) == (number, None)
            outbox.close()
            lock.close()
        with Outbox(folder / "events.db") as outbox:
            assert [stored.document["seq"] for stored in outbox.pending(2000)] == list(range(1, 1001))
        assert len(list(folder.rglob("*"))) < 20, "nothing piles up"


@needs_mosquitto
@pytest.mark.slow
@pytest.mark.timeout(60 + 30 * RESTARTS)
def test_starting_again_and_again_it_is_the_same_box_and_loses_nothing(tmp_path: Path, broker: LocalBroker) -> None:
    """Killed and ended in order by turns, once it is on the broker."""
    cameras = {"front": {"source": CUTTING}, "gone": {"source": "http://127.0.0.1:9/none"}}
    with Subscriber(broker.port) as subscriber:
        for number in range(RESTARTS):
            before = len(subscriber.on(f"{BASE}/gone/health"))
            with run(tmp_path, mqtt={"url": broker.url}, cameras=cameras) as agent:
                until(lambda n=before: len(subscriber.on(f"{BASE}/gone/health")) > n, f"start {number}")  # type: ignore[misc]
                agent.send_signal(signal.SIGTERM if number % 2 else signal.SIGKILL)
                assert agent.wait(60) == (0 if number % 2 else -signal.SIGKILL)
        with run(tmp_path, mqtt={"url": broker.url}, cameras=cameras) as agent:
            until(lambda: subscriber.last(f"{BASE}/availability") == "online", "the last start")
            until(lambda: _waiting(tmp_path) == 0, "all that waited")
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(60) == 0
        with sqlite3.connect(tmp_path / "state/events.db") as database:
            (last,) = database.execute("SELECT seq FROM camera WHERE name = 'gone'").fetchone()
        health = lambda: {m.document["seq"] for m in subscriber.on(f"{BASE}/gone/health")}  # noqa: E731
        until(lambda: health() >= set(range(1, last + 1)), "every telling")


def _waiting(folder: Path) -> int:
    with sqlite3.connect(f"file:{folder / 'state/events.db'}?mode=ro", uri=True) as database:
        return int(database.execute("SELECT count(*) FROM event WHERE state = 0").fetchone()[0])
