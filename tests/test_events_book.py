"""The book: what is told comes out numbered, whole and in order, and the teller never waits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from agent.events.book import EventBook
from agent.events.media import prune_media, save_snapshot
from agent.events.model import Anomaly, AnyEvent, Condition, EventType, Health, SemanticChange
from agent.events.outbox import Outbox
from agent.events.sinks import NdjsonSink
from config.errors import ConfigError


def topic_of(event: AnyEvent) -> str:
    return f"stillwatch/box/{event.camera}/{event.kind}"


def told(outbox: Outbox) -> list[dict[str, object]]:
    return [stored.document for stored in outbox.pending(10_000)]


def picture() -> np.ndarray:
    return np.full((120, 160, 3), 90, np.uint8)


def test_an_event_is_told_whole_each_time_under_one_id(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db") as outbox, EventBook("box", outbox, topic_of=topic_of) as book:
        name = book.publish(Anomaly(camera="front", score=0.9, regions=((4, 5, 6, 7),), pending=("text",)))
        other = book.publish(SemanticChange(camera="front", distance=0.4))
        assert book.update(name, text="A person climbs the fence.", pending=(), regions=((1, 2, 3, 4), (4, 5, 6, 7)))
        assert book.update(name, end=True)
        assert not book.update("unknown", text="?")
        with pytest.raises(ValidationError, match="colour"):
            book.update(other, colour="red")
        assert book.flush(10)
        new, _, update, end = told(outbox)
        assert book.update(name, text="Words that came late.") and book.flush(10)
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


def test_the_snapshot_is_there_when_the_event_is(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db") as outbox, EventBook("box", outbox, topic_of=topic_of, folder=tmp_path) as book:
        name = book.publish(Anomaly(camera="front", regions=((20, 30, 40, 50),)), snapshot=picture())
        book.update(name, text="later")
        assert book.flush(10)
        first, second = told(outbox)
    path = tmp_path / first["media"]["snapshot"]  # type: ignore[index]
    seen = cv2.imread(str(path))
    assert seen.shape == (120, 160, 3)
    assert seen[40, 20, 2] > seen[40, 20, 0] + 50, "the region is outlined in red"
    assert abs(int(seen[100, 100].mean()) - 90) < 4
    assert second["media"] == first["media"]
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing half-written stays"


def test_without_room_for_the_picture_the_event_goes_alone_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "snapshots").write_text("a file where the folder should be")
    with Outbox(tmp_path / "o.db") as outbox, EventBook("box", outbox, topic_of=topic_of, folder=tmp_path) as book:
        name = book.publish(Anomaly(camera="front"), snapshot=picture())
        book.update(name, text="later")
        assert book.flush(10)
        for document in told(outbox):
            assert document["media"] == {"snapshot": None}
            assert "no snapshot: " in document["degraded"][0]  # type: ignore[index]


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
        book = EventBook("box", outbox, topic_of=topic_of, sinks=[gate], folder=tmp_path, capacity=10, max_pictures=2)
        book.publish(Anomaly(camera="front"))
        assert gate.entered.wait(10)
        for _ in range(15):
            book.publish(Anomaly(camera="front"), snapshot=picture())
        assert book.dropped == {"queue": 5}
        assert not book.flush(0.01)
        gate.open.set()
        assert book.close(20)
        documents = told(outbox)
        book.publish(Anomaly(camera="front"))
        assert book.dropped == {"queue": 6}, "closed"
    assert len(documents) == 11
    assert sum(d["media"] != {"snapshot": None} for d in documents) == 2
    assert sum(d["degraded"] == ["no snapshot: the disk is behind"] for d in documents) == 8


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
        assert book.flush(10)
        assert book.dropped == {"disk": 1} and "can't be kept" in str(book.trouble)
    assert seen[0].seq == 0 and "not kept" in seen[0].degraded[0]


def test_what_a_crash_left_open_is_ended(tmp_path: Path) -> None:
    with Outbox(tmp_path / "o.db") as outbox, EventBook("box", outbox, topic_of=topic_of) as book:
        lost = book.publish(Health(camera="front", condition=Condition.LOST))
        book.publish(SemanticChange(camera="front", distance=1.0))
        book.update(book.publish(Anomaly(camera="front")), end=True)
    with Outbox(tmp_path / "o.db") as outbox, EventBook("box", outbox, topic_of=topic_of) as book:
        assert book.end_interrupted() == 1
        assert book.flush(10)
        last = told(outbox)[-1]
        assert (last["id"], last["type"], last["condition"], last["seq"]) == (lost, EventType.END.value, "lost", 5)
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
        assert book.flush(10)
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


def test_old_pictures_make_room_for_new_ones(tmp_path: Path) -> None:
    for n in range(6):
        path = tmp_path / save_snapshot(tmp_path, f"{n:02}", picture())
        os.utime(path, (1000.0 + n * 86400, 1000.0 + n * 86400))
    size = path.stat().st_size
    now = 1000.0 + 5 * 86400
    kept: Callable[[], list[str]] = lambda: sorted(p.stem for p in (tmp_path / "snapshots").iterdir())  # noqa: E731
    assert prune_media(tmp_path, days=3.5, max_bytes=10**9, now_s=now) == 2
    assert kept() == ["02", "03", "04", "05"]
    assert prune_media(tmp_path, days=3.5, max_bytes=2 * size, now_s=now) == 2
    assert kept() == ["04", "05"]
