"""The outbox never loses, never reorders, and stays within its bounds."""

from __future__ import annotations

import ast
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

import pytest
from events_memory import memory_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.events import outbox as outbox_module
from agent.events.lock import StateLock
from agent.events.model import AnyEvent, EventType, SemanticChange, Severity, event, new_id
from agent.events.outbox import Outbox
from config.errors import ConfigError

CAMERAS = ("front", "yard")


def telling(
    camera: str = "front", *, severity: Severity = Severity.INFO, text: str = "", type: EventType = EventType.NEW
) -> AnyEvent:
    news = SemanticChange(camera=camera, distance=0.5, severity=severity, text=text)
    return event(news, event_id=new_id(), type=type, ts=datetime.now(timezone.utc), device="box")


class OutboxMachine(RuleBasedStateMachine):
    """Any order of appending, delivering, refusing, pruning and reopening, against a list."""

    @initialize()
    def begin(self) -> None:
        self.files = ExitStack()
        self.folder = self.files.enter_context(memory_folder())
        self.now = 1_000_000.0
        self.outbox = self.open()
        self.waiting: list[AnyEvent] = []
        self.last_seq = dict.fromkeys(CAMERAS, 0)
        self.set_aside = 0

    def open(self) -> Outbox:
        return Outbox(self.folder / "outbox.db", clock=lambda: self.now, monotonic=lambda: self.now)

    @rule(camera=st.sampled_from(CAMERAS), severity=st.sampled_from(Severity), seconds=st.floats(-50, 100))
    def append(self, camera: str, severity: Severity, seconds: float) -> None:
        self.now += seconds
        kept = self.outbox.append(telling(camera, severity=severity), f"{camera}/change")
        assert kept.seq == self.last_seq[camera] + 1
        self.last_seq[camera] = kept.seq
        self.waiting.append(kept)

    @precondition(lambda self: self.waiting)
    @rule(choice=st.data())
    def deliver(self, choice: st.DataObject) -> None:
        stored = self.outbox.pending(100)
        rows = choice.draw(st.lists(st.sampled_from(range(len(stored))), max_size=4, unique=True))
        self.outbox.delivered([stored[i].row for i in rows] * 2)
        self.waiting = [kept for i, kept in enumerate(self.waiting) if i not in rows]

    @precondition(lambda self: self.waiting)
    @rule(choice=st.data())
    def give_up_on_one(self, choice: st.DataObject) -> None:
        i = choice.draw(st.integers(0, len(self.waiting) - 1))
        row = self.outbox.pending(100)[i].row
        self.outbox.quarantine(row, "no")
        del self.waiting[i]
        self.set_aside += 1

    @rule(days=st.floats(0, 1e-3))
    def prune(self, days: float) -> None:
        self.outbox.prune(days)

    @rule()
    def reopen(self) -> None:
        self.outbox.close()
        self.outbox = self.open()
        assert all(stored.earlier_run for stored in self.outbox.pending(1))

    @invariant()
    def nothing_is_lost_or_reordered(self) -> None:
        found = [(s.document["id"], s.document["seq"], s.camera) for s in self.outbox.pending(10_000)]
        assert found == [(kept.id, kept.seq, kept.camera) for kept in self.waiting]
        assert self.outbox.depth == len(self.waiting)
        assert self.outbox.dropped.get("refused", 0) == self.set_aside

    def teardown(self) -> None:
        self.outbox.close()
        self.files.close()


OutboxMachine.TestCase.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
test_any_order_of_use = OutboxMachine.TestCase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def test_a_full_outbox_forgets_history_first_then_the_least_severe_and_oldest(path: Path) -> None:
    filler = "x" * 2000
    with Outbox(path, max_bytes=60_000) as outbox:
        for _ in range(5):
            outbox.append(telling(text=filler), "t")
        outbox.delivered([stored.row for stored in outbox.pending(5)])
        high = [outbox.append(telling(text=filler, severity=Severity.HIGH), "t").seq for _ in range(5)]
        assert outbox.dropped == {}
        low = [outbox.append(telling(text=filler, severity=Severity.LOW), "t").seq for _ in range(40)]
        kept = [stored.document["seq"] for stored in outbox.pending(100)]
        dropped = outbox.dropped["full"]
    assert kept == high + low[dropped:]
    assert sum(len(filler) for _ in kept) < 60_000
    with Outbox(path) as again:
        assert again.dropped["full"] == dropped, "the count outlives the run"
        assert again.depth == len(kept)


def test_a_severe_event_pushes_out_milder_ones_of_other_cameras(path: Path) -> None:
    with Outbox(path, max_bytes=20_000) as outbox:
        for _ in range(30):
            outbox.append(telling("yard", text="y" * 1000), "t")
        for _ in range(10):
            outbox.append(telling("front", text="f" * 1000, severity=Severity.HIGH), "t")
        cameras = [stored.camera for stored in outbox.pending(100)]
    assert cameras.count("front") == 10


def test_seq_rises_over_runs_even_when_all_history_is_gone(path: Path) -> None:
    now = 1000.0
    with Outbox(path, clock=lambda: now) as outbox:
        outbox.delivered([outbox.pending(1)[0].row for _ in [outbox.append(telling(), "t")]])
        now += 10 * 86400
        assert outbox.prune(days=9) == 1
    with Outbox(path) as outbox:
        assert outbox.append(telling(), "t").seq == 2


def test_age_is_told_by_the_monotonic_clock_within_a_run(path: Path) -> None:
    clock, monotonic = [5000.0], [10.0]
    with Outbox(path, clock=lambda: clock[0], monotonic=lambda: monotonic[0]) as outbox:
        outbox.append(telling(), "t")
        clock[0] += 1e9  # somebody set the clock
        monotonic[0] += 3.0
        assert outbox.pending(1)[0].age_s == pytest.approx(3.0)
        clock[0] = 5060.0
    with Outbox(path, clock=lambda: clock[0], monotonic=lambda: 0.0) as outbox:
        assert outbox.pending(1)[0].age_s == pytest.approx(60.0)


def test_threads_share_it_without_gaps(path: Path) -> None:
    with Outbox(path) as outbox:
        threads = [
            threading.Thread(target=lambda camera=c: [outbox.append(telling(camera), "t") for _ in range(20)])  # type: ignore[misc]
            for c in (*CAMERAS, *CAMERAS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for camera in CAMERAS:
            seqs = [s.document["seq"] for s in outbox.pending(1000) if s.camera == camera]
            assert seqs == list(range(1, 41))


def test_held_topics_and_cameras_are_passed_over(path: Path) -> None:
    with Outbox(path) as outbox:
        for camera, topic in (("front", "a"), ("yard", "b"), ("front", "b"), ("yard", "a")):
            outbox.append(telling(camera), topic)
        assert [s.row for s in outbox.pending(9, skip_topics=["a"])] == [2, 3]
        assert [s.row for s in outbox.pending(9, skip_cameras=["front"], after=2)] == [4]


def test_only_unfinished_events_of_an_earlier_run_count_as_interrupted(path: Path) -> None:
    begun, ended = telling(), telling()
    with Outbox(path) as outbox:
        outbox.append(begun, "t")
        outbox.append(ended, "t")
        outbox.append(ended.model_copy(update={"type": EventType.END}), "t")
        assert outbox.interrupted(["semantic_change"]) == []
    with Outbox(path) as outbox:
        outbox.append(telling(), "t")
        assert [document["id"] for document in outbox.interrupted(["semantic_change"])] == [begun.id]
        assert outbox.interrupted(["anomaly"]) == []


def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    Outbox(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="format 99"):
        Outbox(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["header", "middle"])
def test_a_damaged_file_is_set_aside_and_numbering_goes_on_above_it(path: Path, damage: str) -> None:
    with Outbox(path) as outbox:
        for _ in range(50):
            outbox.append(telling(text="z" * 500), "t")
    written = bytearray(path.read_bytes())
    start = 0 if damage == "header" else 4096
    written[start : start + 4096] = b"\xff" * 4096
    path.write_bytes(written)
    with Outbox(path) as outbox:
        assert outbox.damaged is not None and outbox.depth == 0
        assert outbox.append(telling(), "t").seq > 50
    assert list(path.parent.glob("outbox.db.damaged-*"))


def test_a_folder_that_cannot_hold_it_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"events\.dir"):
        Outbox(tmp_path / "file" / "outbox.db")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Eight megabytes that can really be full."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(tmp_path)], capture_output=True)
    if done.returncode:
        pytest.skip("a small file system to fill needs the right to mount one")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_disk_filled_by_others_does_not_stop_alerts(small_disk: Path) -> None:
    with Outbox(small_disk / "outbox.db") as outbox:
        with (small_disk / "hog").open("wb", buffering=0) as hog:
            try:
                while hog.write(b"\0" * 4096) == 4096:
                    pass
            except OSError:
                pass
        for _ in range(1500):
            outbox.append(telling(severity=Severity.MEDIUM, text="m" * 500), "t")
        last = outbox.append(telling(severity=Severity.HIGH), "t")
        kept = outbox.pending(10_000)
        assert kept[-1].document["id"] == last.id
        assert len(kept) + outbox.dropped.get("full", 0) == 1501
        assert len(kept) > 300, "the space set aside was used"


def test_one_agent_a_folder(tmp_path: Path) -> None:
    first = StateLock(tmp_path)
    with pytest.raises(ConfigError, match="another agent"):
        StateLock(tmp_path)
    first.close()
    StateLock(tmp_path).close()


@settings(max_examples=15)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 16)), min_size=2, max_size=8), st.binary(max_size=40))
def test_a_power_cut_takes_nothing_that_was_accepted(steps: list[tuple[bool, int]], rubbish: bytes) -> None:
    """What is on the disk when the power goes: all up to the last sync, and any part of what was written since."""
    with memory_folder() as folder:
        database, journal = folder / "o.db", folder / "o.db-wal"
        accepted: list[str] = []
        before = (b"", b"")
        with Outbox(database) as outbox:
            for deliver, cut in steps:
                after = outbox.append(telling(text="t" * 300), "t")
                now = (database.read_bytes(), journal.read_bytes())
                if before[0] == now[0]:  # else the log was copied into the file, after a sync of its own
                    check_after_power_cut(now[0], now[1][:cut] + before[1][cut:], accepted)
                    check_after_power_cut(now[0], now[1][: max(cut, len(before[1]))] + rubbish, accepted)
                accepted.append(after.id)
                check_after_power_cut(*now, accepted)
                if deliver:
                    outbox.delivered([outbox.pending(1)[0].row])
                    accepted.pop(0)
                before = (database.read_bytes(), journal.read_bytes())


def check_after_power_cut(database: bytes, journal: bytes, accepted: list[str]) -> None:
    with memory_folder() as folder:
        (folder / "o.db").write_bytes(database)
        (folder / "o.db-wal").write_bytes(journal)
        with Outbox(folder / "o.db") as outbox:
            assert outbox.damaged is None
            waiting = [stored.document["id"] for stored in outbox.pending(100)]
        assert [event_id for event_id in waiting if event_id in accepted] == accepted
        assert len(waiting) <= len(accepted) + 2, (
            "the one that was being accepted, and one whose delivery was not noted"
        )


def test_nothing_accepted_is_lost_whenever_the_agent_is_killed() -> None:
    with memory_folder() as folder:
        check_crashes(folder)


def database_calls(*, but_not_in: tuple[str, ...]) -> set[int]:
    """The lines of the outbox's code that speak to the database."""
    tree = ast.parse(Path(str(outbox_module.__file__)).read_text())
    found = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if function.name not in but_not_in:
            calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
            named = ((call.func, call.lineno) for call in calls)
            found |= {n for f, n in named if isinstance(f, ast.Attribute) and f.attr in ("execute", "executemany")}
    return found


def check_crashes(folder: Path) -> None:
    program = Path(__file__).with_name("events_crashing.py")
    root = str(program.parents[1])
    done = subprocess.run(
        [sys.executable, str(program), str(folder), "7"],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60, "killed at each of its statements"
    died_at = {int(line) for line in (folder / "sites").read_text().split()}
    rolled_back_or_scarce = ("_watch_disk", "_transaction")  # begin and commit of every transaction are counted beside
    assert database_calls(but_not_in=rolled_back_or_scarce) <= died_at
    for notes in folder.rglob("notes"):
        check_notes(notes.parent, full="small" in str(notes))


def check_notes(folder: Path, *, full: bool) -> None:
    """Nothing accepted is lost but by the rules, in order, nothing is invented."""
    lines = [line.split() for line in (folder / "notes").read_text().splitlines()]
    entries = [(word, (event_id, camera, int(seq))) for word, event_id, camera, seq, _ in lines]
    tried = {entry[0] for word, entry in entries if word == "trying"}
    accepted = [entry for word, entry in entries if word == "accepted"]
    settled = {entry[0] for word, entry in entries if word == "settled"}
    high = {event_id for _, event_id, _, _, severity in lines if severity == "high"}
    with Outbox(folder / "outbox.db") as outbox:
        assert outbox.damaged is None
        waiting = [(s.document["id"], s.camera, s.document["seq"]) for s in outbox.pending(1_000_000)]
        dropped = outbox.dropped.get("full", 0)
    missing = [entry for entry in accepted if entry not in waiting and entry[0] not in settled]
    unsure = len(tried) - len(accepted)
    if full:
        assert not [entry for entry in missing if entry[0] in high]
        assert len(missing) <= dropped <= len(missing) + unsure
    else:
        assert not missing
        assert dropped == 0
    assert {entry[0] for entry in waiting} <= tried, "no event was invented"
    promised = {entry[0] for entry in accepted}
    assert [e for e in waiting if e[0] in promised] == [e for e in accepted if e in waiting], (
        "in the order of acceptance"
    )
    for camera in CAMERAS:
        seqs = [seq for _, c, seq in waiting if c == camera]
        assert seqs == sorted(set(seqs))
