"""The book: what is told comes out numbered, whole and in order, and the teller never waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from mqtt_world import until
from pydantic import ValidationError

from agent.events.book import EventBook
from agent.events.model import Anomaly, AnyEvent, Condition, EventType, Health, Media, SemanticChange
from agent.events.outbox import Outbox
from agent.events.sinks import NdjsonSink
from config.errors import ConfigError


def topic_of(event: AnyEvent) -> str:
    return f"stillwatch/box/{event.camera}/{event.kind}"


def told(outbox: Outbox) -> list[dict[str, Any]]:
    return [stored.document for stored in outbox.pending(10_000)]


def test_an_event_is_told_whole_each_time_under_one_id(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db") as outbox, EventBook("box", outbox, topic_of=topic_of) as book:
        name = book.publish(Anomaly(camera="front", score=0.9, regions=((4, 5, 6, 7),), pending=("text",)))
        other = book.publish(SemanticChange(camera="front", distance=0.4))
        assert book.update(name, text="A person climbs the fence.", pending=(), regions=((1, 2, 3, 4), (4, 5, 6, 7)))
        assert book.update(name, end=True)
        assert not book.update("unknown", text="?")
        with pytest.raises(ValidationError, match="colour"):
            book.update(other, colour="red")
        assert book.flush(60)
        new, _, update, end = told(outbox)
        assert book.update(name, text="Words that came late.") and book.flush(60)
        assert (told(outbox)[-1]["type"], told(outbox)[-1]["text"]) == ("end", "Words that came late.")
    assert [d["seq"] for d in (new, update, end)] == [1, 3, 4]
    assert {d["id"] for d in (new, update, end)} == {name}
    assert [d["type"] for d in (new, update, end)] == ["new", "update", "end"]
    assert (new["pending"], new["region"]) == (["text"], [4, 5, 6, 7])
    assert (end["text"], end["region"], end["score"]) == ("A person climbs the fence.", [1, 2, 3, 4], 0.9)


def test_many_tellers_keep_the_order_of_each_camera(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db") as outbox, EventBook("box", outbox, topic_of=topic_of) as book:
        ids: dict[str, list[str]] = {"a": [], "b": []}

        def tell(camera: str) -> None:
            for _ in range(50):
                ids[camera].append(book.publish(SemanticChange(camera=camera, distance=0.1)))

        threads = [threading.Thread(target=tell, args=(camera,)) for camera in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert book.flush(20)
        for camera, expected in ids.items():
            assert [d["id"] for d in told(outbox) if d["camera"] == camera] == expected


def test_parts_come_one_by_one_and_what_is_late_is_given_up(tmp_path: Path) -> None:
    now = [100.0]
    with (
        Outbox(tmp_path / "o.db") as outbox,
        EventBook("b", outbox, topic_of=topic_of, monotonic=lambda: now[0]) as book,
    ):
        pending = ("text", "snapshot", "clip")
        name = book.publish(Anomaly(camera="front", pending=pending), within={"text": 60, "snapshot": 5, "clip": 20})
        book.update(name, done=("snapshot",), media=Media(snapshot="snapshots/1.jpg"))
        now[0] += 30
        until(lambda: book.flush(1) and len(told(outbox)) == 3, "the clip's deadline")
        book.update(name, end=True)
        book.update(name, done=("clip",), media=Media(clip="clips/1.mp4", clip_at_s=5.0))
        book.settle("the agent has stopped")
        assert book.flush(60)
        documents = told(outbox)
    assert [d["pending"] for d in documents] == [list(pending), ["text", "clip"], ["text"], ["text"], ["text"], []]
    late = "no clip: it took longer than 20 s"
    assert [d["degraded"] for d in documents[2:5]] == [[late], [late], []], "it came after all"
    assert documents[-1]["degraded"] == ["no text: the agent has stopped"]
    assert documents[-1]["media"]["snapshot"] == "snapshots/1.jpg" and documents[-1]["media"]["clip"] == "clips/1.mp4"
    assert documents[3]["type"] == "end" and documents[3]["duration_s"] >= 0


class Gate:
    """A sink that stands still, as a hanging disk would, until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()

    def append(self, topic: str, event: AnyEvent) -> None:
        self.entered.set()
        self.open.wait(30)

    def close(self) -> None: ...


def test_when_the_disk_hangs_the_teller_goes_on_and_losses_are_counted(tmp_path: Path) -> None:
    gate = Gate()
    with Outbox(tmp_path / "o.db") as outbox:
        book = EventBook("box", outbox, topic_of=topic_of, sinks=[gate], capacity=10)
        first = book.publish(Anomaly(camera="front"))
        assert gate.entered.wait(60)
        for _ in range(15):
            book.publish(Anomaly(camera="front"))
        assert book.dropped == {"queue": 5}
        assert not book.update(first, text="words"), "a telling that was dropped is not called told"
        assert not book.flush(0.01)
        gate.open.set()
        assert book.close(20)
        documents = told(outbox)
        book.publish(Anomaly(camera="front"))
        assert book.dropped == {"queue": 7}, "closed"
    assert len(documents) == 11


def test_what_goes_wrong_while_parts_are_given_up_does_not_end_the_telling(tmp_path: Path) -> None:
    now, wrong = [0.0], threading.Event()

    def clock() -> float:
        if now[0] and not wrong.is_set():
            wrong.set()
            raise OSError("no clock")
        return now[0]

    with Outbox(tmp_path / "o.db") as outbox, EventBook("b", outbox, topic_of=topic_of, monotonic=clock) as book:
        book.publish(Anomaly(camera="front", pending=("clip",)), within={"clip": 1.0})
        now[0] = 5.0
        assert wrong.wait(60)
        until(lambda: len(told(outbox)) == 2, "the update")
        assert told(outbox)[-1]["pending"] == []


def test_a_disk_that_refuses_costs_the_keeping_not_the_telling(tmp_path: Path) -> None:
    seen: list[AnyEvent] = []

    class Screen:
        def append(self, topic: str, event: AnyEvent) -> None:
            seen.append(event)

        def close(self) -> None: ...

    outbox = Outbox(tmp_path / "o.db")
    with EventBook("box", outbox, topic_of=topic_of, sinks=[Screen()]) as book:
        outbox.close()  # every write fails from here on
        book.publish(Anomaly(camera="front"))
        assert book.flush(60)
        assert book.dropped == {"disk": 1} and "can't be kept" in str(book.trouble)
    assert seen[0].seq == 0 and "not kept" in seen[0].degraded[0]


def test_what_a_crash_left_open_is_ended(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db") as outbox, EventBook("box", outbox, topic_of=topic_of) as book:
        lost = book.publish(Health(camera="front", condition=Condition.LOST))
        book.publish(SemanticChange(camera="front", distance=1.0))
        clipless = book.publish(Anomaly(camera="front", pending=("clip",)))
        book.update(clipless, end=True)
    with Outbox(tmp_path / "o.db") as outbox, EventBook("box", outbox, topic_of=topic_of) as book:
        assert book.end_interrupted() == 2
        assert book.flush(60)
        ended, given_up = told(outbox)[-2:]
        assert (ended["id"], ended["type"], ended["condition"], ended["seq"]) == (lost, EventType.END.value, "lost", 5)
        assert (given_up["id"], given_up["type"], given_up["pending"]) == (clipless, EventType.END.value, [])
        assert given_up["degraded"] == ["no clip: the agent was stopped"]
    with Outbox(tmp_path / "o.db") as outbox, EventBook("box", outbox, topic_of=topic_of) as book:
        assert book.end_interrupted() == 0


def test_ndjson_is_the_document_plus_its_topic(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "events.ndjson"
    path.parent.mkdir()
    path.write_text('{"cut short by a cra')
    with (
        Outbox(tmp_path / "o.db") as outbox,
        NdjsonSink(str(path)) as sink,
        EventBook("box", outbox, topic_of=topic_of, sinks=[sink]) as book,
    ):
        book.publish(SemanticChange(camera="front", distance=0.3, after_text="Zwei Männer\nund ein Hund"))
        assert book.flush(60)
        (kept,) = told(outbox)
    _, line, end = path.read_text(encoding="utf-8").split("\n")
    assert json.loads(line) == {**kept, "topic": "stillwatch/box/front/semantic_change"}
    assert end == ""


def test_a_file_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't write events"):
        NdjsonSink(str(tmp_path))


def test_a_reader_who_leaves_does_not_end_the_agent() -> None:
    program = (
        "from agent.events.sinks import NdjsonSink\n"
        "from agent.events.model import Anomaly, EventType, event\n"
        "from datetime import datetime, timezone\n"
        "import sys\n"
        "e = event(Anomaly(camera='c', text='x' * 5000), event_id='i', type=EventType.NEW,\n"
        "          ts=datetime.now(timezone.utc), device='d')\n"
        "sink = NdjsonSink('-')\n"
        "for _ in range(200): sink.append('t', e)\n"
        "sys.exit(0 if sink.broken else 3)\n"
    )
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    ) as child:
        os.close(writer)
        os.read(reader, 10)
        os.close(reader)
        _, complaints = child.communicate(timeout=60)
    assert child.returncode == 0
    assert b"BrokenPipeError" not in complaints
