"""The whole agent on the simulated Jetson passes the end-to-end tests of the host. Minutes: each starts it anew, and
kernels run on the CPU. What it tells in one run, beside the host, `test_jetson_run` asks in seconds; what every frame
comes to, `test_jetson_parity`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import mqtt_world
import pytest
import test_daemon_e2e as contract
from test_daemon_e2e import *  # noqa: F403

ROOT = Path(__file__).parents[2]

pytestmark = [*contract.pytestmark, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def _on_the_jetson(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mqtt_world, "PATIENCE_S", 200.0)
        patch.setattr(contract, "ROOT", f"{ROOT / 'tests/jetson_sim'}{os.pathsep}{ROOT}")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("STILLWATCH_ENGINES", str(tmp_path_factory.mktemp("engines")))
        patch.setenv("NVCC", "/bin/true")
        yield
