"""Frames of one camera where kernels read them, and what is sampled from them.

A frame is handed over once, whatever is made of it, into memory of the device: its pixels are read many times, and
Orin's GPU caches no memory that is page-locked and mapped (documented). From shared memory of the capture process that
is one copy to the GPU; from the ring of jetson-utils in this process, which the GPU reaches, a copy on the GPU. The
newest two stay, for dense flow needs both.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from config.errors import EngineFault
from vpi_ops.cuda import Sampled
from vpi_ops.jetson_memory import Gpu
from vpi_ops.kernels.resampling import Resampling

Image = NDArray[np.uint8]

_KEPT = 2

_log = structlog.get_logger(__name__)


class DeviceFrames:
    """One camera's frames on the device. Everything is queued on the GPU's stream."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._size = 0
        self._blocks: list[Any] = []
        self._held: list[weakref.ref[Image] | None] = [None] * _KEPT
        self._loads = [0] * _KEPT
        self._oldest = 0
        self._none = False
        self._tables: dict[tuple[Any, ...], tuple[Resampling, Any, int]] = {}

    def place(self, image: Image) -> tuple[int, int] | None:
        """Which place a frame uint8 (H, W, 3) has, and the how manyth it is there; handed over now where it has none.
        None where there is no memory for frames, or no GPU any more. Raises EngineFault."""
        if self._gpu.lost is not None or self._none:
            return None
        for number, held in enumerate(self._held):
            if held is not None and held() is image:
                return number, self._loads[number]
        if image.nbytes != self._size and not self._allocate(image.nbytes):
            return None
        number = self._oldest
        self._oldest = (number + 1) % _KEPT
        with self._gpu.working():
            there = getattr(image.base, "device_pointer", None)
            if there is None:
                self._gpu.cuda.memcpy_htod_async(int(self._blocks[number]), image, self._gpu.stream)
            else:
                self._gpu.cuda.memcpy_dtod_async(int(self._blocks[number]), there, image.nbytes, self._gpu.stream)
        self._gpu.queued(image)
        self._gpu.traffic["frames"] += 1
        self._held[number] = weakref.ref(image)
        self._loads[number] += 1
        return number, self._loads[number]

    def holds(self, place: tuple[int, int]) -> bool:
        """Whether what was handed over then is still there."""
        return bool(self._blocks) and self._loads[place[0]] == place[1]

    def sampled(
        self,
        place: tuple[int, int],
        width: int,
        geometry: tuple[Any, ...],
        make: Callable[[], Resampling],
        origin: tuple[int, int] = (0, 0),
        padding: tuple[int, int, int] = (0, 0, 0),
    ) -> Sampled:
        """A part of the frame at `place`, `width` pixels wide. geometry: names what `make` makes. Raises
        MemoryError."""
        if geometry not in self._tables:
            resampling = make()
            tables = resampling.tables
            block = self._gpu.device(tables.nbytes, "tables")
            with self._gpu.working():
                self._gpu.cuda.memcpy_htod_async(int(block), tables, self._gpu.stream)
            self._gpu.queued(tables)
            self._tables[geometry] = resampling, block, tables.nbytes
        resampling, block, _ = self._tables[geometry]
        return Sampled(self._blocks[place[0]], 3 * width, block, resampling, origin, padding)

    def close(self) -> None:
        """Give the memory back."""
        with suppress(EngineFault):
            self._gpu.settle()
        self._free()

    def _allocate(self, size: int) -> bool:
        self._gpu.settle()  # frames of another size may still be read
        self._free()
        self._size = size
        try:
            for _ in range(_KEPT):
                self._blocks.append(self._gpu.device(size, "frames"))
        except MemoryError as error:
            _log.error("no memory for frames on the GPU: the CPU makes pictures until the next start", error=str(error))
            self._free()
            self._none = True
            return False
        return True

    def _free(self) -> None:
        size, self._size = self._size, 0
        self._held = [None] * _KEPT
        self._loads = [load + 1 for load in self._loads]
        while self._blocks:
            self._gpu.release(self._blocks.pop(), size, "frames")
        while self._tables:
            _, (_, block, nbytes) = self._tables.popitem()
            self._gpu.release(block, nbytes, "tables")
