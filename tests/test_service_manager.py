"""The service under a real systemd manager: the unit as it is installed, in its sandbox, with its own user."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service_container import Machine, booted, why_not

CONFIG = """\
cameras: {cam1: {source: "scene:street?seed=2&fps=5&width=320&height=180"}}
"""
WATCHDOG_S = 6

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]


def wait(true: Callable[[], Any], what: Callable[[], str], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder: Path = tmp_path_factory.mktemp("manager")
    files = {
        "/etc/stillwatch/agent.yaml": CONFIG,
        "/etc/systemd/system/stillwatch.service.d/test.conf": f"[Service]\nWatchdogSec={WATCHDOG_S}\nRestartSec=0.1\n",
    }
    try:
        with booted(folder, files) as up:
            yield up
    except RuntimeError as error:
        pytest.skip(f"a container does not boot here: {error}")


def journal(machine: Machine) -> Callable[[], str]:
    return lambda: machine.journal()[-3000:]


def test_it_runs_in_its_sandbox_and_says_how_it_is(machine: Machine) -> None:
    machine.run("systemctl", "start", "stillwatch", check=False)  # returns at READY=1
    assert machine.show("ActiveState") == "active", journal(machine)()
    wait(lambda: machine.show("StatusText") == "1 camera; no broker; 0 events wait", journal(machine))
    pid = machine.show("MainPID")
    status = machine.run("cat", f"/proc/{pid}/status")
    assert re.search(r"NoNewPrivs:\s+1", status) and re.search(r"CapEff:\s+0000000000000000", status)
    assert re.search(r"Seccomp:\s+2", status)
    owner = machine.run("stat", "-c", "%U %a", "/var/lib/stillwatch", "/var/log/stillwatch", "/etc/stillwatch")
    assert owner.splitlines()[0] == "stillwatch 750"
    wait(lambda: "camera gives frames" in machine.journal("CAMERA=cam1"), journal(machine))
    assert machine.show("NRestarts") == "0"


def test_a_reload_keeps_the_process(machine: Machine) -> None:
    before = machine.show("MainPID")
    machine.run("systemctl", "reload", "stillwatch")
    wait(lambda: machine.show("ActiveState") == "active", journal(machine))
    assert machine.show("MainPID") == before and machine.show("NRestarts") == "0"


def test_a_loop_that_hangs_is_ended_and_started_again_in_time(machine: Machine) -> None:
    assert machine.show("ActiveState") == "active"
    before = int(machine.show("NRestarts"))
    machine.run("sh", "-c", "printf 'frames cam1' >/var/lib/stillwatch/hang")
    begun = "/var/lib/stillwatch/hang.begun"
    wait(lambda: machine.run("cat", begun, check=False), journal(machine))
    hung_s = float(machine.run("cat", begun))
    wait(lambda: int(machine.show("NRestarts")) > before, journal(machine))
    restarted_s = float(machine.show("InactiveExitTimestampMonotonic")) / 1e6
    assert restarted_s - hung_s <= WATCHDOG_S + 30, "5 s more than the watchdog's on a machine that is not busy"
    wait(lambda: machine.show("ActiveState") == "active", journal(machine))
    said = machine.journal()
    assert "a loop does not go on" in said and "loop=frames cam1" in said
    assert "Fatal Python error: Aborted" in said  # and where each thread was
    assert "Watchdog" in machine.journal("-t", "systemd") or "watchdog" in machine.journal("-t", "systemd")


def test_it_ends_in_order_when_told(machine: Machine) -> None:
    machine.run("systemctl", "stop", "stillwatch")
    assert machine.show("Result") == "success" and machine.show("ActiveState") == "inactive"


def test_what_is_wrong_with_the_configuration_is_not_tried_again(machine: Machine) -> None:
    before = machine.show("NRestarts")
    machine.run("sh", "-c", "mkdir -p /run/systemd/system/stillwatch.service.d")
    drop_in = "[Service]\\nExecStart=\\nExecStart=/opt/stillwatch/venv/bin/stillwatch run --source nowhere:x\\n"
    machine.run("sh", "-c", f"printf '{drop_in}' >/run/systemd/system/stillwatch.service.d/z.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "stillwatch", check=False)
    wait(lambda: machine.show("ActiveState") == "failed", journal(machine))
    assert machine.show("ExecMainStatus") == "78" and machine.show("NRestarts") in ("0", before)
