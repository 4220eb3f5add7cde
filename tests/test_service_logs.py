"""Logs to systemd's journal, and what is said again and again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from agent.service.journal import datagram, record
from agent.service.repeated import Repeated

ROOT = Path(__file__).parents[1]


def parse(raw: bytes) -> dict[str, str]:
    """What journald reads in a datagram (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    fields = {}
    while raw:
        line, raw = raw.split(b"\n", 1)
        if b"=" in line:
            name, value = line.split(b"=", 1)
        else:
            name, size = line, int.from_bytes(raw[:8], "little")
            value, raw = raw[8 : 8 + size], raw[9 + size :]
        fields[name.decode()] = value.decode()
    return fields


@given(st.dictionaries(st.sampled_from(["camera", "id", "reason", "retry_s", "1x", "__y", "message"]), st.text()))
def test_a_record_survives_the_wire_whatever_is_in_it(values: dict[str, str]) -> None:
    fields = record({"event": "said", "level": "warning", **values})
    fields = {name: value.encode(errors="replace").decode() for name, value in fields.items()}
    found = parse(datagram(fields))
    assert found == fields
    assert found["PRIORITY"] == "4" and found["MESSAGE"].startswith("said")
    assert found.get("CAMERA") == fields.get("CAMERA")
    assert all(name[0].isalpha() for name in found)


def test_passwords_are_hidden_in_exceptions_and_lists_too() -> None:
    (line,) = say(FAIL)
    assert "secret" not in line and json.loads(line)["exception"][0]["exc_value"] == "no answer of rtsp://***@host/x"
    fields = record(
        {"event": "e", "level": "error", "tried": ["rtsp://me:secret@h"], "exception": "rtsp://me:secret@h"}
    )
    assert "secret" not in str(fields) and "rtsp://***@h" in fields["MESSAGE"]


def test_an_event_is_found_by_its_id_and_an_exception_is_in_the_message() -> None:
    fields = record({"event": "a part", "level": "error", "id": "01J", "camera": "front", "exception": "Trace\nback"})
    assert (fields["EVENT_ID"], fields["CAMERA"], fields["PRIORITY"]) == ("01J", "front", "3")
    assert fields["MESSAGE"].endswith("\nTrace\nback")


SAY = """
import structlog
from agent.logs import set_up_logs
set_up_logs()
for number in range(5):
    structlog.get_logger().warning("camera lost", camera="front", url="rtsp://me:secret@host/x", retry_s=number)
"""


FAIL = """
import structlog
from agent.logs import set_up_logs
set_up_logs()
try:
    raise ValueError("no answer of rtsp://me:secret@host/x")
except ValueError:
    structlog.get_logger().exception("it failed", tried=["rtsp://me:secret@host/x"])
"""


def say(program: str = SAY, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr.splitlines()


def test_where_the_journal_does_not_answer_everything_goes_to_stderr_as_json() -> None:
    (line,) = say()
    assert json.loads(line)["camera"] == "front" and "secret" not in line


def test_stderr_that_leads_to_the_journal_is_recognised(tmp_path: Path) -> None:
    """A file stands for the journal's stream; the socket is journald's own, or none where there is no journald."""
    script = "import sys; from agent.service.journal import stderr_is_journal; sys.exit(not stderr_is_journal())"
    with (tmp_path / "stream").open("wb") as stream:
        found = os.fstat(stream.fileno())
        for told, status in ((f"{found.st_dev}:{found.st_ino}", 0), (f"{found.st_dev}:1", 1)):
            environment = {**os.environ, "JOURNAL_STREAM": told}
            done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, stderr=stream, timeout=60)
            assert done.returncode == status


def test_what_the_journal_takes_is_not_written_and_what_it_refuses_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.service import journal

    monkeypatch.setattr(journal, "_python_sender", lambda: None)
    path = tmp_path / "journal"
    to_journal = journal.ToJournal(str(path))
    entry = {"event": "said", "level": "info", "camera": "front"}
    assert to_journal(None, "info", dict(entry)) == entry
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        with pytest.raises(structlog.DropEvent):
            to_journal(None, "info", dict(entry))
        assert parse(listener.recv(65536))["CAMERA"] == "front"


def test_the_same_sentence_comes_once_a_minute_with_what_was_left_out() -> None:
    now = [0.0]
    repeated = Repeated(clock=lambda: now[0])

    def told(**values: object) -> dict[str, object] | None:
        try:
            return dict(repeated(None, "warning", {"event": "lost", "level": "warning", **values}))
        except structlog.DropEvent:
            return None

    assert told(camera="front", retry_s=1) is not None
    assert told(camera="front", retry_s=2) is None and told(camera="front", retry_s=3) is None
    assert told(camera="back", retry_s=1) is not None
    assert told(camera="front", reason="another") is not None
    now[0] = 60.0
    assert (told(camera="front", retry_s=4) or {})["repeated"] == 2
    assert told(camera="front", retry_s=4) is None


def test_a_flood_of_different_sentences_takes_no_memory_without_end() -> None:
    repeated = Repeated()
    for number in range(10_000):
        repeated(None, "info", {"event": f"sentence {number}"})
    assert len(repeated._said) <= 256
