"""What systemd itself says of the unit files."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "systemd/stillwatch.service"
DROP_IN = ROOT / "systemd/stillwatch.service.d/10-systemd-254.conf"
PAGE = (ROOT / "docs/service.md").read_text(encoding="utf-8")

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=100)


def verify(folder: Path, *, replace: tuple[str, str] = ("", ""), drop_in: bool = False) -> str:
    """Everything that is said about a copy of the unit; its command is one that every machine has."""
    unit = folder / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/stillwatch/venv/bin/stillwatch", "/bin/true").replace(*replace))
    if drop_in:
        (folder / DROP_IN.parent.name).mkdir()
        shutil.copy(DROP_IN, folder / DROP_IN.parent.name)
    done = analyze("verify", unit)
    return done.stdout + done.stderr


def systemd_version() -> int:
    found = re.match(r"systemd (\d+)", analyze("--version").stdout)
    assert found is not None
    return int(found.group(1))


@needs_analyze
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    assert verify(tmp_path) == ""  # it ends with 0 on unknown keys: only what it says counts


@needs_analyze
def test_a_misspelled_key_would_be_found(tmp_path: Path) -> None:
    assert "WatchdogSecs" in verify(tmp_path, replace=("WatchdogSec=", "WatchdogSecs="))


@needs_analyze
def test_the_drop_in_is_for_those_versions_that_understand_it(tmp_path: Path) -> None:
    said = verify(tmp_path, drop_in=True)
    if systemd_version() >= 254:
        assert said == ""
    else:
        assert all(word in said for word in ("notify-reload", "RestartSteps", "RestartMaxDelaySec"))
        assert len(said.splitlines()) == 3, said


@needs_analyze
def test_the_page_states_the_exposure_and_explains_every_open_point(tmp_path: Path) -> None:
    verify(tmp_path)
    said = analyze("security", "--offline=yes", "--no-pager", tmp_path / UNIT.name).stdout
    score = re.search(r"Overall exposure level for \S+: (\d\.\d)", said)
    assert score is not None, said
    told = re.search(r"`systemd-analyze security` says (\d\.\d) \(systemd (\d+)\)", PAGE)
    assert told is not None
    if systemd_version() == int(told.group(2)):
        assert score.group(1) == told.group(1)
    open_points = re.findall(r"^✗ (\S+)", said, re.MULTILINE)
    assert open_points
    assert [point for point in open_points if f"`{point.rstrip('=')}" not in PAGE] == []


def test_what_a_person_needs_to_rely_on_is_in_the_unit() -> None:
    lines = set(UNIT.read_text().splitlines())
    assert lines >= {
        *("Type=notify", "NotifyAccess=main", "ExecReload=/bin/kill -HUP $MAINPID", "RestartPreventExitStatus=2 78"),
        *("StartLimitIntervalSec=0", "StateDirectory=stillwatch", "Restart=on-failure", "NoNewPrivileges=yes"),
    }
