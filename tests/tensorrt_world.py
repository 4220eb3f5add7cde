"""A simulated Jetson for the tests of TensorRT: stand-ins on the path, one release, a GPU, a model to build."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from engines.tensorrt.cuda import CudaGpu
from engines.tensorrt.encoder import TensorRtEncoder
from vpi_ops.cuda import load

STAND_INS = Path(__file__).parent / "jetson_sim"
_OURS = ("tensorrt", "pycuda", "vpi", "simulated_cuda", "simulated_kernels", "simulated_libcuda")


@dataclass
class World:
    """machine: the simulated device. faults, libcuda: what TensorRT and the driver are to do wrong. gpu: ours, on
    all of them."""

    machine: Any
    faults: Any
    libcuda: Any
    gpu: CudaGpu


@contextlib.contextmanager
def left_clean(world: World) -> Iterator[World]:
    """One test's turn: what it set is taken back, and no context is left pushed."""
    yield world
    world.faults.reset()
    world.libcuda.refuse = world.libcuda.launches = 0
    world.machine.budget = 2**32
    assert not world.machine.stack, "a context was pushed and not popped"


@contextlib.contextmanager
def simulated(release: str = "10.3.0") -> Iterator[World]:
    """Imports of `tensorrt` and `pycuda` get the stand-ins, fresh, until the block ends. The kernel is ours,
    compiled for the host."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in _OURS}
    for name in before:
        del sys.modules[name]
    sys.path.insert(0, str(STAND_INS))
    cache = tempfile.mkdtemp()
    try:
        given = {"STILLWATCH_SIM_TENSORRT": release, "XDG_CACHE_HOME": cache, "NVCC": "/bin/true"}
        with mock.patch.dict(os.environ, given):
            import simulated_cuda
            import tensorrt
            from simulated_libcuda import LibCuda

            libcuda = LibCuda()
            gpu = CudaGpu(lambda: load().scatter_rows, libcuda=libcuda)
            yield World(simulated_cuda.machine, tensorrt.faults, libcuda, gpu)
    finally:
        shutil.rmtree(cache)
        sys.path.remove(str(STAND_INS))
        for name in [name for name in sys.modules if name.split(".")[0] in _OURS]:
            del sys.modules[name]
        sys.modules.update(before)


def poison_rows(encoder: TensorRtEncoder, rows: list[int]) -> None:
    """NaN in rows of the cache on the simulated GPU."""
    import simulated_cuda

    kind = {4: np.float32, 2: np.float16}[encoder._runtime.precision.cache_bytes]
    layers, two, heads, tokens, size = encoder._runtime.model.manifest.cache_layout
    memory = simulated_cuda.machine.at(encoder._cache.address, encoder.cache_bytes).view(kind)
    memory.reshape(layers * two * heads, tokens, size)[:, rows] = np.nan
