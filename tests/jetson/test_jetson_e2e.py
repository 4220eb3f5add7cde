"""The whole agent on the simulated Jetson passes the end-to-end tests of the host: events, words of a server, evidence
and commands, configuration from afar. Minutes: each starts it anew, and kernels run on the CPU. What it tells in one
run, beside the host, `test_jetson_run` asks in seconds; what every frame comes to, `test_jetson_parity`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mqtt_world
import pytest
import test_daemon_e2e
import test_remote_e2e
from test_daemon_e2e import *  # noqa: F403
from test_describer_e2e import (
    remote,
    test_a_change_is_told_in_the_server_s_words_and_what_is_masked_is_never_sent,
    test_a_server_that_refuses_is_told_once_and_the_built_in_model_speaks,
    test_a_signal_ends_it_while_the_server_hangs,
    test_nothing_is_asked_while_nothing_changes_and_real_cameras_have_words_too,
)
from test_evidence_e2e import test_what_people_may_ask_of_a_running_agent
from test_remote_e2e import test_owner_strangers_and_a_crash

__all__ = [
    "remote",
    "test_a_change_is_told_in_the_server_s_words_and_what_is_masked_is_never_sent",
    "test_a_server_that_refuses_is_told_once_and_the_built_in_model_speaks",
    "test_a_signal_ends_it_while_the_server_hangs",
    "test_nothing_is_asked_while_nothing_changes_and_real_cameras_have_words_too",
    "test_owner_strangers_and_a_crash",
    "test_what_people_may_ask_of_a_running_agent",
]

ROOT = Path(__file__).parents[2]

pytestmark = [mqtt_world.needs_mosquitto, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def _on_the_jetson(jetson: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In processes of their own, and where a test runs the agent itself. Engines are built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mqtt_world, "PATIENCE_S", 200.0)
        for contract in (test_daemon_e2e, test_remote_e2e):
            patch.setattr(contract, "ROOT", f"{ROOT / 'tests/jetson_sim'}{os.pathsep}{ROOT}")
        patch.setenv("STILLWATCH_ENGINES", str(tmp_path_factory.mktemp("engines")))
        patch.setenv("STILLWATCH_SIM_TENSORRT", "10.3.0")
        yield


@pytest.fixture(autouse=True)
def _by_the_stand_ins(
    jetson: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The agent that was tested used GPU, flow engine and TensorRT."""
    folder, before = tmp_path_factory.mktemp("counts"), Counter(jetson.counts)
    monkeypatch.setenv("STILLWATCH_SIM_COUNTS", str(folder))
    yield
    used = jetson.counts - before
    for file in folder.iterdir():
        kind, _, process = file.name.rpartition("-")
        used[kind] += int(file.read_text()) if int(process) != os.getpid() else 0
    assert used["launch"] >= 10 and used["inference"] >= 1 and used["flow"] >= 1, used
