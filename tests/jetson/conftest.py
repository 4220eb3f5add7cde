"""A simulated Jetson: the stand-ins of `tests/jetson_sim` take the places of NVIDIA's modules, and leave them again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SIMULATED = Path(__file__).parents[1] / "jetson_sim"
MODULES = (
    *("pycuda", "vpi", "tensorrt", "jetson_utils", "jetson_utils_python"),
    *("simulated_cuda", "simulated_kernels", "simulated_libcuda"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`pytest -m jetson` runs everything that there is on the simulated Jetson."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.jetson)


@pytest.fixture(scope="module")
def jetson(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The simulated device, `simulated_cuda.machine`. Kernels are the product's own, compiled for the host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SIMULATED)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("NVCC", "/bin/true")
        import simulated_cuda

        yield simulated_cuda.machine
    assert not simulated_cuda.machine.stack, "a context was pushed and not popped"
    for name in [name for name in sys.modules if name.partition(".")[0] in MODULES]:
        del sys.modules[name]


@pytest.fixture
def behaviour(jetson: Any) -> Iterator[Any]:
    """How this VPI behaves; as it was at the end."""
    import vpi

    before = vpi.behaviour
    vpi.behaviour = vpi.Behaviour()
    yield vpi.behaviour
    vpi.behaviour = before


@pytest.fixture(scope="module")
def make_ops(jetson: Any) -> Callable[..., Any]:
    """Makes `JetsonOps`, each with a GPU of its own."""
    from vpi_ops.jetson import open_ops

    def make(**options: Any) -> Any:
        return open_ops(**options).ops

    return make
