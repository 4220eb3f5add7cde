"""Grey images of frames, made on the GPU, for corners and for dense flow; and the flow that is begun before it is asked
for.

Flow is asked for in every frame of a motion, or in every so manyth. Where it is likely to be, its images are made first
of all, and the flow engine begins as soon as they are there, while kernels still compare patches.
"""

from __future__ import annotations

import weakref
from collections import deque
from functools import partial
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from config.errors import EngineFault
from vpi_ops.cuda import Kernels
from vpi_ops.jetson_flow import OfaFlow
from vpi_ops.jetson_frames import DeviceFrames, Image
from vpi_ops.jetson_memory import Gpu, MappedPool
from vpi_ops.kernels.resampling import Resampling

Grey = NDArray[np.uint8]
Size = tuple[int, int]

_log = structlog.get_logger(__name__)


class GreyImages:
    """Of one camera; no wider than `width`. engine: None where the host computes flow."""

    def __init__(self, gpu: Gpu, kernels: Kernels, frames: DeviceFrames, engine: OfaFlow | None, *, width: int) -> None:
        self._gpu, self._kernels, self._frames, self._width = gpu, kernels, frames, width
        self.engine = engine
        self._made: deque[tuple[weakref.ref[Image], Grey]] = deque(maxlen=2)
        self._pool: MappedPool | None = None
        self._newest: weakref.ref[Image] | None = None
        self._since_flow = self._flow_gap = 0
        self._expected: tuple[Any, Grey, Grey] | None = None

    def of(self, image: Image) -> Grey | None:
        """The grey image (h, w) of a frame (H, W, 3), queued now where it was not; None where the host has to make it.
        Raises EngineFault, MemoryError."""
        if self._gpu.lost is not None:
            return None
        for frame, grey in self._made:
            if frame() is image:
                return grey
        place = self._frames.place(image)
        if place is None:
            return None
        height, width = image.shape[:2]
        size = (self._width, max(1, round(height * self._width / width))) if width > self._width else (width, height)
        if self._pool is None or self._pool.shape != size[::-1]:
            self._pool = MappedPool(self._gpu, size[::-1], "grey images")
        grey = self._pool.take()
        make = partial(Resampling.interpolating, (width, height), size)
        sampled = self._frames.sampled(place, width, ("grey", width, height), make)
        with self._gpu.working():
            self._kernels.grey(sampled, self._gpu.address(grey) or 0, size[0], self._gpu.stream)
        self._gpu.launched(grey)
        if self.engine is not None:
            self._prepare(self.engine, grey, place, (width, height), size)
        self._made.append((weakref.ref(image), grey))
        return grey

    def entered(self, image: Image) -> None:
        """A frame has come, and is on the device. Raises EngineFault, MemoryError."""
        before = None if self._newest is None else self._newest()
        if before is image:
            return
        self._newest, self._expected = weakref.ref(image), None
        self._since_flow += 1
        if self._since_flow != self._flow_gap or before is None or self.engine is None:
            return
        first, second = self.of(before), self.of(image)
        if first is not None and second is not None:
            with self._gpu.working():
                self._expected = self._gpu.reached(), first, second

    def asked(self) -> None:
        """Flow was asked for now; after as many frames it may be again."""
        self._flow_gap, self._since_flow = self._since_flow, 0

    def begin(self) -> None:
        """Let the engine begin where flow is expected. VPI's streams can't wait for CUDA's, so the host does, for no
        more than the images. Raises EngineFault."""
        expected, self._expected = self._expected, None
        if expected is None or self.engine is None:
            return
        painted, before, image = expected
        with self._gpu.working():
            painted.synchronize()
        self._gpu.traffic["syncs"] += 1
        try:
            self.engine.begin(before, image)
        except Exception as error:  # VPI's errors are of no documented class; it fails again when the flow is asked for
            _log.warning("the OFA can't begin", error=str(error))

    def _prepare(self, engine: OfaFlow, grey: Grey, place: tuple[int, int], frame: Size, size: Size) -> None:
        """Have the frame at `place`, shrunk to `size`, where the engine wants it; without, the host copies `grey`."""

        def paint(address: int, whole: Size, colour: bool) -> None:
            sampled = self._frames.sampled(
                place,
                frame[0],
                ("flow", frame, whole),
                lambda: Resampling.interpolating(frame, size).repeated(whole),
            )
            with self._gpu.working():
                if colour:
                    self._kernels.picture(sampled, address, self._gpu.stream)
                else:
                    self._kernels.grey(sampled, address, whole[0], self._gpu.stream)
            self._gpu.launched()

        try:
            engine.prepare(grey, paint)
        except EngineFault:
            raise
        except Exception as error:  # as above
            _log.warning("the OFA can't be given an image", error=str(error))
