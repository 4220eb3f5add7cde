"""GPU memory by part: what was allocated, what the GPU lost by it, and the most there ever was."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from config.errors import EngineFault
from engines.tensorrt.device import Block, Gpu

ALIGNED = 256


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of one part. allocated: asked for and not yet freed; peak: the most that ever was; reserved: by how much
    free memory fell meanwhile, which counts what the driver adds (on a Jetson also what others took at that moment)."""

    allocated: int
    peak: int
    reserved: int


class Memory:
    """Allocates, and keeps the books. Parts: `weights`, `scratch`, `cache`, `rows`, `inputs`, `outputs`."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._lock = threading.Lock()
        self._parts: dict[str, Usage] = {}

    def allocate(self, part: str, nbytes: int) -> Block:
        """Zeros on the GPU. Raises EngineFault, which says what is free, when there is not enough."""
        before = self._gpu.free_bytes()
        try:
            block = self._gpu.allocate(nbytes)
        except EngineFault as fault:
            raise EngineFault(
                f"GPU memory: {nbytes / 1e6:.1f} MB for `{part}` can't be had, {before / 1e6:.1f} MB are free ({fault})"
            ) from fault
        self.count(part, nbytes, before - self._gpu.free_bytes())
        return block

    def free(self, part: str, block: Block, nbytes: int) -> None:
        before = self._gpu.free_bytes()
        block.free()
        self.count(part, -nbytes, before - self._gpu.free_bytes())

    def count(self, part: str, nbytes: int, reserved: int) -> None:
        """Book what TensorRT itself took."""
        with self._lock:
            old = self._parts.get(part, Usage(0, 0, 0))
            now = old.allocated + nbytes
            self._parts[part] = Usage(now, max(old.peak, now), max(0, old.reserved + reserved))

    def parts(self) -> dict[str, Usage]:
        with self._lock:
            return dict(self._parts)


def aligned(nbytes: int) -> int:
    """The next multiple of 256, where any tensor may begin."""
    return -(-nbytes // ALIGNED) * ALIGNED
