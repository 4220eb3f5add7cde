"""A hang in each loop in turn, in a real agent with a real broker: it is ended and started again in time, and every
alert that it had accepted arrives."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mqtt_world import Subscriber, needs_mosquitto
from service_driver import LOOPS, begin_file
from service_world import Service

from agent.mqtt.broker import LocalBroker

ROOT = Path(__file__).parents[1]
WATCHDOG_S = 6.0
BASE = "stillwatch/box"
SOURCE = "scene:street?seed=2&fps=5&width=320&height=180"
IN_FAST_SUITE = "frames cam1"
RULE = {"name": "person", "ask": "Is there a person?"}
GRACE_S = float(os.environ.get("STILLWATCH_GRACE_S", "20"))
"""What is promised is 5, where nothing else keeps the cores busy."""
KNOWN_S = {"describing 0": 1, "rules": 60}
"""Waits that are allowed for besides: for a vision server that is silent (`timeout_s`), for a large model."""
NOBODY = {"url": "http://127.0.0.1:9/v1", "model": "none", "timeout_s": 1}

pytestmark = [needs_mosquitto, pytest.mark.timeout(900)]


def wait(true: Callable[[], Any], what: str, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


class World:
    """An agent under a stand-in for systemd, and somebody who asks it for alerts and sees what comes."""

    def __init__(self, folder: Path, broker: LocalBroker) -> None:
        self.trigger, self.state = folder / "hang", folder / "state"
        self.subscriber = Subscriber(broker.port, persistent=True)
        driver = [sys.executable, str(ROOT / "tests/service_driver.py"), str(self.trigger)]
        self._file = folder / "agent.yaml"
        self._config = {
            "device": {"id": "box"},
            "mqtt": {"url": broker.url},
            "events": {"dir": str(self.state), "clips": {"post_s": 1}},
            "cameras": {"cam1": {"source": SOURCE, "rules": [RULE]}},
            "describer": NOBODY,
            "remote": {"require_signature": False},
            "metrics": {"port": free_port()},
        }
        self._file.write_text(json.dumps(self._config))
        self.service = Service(
            [*driver, "run", "--config", str(self._file)],
            folder / "stderr",
            watchdog_s=WATCHDOG_S,
            environment={},
            folder=folder,
        )
        self._asked = 0

    def up(self) -> None:
        """Until the run that is now is ready, connected and gives frames."""
        wait(lambda: self.service.ready(self.service.run) or self.service.ended, "READY=1")
        assert not self.service.ended, self.service.log.read_text()[-3000:]
        wait(lambda: self.alert(5.0) is not None, "an alert to be taken")

    def alert(self, seconds: float = 1.5) -> str | None:
        """Have an alert told; its id, None when the agent does not say that it has taken it."""
        self._asked += 1
        mine = str(self._asked)
        self.subscriber.publish(f"{BASE}/cmd/test-alert", json.dumps({"camera": "cam1", "request_id": mine}))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for message in self.subscriber.on(f"{BASE}/cmd/test-alert/result"):
                answer = message.document
                if answer["request_id"] == mine:
                    return answer["result"]["id"] if answer["ok"] else None
            time.sleep(0.05)
        return None

    def answers(self) -> int:
        """How often it was told what a rule's question was answered."""
        told = [message.document["rules"] for message in self.subscriber.on(f"{BASE}/cam1/rules")]
        return sum(any(rule["answer"] is not None for rule in rules) for rules in told)

    def provoke(self, loop: str) -> None:
        """Give a loop something to do that it has not of itself, or by alerts."""
        if loop == "remote configuration":
            self.subscriber.publish(f"{BASE}/config/desired", "{}")
        elif loop == "apply":
            self._file.write_text(json.dumps(self._config | {"profile": "security"}))
            self.service.signal(signal.SIGHUP)

    def arrived(self) -> set[str]:
        return {message.document["id"] for message in self.subscriber.on(f"{BASE}/cam1/alert")}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("service")
    with LocalBroker() as broker:
        made = World(folder, broker)
        try:
            yield made
        finally:
            made.service.close()
            made.subscriber.close()
    assert made.service.statuses[-1] == 0, made.service.log.read_text()[-3000:]


def test_a_reload_is_told_with_its_moment_and_its_end(world: World) -> None:
    world.up()
    run, before = world.service.run, len(world.service.told)
    world.service.signal(signal.SIGHUP)
    wait(lambda: world.service.of(run, "RELOADING=1"), "RELOADING=1")
    word = world.service.of(run, "RELOADING=1")[-1]
    assert [line.partition("=")[0] for line in word.lines] == ["RELOADING", "MONOTONIC_USEC"]
    wait(lambda: any("READY=1" in told.lines for told in world.service.told[before:]), "READY=1 after the reload")
    assert world.service.run == run


@pytest.mark.parametrize(
    "loop", [pytest.param(loop, marks=[] if loop == IN_FAST_SUITE else pytest.mark.slow) for loop in LOOPS]
)
def test_a_loop_that_hangs_has_the_agent_started_again_and_no_alert_is_lost(world: World, loop: str) -> None:
    service = world.service
    world.up()
    run, kills = service.run, len(service.kills)
    taken = [world.alert(10.0)]
    if loop == "rules":  # the first answer may take long
        before = world.answers()
        wait(lambda: world.answers() > before, "an answer")
    world.trigger.write_text(loop)
    world.provoke(loop)
    wait(lambda: taken.append(world.alert()) or begin_file(world.trigger).exists(), f"{loop} to hang")
    hung_s = float(begin_file(world.trigger).read_text())
    begin_file(world.trigger).unlink()
    taken += [world.alert(), world.alert()]
    wait(lambda: len(service.kills) > kills, "the watchdog")
    killed_s, killed_run, why = service.kills[-1]
    within_s = WATCHDOG_S + GRACE_S + KNOWN_S.get(loop, 0)
    assert killed_run == run and killed_s - hung_s <= within_s, (loop, why, killed_s - hung_s)
    if loop not in ("watchdog", "main"):
        words = [line for told in service.of(run, "STATUS=") for line in told.lines if told.at_s > hung_s]
        assert any(f"{loop} has not gone on for" in line for line in words), words
    wait(lambda: service.run == run + 1 and service.ready(run + 1), "the agent to be started again")
    world.up()
    lost = lambda: {one for one in taken if one is not None} - world.arrived()  # noqa: E731
    wait(lambda: not lost(), f"{lost()} of {taken}")
    assert f'"loop": "{loop}"' in service.log.read_text() or loop == "watchdog"
