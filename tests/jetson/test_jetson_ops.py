"""Image operations on the simulated Jetson: every test that the host operations pass, with kernels and flow engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import test_vpi_ops as contract
from test_vpi_ops import *  # noqa: F403


@pytest.fixture(scope="module", autouse=True)
def _on_the_jetson(make_ops: Callable[..., Any]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "OPS", make_ops())
        patch.setattr(contract, "HostOps", make_ops)
        yield
