"""The state folder: its format, what can be forgotten, taken away, and what `self-check` says of it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tarfile
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.applying.journal import Journal
from agent.events.book import EventBook
from agent.events.lock import StateLock
from agent.events.model import Anomaly
from agent.events.outbox import SCHEMA_VERSION, Outbox
from agent.mqtt.topics import Topics
from agent.service import keeping, stateformat
from config.errors import ConfigError

ROOT = Path(__file__).parents[1]
CONFIG = "cameras: {front: {source: 'scene:street'}}\nevents: {dir: %s}\n"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def stillwatch(*arguments: object, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder with an event, a clip and a baseline."""
    folder = tmp_path / "state"
    with StateLock(folder):
        stateformat.prepare(folder)
        with (
            Outbox(folder / "events.db") as outbox,
            EventBook("box", outbox, topic_of=Topics("stillwatch", "box").event) as book,
        ):
            book.publish(Anomaly(camera="front", frame_ts=datetime.now(timezone.utc)))
            assert book.flush(30)
    for name in ("clips/high/a.mp4", "baselines/front.npz", "device-id", "config/committed.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * 100)
    return folder


def test_a_new_folder_has_the_current_format_and_an_older_one_is_brought_to_it(tmp_path: Path) -> None:
    with StateLock(tmp_path / "new"):
        assert stateformat.prepare(tmp_path / "new") == stateformat.FORMAT
    (tmp_path / "old").mkdir()
    (tmp_path / "old/events.db").touch()
    assert stateformat.prepare(tmp_path / "old") == 0
    assert stateformat.found_format(tmp_path / "old") == stateformat.FORMAT


def test_steps_are_taken_in_order_and_one_that_was_interrupted_is_taken_again(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("0")
    done: list[int] = []

    def step(number: int, fails: bool = False) -> stateformat.Step:
        def take(folder: Path) -> None:
            done.append(number)
            if fails:
                raise OSError(28, "No space left on device")
            (folder / "kept").write_text(str(number + 1))

        return take

    with pytest.raises(ConfigError, match="can't be brought to format 4: No space"):
        stateformat.prepare(tmp_path, steps={0: step(0), 2: step(2, fails=True)}, current=4)
    assert stateformat.found_format(tmp_path) == 2
    stateformat.prepare(tmp_path, steps={0: step(0), 2: step(2), 3: step(3)}, current=4)
    assert done == [0, 2, 2, 3] and (tmp_path / "kept").read_text() == "4"
    stateformat.prepare(tmp_path, steps={3: step(3)}, current=4)
    assert done == [0, 2, 2, 3]


def test_a_folder_of_a_newer_version_is_refused_and_left_as_it_is(state: Path) -> None:
    (state / stateformat.NAME).write_text('{"format": 99, "version": "9.0"}')
    before = tree(state)
    with pytest.raises(ConfigError, match=r"has format 99, this version .* reads up to"):
        stateformat.prepare(state)
    assert tree(state) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "1"}', '{"format": true}', '{"format": -1}'])
def test_a_format_that_can_t_be_read_is_not_guessed(tmp_path: Path, text: str) -> None:
    (tmp_path / stateformat.NAME).write_text(text)
    with pytest.raises(ConfigError, match="expected"):
        stateformat.prepare(tmp_path)
    assert (tmp_path / stateformat.NAME).read_text() == text


def test_an_agent_does_not_start_on_a_folder_of_a_newer_version(state: Path) -> None:
    (state / stateformat.NAME).write_text('{"format": 99}')
    said = stillwatch("run", "--source", "scene:street", "--state", state, "--seconds", 1, status=78)
    assert "has format 99" in said


def test_reset_forgets_what_was_named_and_nothing_else(state: Path) -> None:
    assert "nothing was done: add --yes" in stillwatch("state", "reset", "--state", state, "--learned", status=1)
    assert (state / "baselines").exists()
    assert "say what" in stillwatch("state", "reset", "--state", state, "--yes", status=2)
    stillwatch("state", "reset", "--state", state, "--learned", "--yes")
    assert not (state / "baselines").exists() and (state / "clips/high/a.mp4").exists()
    stillwatch("state", "reset", "--state", state, "--events", "--yes")
    assert set(tree(state)) == {"config/committed.json", "device-id", "lock", stateformat.NAME}


def test_what_an_agent_uses_is_not_taken_from_under_it(state: Path) -> None:
    before = tree(state)
    with StateLock(state):
        assert "uses this folder" in stillwatch("state", "delete", "--state", state, "--yes", status=78)
        held = tree(state)
    assert held.keys() == before.keys()


def test_delete_leaves_what_is_not_the_agent_s(state: Path) -> None:
    (state / "notes.txt").write_text("mine")
    assert "left: notes.txt" in stillwatch("state", "delete", "--state", state, "--yes")
    assert set(tree(state)) == {"notes.txt"}


def test_a_folder_of_somebody_else_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with pytest.raises(ConfigError, match="expected a state folder"):
        keeping.delete(tmp_path)
    assert (tmp_path / "clips").exists()


def test_delete_knows_everything_that_an_agent_writes(tmp_path: Path) -> None:
    source = "scene:street?seed=2&camera=cut&fps=5&width=320&height=180&seconds=8"
    stillwatch("run", "--source", source, "--state", tmp_path / "state", "--events-to", tmp_path / "events")
    assert (tmp_path / "state/events.db").exists()
    assert "left" not in stillwatch("state", "delete", "--state", tmp_path / "state", "--yes")
    assert not (tmp_path / "state").exists()


def test_an_export_holds_events_as_they_are_while_the_agent_runs(state: Path, tmp_path: Path) -> None:
    with StateLock(state), Outbox(state / "events.db"):
        stillwatch("state", "export", tmp_path / "kept.tar.gz", "--state", state)
        stillwatch("state", "export", tmp_path / "all.tar.gz", "--state", state, "--media")
    with tarfile.open(tmp_path / "all.tar.gz") as archive:
        assert "clips/high/a.mp4" in archive.getnames()
    with tarfile.open(tmp_path / "kept.tar.gz") as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "copy", filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(
            tmp_path / "copy"
        )
    assert "lock" not in names and "clips" not in names and "baselines/front.npz" in names
    assert stateformat.check(tmp_path / "copy") == stateformat.FORMAT
    with Outbox(tmp_path / "copy/events.db") as outbox:
        assert outbox.depth == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_export_tells_nobody_the_passwords_of_cameras(state: Path, tmp_path: Path) -> None:
    text = "cameras: {front: {source: 'rtsp://admin:hunter2@camera/1'}}\n"
    journal = Journal(state / "config")
    for number in (1, 2):
        journal.adopt(text + f"# {number}\n")
    journal.stage(journal.committed.model_copy(update={"text": text, "overlay": {"profile": "security"}}))
    (state / "config/outcome.json.damaged").write_text(text)
    assert sum(b"hunter2" in whole for whole in tree(state).values()) == 4
    keeping.export(state, tmp_path / "kept.tar.gz", media=False)
    assert (tmp_path / "kept.tar.gz").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "kept.tar.gz") as archive:
        contents = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        read = {name: file.read() for name, file in contents.items() if file is not None}
    assert not [name for name, whole in read.items() if b"hunter2" in whole]
    assert {"config/committed.json", "config/candidate.json"} <= read.keys()
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/committed.json").write_bytes(read["config/committed.json"])
    assert Journal(tmp_path / "copy").committed.number == 2


def test_self_check_says_what_is_good_and_what_is_not(state: Path, tmp_path: Path) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text(CONFIG % state)
    before = tree(state)
    report = json.loads(stillwatch("self-check", "--config", config, "--json"))
    assert report["passed"] and [c["name"] for c in report["checks"]] == ["packages", "configuration", "state", "model"]
    assert tree(state) == before
    (state / stateformat.NAME).write_text('{"format": 99}')
    said = stillwatch("self-check", "--config", config, status=78)
    assert "bad   state: " in said and "has format 99" in said and "good  model" in said
    config.write_text("cameras: {front: {sauce: x}}\n")
    assert "bad   configuration" in stillwatch("self-check", "--config", config, status=78)


@pytest.mark.parametrize("harm", ["newer", "damaged"])
def test_self_check_looks_into_the_outbox(state: Path, tmp_path: Path, harm: str) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text(CONFIG % state)
    if harm == "newer":
        with sqlite3.connect(state / "events.db") as db:
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        db.close()
    else:
        with (state / "events.db").open("r+b") as file:
            file.seek(4096)
            file.write(bytes([165]) * 8192)
    said = stillwatch("self-check", "--config", config, status=78 if harm == "newer" else 1)
    assert "bad   state" in said
