"""docs/remote-configuration.md: its commands work as printed, and what it says is what the code does."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from mqtt_world import TOPICS, Subscriber, agent, guarded_broker, needs_mosquitto, until
from remote_world import OPS, MemoryApplier, document

from agent.cli import main
from agent.remote.allowed import ALLOWED
from agent.remote.documents import Envelope, Reported, ReportedState, SignedDocument
from agent.remote.joining import attach, open_desk
from agent.remote.keys import read_keys, verify
from agent.remote.reading import MAX_BYTES
from config.settings import Remote

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/remote-configuration.md").read_text(encoding="utf-8")
TOUR = PAGE[PAGE.index("## From nothing") : PAGE.index("## What may be set")]
BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
PORT = "18893"
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
KEY = re.compile(r"[A-Za-z0-9+/]{43}=")


def _anyones(text: str) -> str:
    """Without what is another at each run."""
    return KEY.sub("KEY", ID.sub("ID", text))


@pytest.mark.slow
@pytest.mark.timeout(600)
@needs_mosquitto
def test_the_tour_works_as_printed(tmp_path: Path) -> None:
    """Every command of the tour, in one shell; what it prints is what the page shows, ids and keys apart. Only the port
    is another: that of the page may be in use."""
    blocks = BLOCK.findall(TOUR)
    assert len(blocks) == 12
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    folder, programs = tmp_path / "tour", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    command = programs / "stillwatch"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m agent.cli "$@"\n')
    command.chmod(0o755)
    script = "".join(
        f"{{\n{commands.replace(PORT, port)}}} > {tmp_path}/said.{number} 2>&1 || exit {number + 1}\n"
        for number, (commands, _) in enumerate(blocks)
    )
    path = os.pathsep.join([str(programs), os.environ["PATH"], "/usr/sbin"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STILLWATCH_")}
    shell = subprocess.Popen(
        ["bash", "-c", script], cwd=folder, env={**environment, "PATH": path}, start_new_session=True
    )
    try:
        status = shell.wait(500)
        said = {int(file.suffix[1:]): file.read_text() for file in tmp_path.glob("said.*")}
        logs = "".join(file.read_text() for file in folder.glob("*.log"))
        assert status == 0, (said, logs)
        for number, (commands, shown) in enumerate(blocks):
            assert _anyones(said[number]) == _anyones(shown), (commands, logs)
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    kept = json.loads((folder / "state/config/committed.json").read_text())
    assert (kept["version"], kept["overlay"]) == (2, {})


def test_what_may_be_set_is_what_the_code_lets_through() -> None:
    section = PAGE[PAGE.index("## What may be set") : PAGE.index("Everything else is decided")]
    rows = [row for row in section.splitlines() if row.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`([\w.*]+)`", row.split("|")[1])}
    assert told == set(ALLOWED)


def test_every_field_and_state_is_explained() -> None:
    desired = PAGE[PAGE.index("| field of `signed` |") : PAGE.index("### `config/reported`")]
    assert _rows(desired) == set(SignedDocument.model_fields)
    reported = PAGE[PAGE.index("### `config/reported`") : PAGE.index("## Keys")]
    assert _rows(reported) >= set(Reported.model_fields) - {"v", "ts", "device"}
    state = next(line for line in reported.splitlines() if line.startswith("| `state` |"))
    assert set(re.findall(r"`(\w+)`", state)) - {"state"} == set(get_args(ReportedState))
    assert f"At most {MAX_BYTES} bytes" in PAGE


def _rows(table: str) -> set[str]:
    first = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    return {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


def test_config_check_says_whether_anybody_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, keys = tmp_path / "agent.yaml", tmp_path / "keys"
    file.write_text(json.dumps({"remote": {"keys": str(keys)}, "cameras": {"front": {"source": "scene:street"}}}))
    monkeypatch.setattr(sys, "argv", ["stillwatch", "config", "check", str(file)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 78 and f"remote.keys: {keys}: can't read the keys" in capsys.readouterr().err
    keys.write_text(OPS.line)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code


def test_stillwatch_schema_prints_these_documents_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stillwatch", "schema"])
    with pytest.raises(SystemExit):
        main()
    assert {"config_desired", "config_desired_signed", "config_reported", "event"} <= set(
        json.loads(capsys.readouterr().out)
    )


def test_the_documents_shown_are_documents_as_they_are_sent(tmp_path: Path) -> None:
    desired, reported = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    envelope = Envelope.model_validate_json(desired)
    keys = tmp_path / "keys"
    keys.write_text(next(line for line in PAGE.splitlines() if line.startswith("ops-1 ed25519 ")))
    assert envelope.sig is not None
    verify(envelope.signed.encode(), envelope.sig, read_keys(keys))
    assert SignedDocument.model_validate_json(envelope.signed).probation_s == 120.0
    shown = json.loads(reported)
    assert list(Reported.model_validate(shown).model_dump(mode="json").items()) == list(shown.items())


@needs_mosquitto
def test_the_access_list_lets_operator_and_box_do_their_work_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = re.search(r"```acl\n(.*?)```", PAGE, re.DOTALL)
    assert listed is not None
    rules = listed[1].replace("porch-box", "box").splitlines()
    (tmp_path / "keys").write_text(OPS.line)
    (tmp_path / "pw").write_text("o\n")
    applier = MemoryApplier()

    def status() -> int:
        to = ("--device", "box", "--user", "ops", "--password", f"file:{tmp_path}/pw")
        monkeypatch.setattr(sys, "argv", ["stillwatch", "config", "status", "--broker", broker.url, *to])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    with guarded_broker(*rules, agent="a", ops="o") as broker:
        with agent(broker.url, user="agent", password="a") as running:
            desk = open_desk(Remote(keys=tmp_path / "keys"), applier, TOPICS, tmp_path, lambda: running.link)
            attach(desk, running.link, TOPICS)
            desk.start()
            with Subscriber(broker.port, topic=TOPICS.reported, user="ops", password="o") as operator:
                until(lambda: operator.on(TOPICS.reported), "the first report")
                operator.publish(TOPICS.reported, "forged")
                operator.publish(TOPICS.desired, OPS.seal(document(1)))
                until(lambda: applier.version == 1, "the change")
                until(lambda: len(operator.on(TOPICS.reported)) == 5, "the reports")
                assert "forged" not in [message.text for message in operator.on(TOPICS.reported)]
            assert status() == 0
            desk.close()
        assert '"profile": "security"' in capsys.readouterr().out
