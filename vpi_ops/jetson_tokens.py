"""Token maps that kernels work on: in mapped memory, so that what comes of it is where the host reads it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vpi_ops.cuda import Kernels
from vpi_ops.jetson_memory import Gpu

Floats = NDArray[np.float32]


class TokenMaps:
    """Of one camera. Everything is waited for."""

    def __init__(self, gpu: Gpu, kernels: Kernels) -> None:
        self._gpu, self._kernels = gpu, kernels
        self._alpha = np.zeros(0, np.float32)
        self._sources, self._warped = (np.zeros((0, 0), np.float32) for _ in range(2))

    def make(self, count: int, dim: int) -> Floats:
        """Zeros (count, dim). Raises MemoryError."""
        return self._gpu.mapped((count, dim), np.float32, "tokens")

    def here(self, *maps: Floats) -> bool:
        """Whether kernels can work on all of these."""
        return self._gpu.lost is None and all(
            self._gpu.address(one) is not None and one.shape[1] % 4 == 0 for one in maps
        )

    def warp(self, values: Floats, source: Floats, grid: tuple[int, int]) -> Floats:
        """`VisionOps.warp` of a map that is `here`. Raises EngineFault, MemoryError."""
        count, dim = len(source), values.shape[1]
        if len(self._sources) < count or self._warped.shape[1] != dim:
            self._sources, self._warped = self.make(len(values), 2), self.make(len(values), dim)
        self._sources[:count] = source
        with self._gpu.working():
            at = self._at(self._sources)
            out = self._at(self._warped)
            self._kernels.warp(self._at(values), grid, dim, at, count, out, 0, self._gpu.stream)
        self._gpu.launched(values)
        self._gpu.settle()
        self._gpu.traffic["readbacks"] += 1
        return np.array(self._warped[:count])

    def blend(self, accumulated: Floats, new: Floats, alpha: Floats) -> None:
        """`VisionOps.blend` of maps that are `here`. Raises EngineFault, MemoryError."""
        if len(self._alpha) != len(alpha):
            self._alpha = self._gpu.mapped((len(alpha),), np.float32, "tokens")
        self._alpha[...] = alpha
        places = self._at(accumulated), self._at(new), self._at(self._alpha)
        with self._gpu.working():
            self._kernels.blend(*places, len(new), new.shape[1], self._gpu.stream)
        self._gpu.launched(accumulated, new)
        self._gpu.settle()

    def _at(self, array: Floats) -> int:
        return self._gpu.address(array) or 0
