"""Image operations on a Jetson: pictures, patches and residuals by our CUDA kernels, dense flow on the OFA.

A frame is handed over to the device once (`jetson_frames`). What host and kernels both use is mapped memory, so nothing
is copied back; what counts is how often the host waits. For an ordinary frame that is once: the first `residual` after
a `fill` also queues what is asked next, the difference to the frame before and the histogram, and one wait serves all
of them. The OFA may begin meanwhile (`jetson_grey`). Corners are the CPU's to find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from vpi_ops.cuda import Kernels, load, sides
from vpi_ops.host import Floats, HostOps
from vpi_ops.interface import FlowField, Held, PatchPyramid, Residual
from vpi_ops.jetson_flow import FlowUnavailable, OfaFlow
from vpi_ops.jetson_frames import DeviceFrames
from vpi_ops.jetson_grey import Grey, GreyImages
from vpi_ops.jetson_memory import Gpu, Tell, open_gpu
from vpi_ops.jetson_tokens import TokenMaps

_BINS = 512
_GIVE_UP_AFTER = 3
"""Failures of the OFA in a row, after which flow stays with the host."""
_VPI_AGAIN = (
    "on an Orin or later, install VPI anew (apt install --reinstall libnvvpi3 python3.10-vpi3 with JetPack 6, "
    "libnvvpi4 python3.12-vpi4 with JetPack 7)"
)

_log = structlog.get_logger(__name__)


class JetsonOps(HostOps):
    """`VisionOps` for a Jetson. gpu, kernels, dense_flow: of this camera alone; without `dense_flow` flow is the
    host's. Once the GPU has failed, all is the host's: mapped memory is its memory too. width: of the analysis
    image. tell: hears a sentence when the OFA is given up."""

    def __init__(
        self, gpu: Gpu, kernels: Kernels, dense_flow: OfaFlow | None, *, width: int = 320, tell: Tell = _log.error
    ) -> None:
        super().__init__(width=width)
        self._tell = tell
        self.gpu, self.kernels = gpu, kernels
        self.frames = DeviceFrames(gpu)
        self.greys = GreyImages(gpu, kernels, self.frames, dense_flow, width=width)
        self._maps = TokenMaps(gpu, kernels)
        self._failed = 0
        self._picture: NDArray[np.uint8] | None = None
        self._out = self._exposure = gpu.mapped((2,), np.float32)
        self._slots = gpu.mapped((2, 1), np.int32)
        self._filled: tuple[PatchPyramid | None, PatchPyramid | None] = (None, None)
        self._asked = True
        self._known: dict[tuple[int, ...], Floats] = {}
        self._fields: Floats | None = None
        self._errors = np.zeros((0, 0), np.float32)

    @property
    def traffic(self) -> Counter[str]:
        """What has crossed between host and GPU so far; see `Gpu`."""
        return self.gpu.traffic

    @property
    def uses_ofa(self) -> bool:
        """Whether flow still comes from the OFA."""
        return self.greys.engine is not None

    def analysis(self, image: NDArray[np.uint8]) -> Grey:
        """Where flow was expected, it is there already."""
        with self.gpu.sparing():
            made = self.greys.of(image)
        if made is None:
            return super().analysis(image)
        self.gpu.settle()
        return made

    def pyramid(self, grid: tuple[int, int], patch: int) -> PatchPyramid:
        """Without memory for it the GPU is given up."""
        tokens = grid[0] * grid[1]
        try:
            if len(self._out) < 2 * tokens + _BINS:
                self._out = self.gpu.mapped((2 * tokens + _BINS,), np.float32)
                self._slots = self.gpu.mapped((2, tokens), np.int32)
            levels = tuple(self.gpu.mapped((tokens, side * side, 3), np.uint8, "pyramids") for side in sides(patch))
            return PatchPyramid(grid, patch, levels, self.gpu.mapped((tokens,), np.float32, "pyramids"))
        except MemoryError as error:
            self.gpu.give_up(str(error))
            return super().pyramid(grid, patch)

    def fill(self, pyramid: PatchPyramid, picture: NDArray[np.uint8]) -> None:
        """A picture of `DevicePictures` is read where it is, any other is copied first."""
        shape = (pyramid.grid[0] * pyramid.patch, pyramid.grid[1] * pyramid.patch, 3)
        if picture.shape != shape:
            raise ValueError(f"picture is {picture.shape}, expected {shape}")
        if self.gpu.lost is not None:
            super().fill(pyramid, picture)
            return
        with self.gpu.working():
            if self.gpu.address(picture) is None:
                picture = self._staged(picture)
            half, quarter = self._levels(pyramid)
            means = self._at(pyramid.means)
            self.kernels.fill(self._at(picture), pyramid.grid, pyramid.patch, half, quarter, means, self.gpu.stream)
        self.gpu.launched(picture, pyramid)
        self._known.clear()
        self._asked = False
        if self._filled[0] is not pyramid:
            self._filled = pyramid, self._filled[0]

    def means(self, pyramid: PatchPyramid) -> Floats:
        self.gpu.settle()
        return pyramid.means

    def adopt(self, reference: PatchPyramid, current: PatchPyramid, slots: NDArray[np.int64] | None) -> None:
        self._written()
        super().adopt(reference, current, slots)

    def fetch(self, reference: PatchPyramid, source: NDArray[np.int64]) -> None:
        self._written()
        super().fetch(reference, source)

    def residual(self, current: PatchPyramid, reference: PatchPyramid) -> Residual:
        if self.gpu.lost is not None:
            return super().residual(current, reference)
        tokens = len(current.means)
        ahead = self._filled[0] is current and not self._asked
        previous = self._filled[1] if ahead else None
        self._asked = True
        with self.gpu.working():
            out, exposure, stream = self._at(self._out), self._at(self._exposure), self.gpu.stream
            self.kernels.exposure(self._at(reference.means), self._at(current.means), tokens, exposure, stream)
            levels = self._levels(current), self._levels(reference)
            self.kernels.residual(*levels, tokens, current.patch, out, stream, exposure=exposure)
            if ahead:
                self._histogram(current, out + 4 * 2 * tokens)
            if previous is not None:
                self._moved(current, previous, out + 4 * tokens)
        self.gpu.launched(current, reference, previous)
        self.greys.begin()
        values = self._read(2 * tokens + _BINS)
        if ahead:
            self._known[id(current),] = values[2 * tokens :]
        if previous is not None:
            self._known[id(current), id(previous)] = values[tokens : 2 * tokens]
        gain, offset = self._exposure.tolist()
        return Residual(values[:tokens], gain, offset)

    def residual_at(
        self, current: PatchPyramid, slots: NDArray[np.int64], reference: PatchPyramid, sources: NDArray[np.int64]
    ) -> Floats:
        if self.gpu.lost is not None or not len(slots):
            return super().residual_at(current, slots, reference, sources)
        self.gpu.settle()
        self._slots[0, : len(slots)], self._slots[1, : len(slots)] = slots, sources
        with self.gpu.working():
            chosen = self._at(self._slots)
            self.kernels.residual(
                self._levels(current),
                self._levels(reference),
                len(slots),
                current.patch,
                self._at(self._out),
                self.gpu.stream,
                slots=chosen,
                sources=chosen + self._slots.strides[0],
            )
        self.gpu.launched(current, reference)
        return self._read(len(slots))

    def moved(self, current: PatchPyramid, previous: PatchPyramid) -> Floats:
        known = self._known.get((id(current), id(previous)))
        if known is not None:
            return known
        if self.gpu.lost is not None:
            return super().moved(current, previous)
        with self.gpu.working():
            self._moved(current, previous, self._at(self._out))
        self.gpu.launched(current, previous)
        return self._read(len(current.means))

    def histogram(self, pyramid: PatchPyramid) -> Floats:
        known = self._known.get((id(pyramid),))
        if known is None and self.gpu.lost is not None:
            return super().histogram(pyramid)
        if known is None:
            with self.gpu.working():
                self._histogram(pyramid, self._at(self._out))
            self.gpu.launched(pyramid)
            known = self._read(_BINS)
        return known.reshape(8, 8, 8)

    def flow(
        self,
        previous: NDArray[np.uint8],
        current: NDArray[np.uint8],
        scale: tuple[float, float],
        region: tuple[int, int, int, int] | None = None,
    ) -> FlowField:
        """The OFA takes whole images, of one size: a part saves it nothing."""
        self.greys.asked()
        whole = self._by_ofa(current, previous)
        if whole is None:
            return super().flow(previous, current, scale, region)
        if region is not None:
            x0, y0, x1, y1 = region
            part = np.zeros_like(whole)
            part[y0:y1, x0:x1] = whole[y0:y1, x0:x1]
            whole = part
        return FlowField(whole, scale)

    def check(self, flow: FlowField, previous: Grey, current: Grey) -> FlowField:
        """Like `flow`, on a thread of its own, and so on a stream of its own."""
        forward = self._by_ofa(previous, current)
        if forward is None or self.gpu.lost is not None:
            return super().check(flow, previous, current)
        if self._fields is None or self._fields.shape[1:3] != forward.shape[:2]:
            with self.gpu.sparing():
                self._fields = self.gpu.mapped((2, *forward.shape), np.float32, "flow")
                self._errors = self.gpu.mapped(forward.shape[:2], np.float32, "flow")
        self._fields[0], self._fields[1] = flow.backward, forward
        backward = self._at(self._fields)
        with self.gpu.working():
            self.kernels.consistency(
                backward,
                backward + self._fields.strides[0],
                (forward.shape[1], forward.shape[0]),
                self._at(self._errors),
                self.gpu.beside,
            )
            self.gpu.beside.synchronize()
        self.gpu.traffic.update(launches=1, syncs=1, readbacks=1)
        return replace(flow, error=np.array(self._errors))

    def tokens(self, count: int, dim: int) -> Floats:
        """Without memory that kernels reach, the host warps and blends."""
        try:
            return self._maps.make(count, dim)
        except MemoryError as error:
            _log.warning("token maps stay with the CPU", error=str(error))
            return super().tokens(count, dim)

    def warp(self, values: Floats, source: Floats, grid: tuple[int, int]) -> Floats:
        """By the kernel where `values` are of `tokens`."""
        if len(source) and self._maps.here(values):
            with self.gpu.sparing():
                return self._maps.warp(values, source, grid)
        return super().warp(values, source, grid)

    def blend(self, accumulated: Floats, new: Floats, alpha: Floats) -> None:
        """By the kernel where both are of `tokens`."""
        if self._maps.here(accumulated, new):
            with self.gpu.sparing():
                self._maps.blend(accumulated, new, alpha)
        else:
            super().blend(accumulated, new, alpha)

    def _follow(self, image: NDArray[np.uint8], into: NDArray[np.uint8]) -> Floats:
        found = self._by_ofa(image, into)
        return super()._follow(image, into) if found is None else found

    def _by_ofa(self, image: NDArray[np.uint8], into: NDArray[np.uint8]) -> Floats | None:
        """None when the OFA can't, or can't any more."""
        if self.greys.engine is None:
            return None
        try:
            found = self.greys.engine(into, image)
        except FlowUnavailable:
            return None
        except Exception as error:  # VPI's errors are of no documented class
            self._failed += 1
            _log.warning("the OFA gives no flow, the CPU computes it", error=str(error), times=self._failed)
            if self._failed >= _GIVE_UP_AFTER:
                self._tell(f"the OFA is given up, the CPU computes flow until the next start: {error}")
                self.greys.engine = None
            return None
        self._failed = 0
        return found

    def held(self) -> Mapping[str, Held]:
        return self.gpu.parts()

    def close(self) -> None:
        """Give the memory on the device back. Nothing can be done with frames afterwards."""
        self.frames.close()

    def _staged(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of a picture where kernels reach it."""
        self.gpu.settle()  # what reads the picture before may still wait
        if self._picture is None or self._picture.shape != picture.shape:
            self._picture = self.gpu.mapped(picture.shape, np.uint8, "pictures")
        self._picture[...] = picture
        self.gpu.traffic["staged"] += 1
        return self._picture

    def _written(self) -> None:
        """The host is about to write what kernels read."""
        self.gpu.settle()
        self._known.clear()

    def _read(self, count: int) -> Floats:
        """What the kernels wrote to the front of `_out`, once they have."""
        self.gpu.settle()
        self.gpu.traffic["readbacks"] += 1
        return np.array(self._out[:count])

    def _moved(self, current: PatchPyramid, previous: PatchPyramid, out: int) -> None:
        quarters = self._at(current.levels[-1]), self._at(previous.levels[-1])
        self.kernels.moved(*quarters, len(current.means), current.patch, out, self.gpu.stream)

    def _histogram(self, pyramid: PatchPyramid, out: int) -> None:
        quarter = pyramid.levels[-1]
        self.kernels.histogram(self._at(quarter), quarter.size // 3, out, self.gpu.stream)

    def _levels(self, pyramid: PatchPyramid) -> tuple[int, int]:
        half, quarter = pyramid.levels
        return self._at(half), self._at(quarter)

    def _at(self, array: NDArray[Any]) -> int:
        """Where kernels find it."""
        address = self.gpu.address(array)
        if address is None:
            raise TypeError("the array is not in mapped memory: use pyramids that these operations have made")
        return address


@dataclass(frozen=True, slots=True)
class Vision:
    """Operations of one camera. kernels: where they come from. flow: the engine and its route, None where the CPU
    computes flow; flow_why: why."""

    ops: JetsonOps
    gpu: Gpu
    kernels: str
    flow: str | None
    flow_why: tuple[str, ...]


def open_ops(*, width: int = 320, tell: Tell = _log.error) -> Vision:
    """Kernels on the GPU, and flow on the OFA where there is one, else on the CPU.

    tell: hears a sentence when GPU or OFA are given up while they work. Raises ImportError without PyCUDA, EngineFault
    when there is no GPU or no kernels can be had, MemoryError.
    """
    gpu = open_gpu(tell)
    with gpu.active():
        kernels = load()
    dense: OfaFlow | None = None
    why: tuple[str, ...] = ()
    try:
        dense = OfaFlow(gpu)
    except FlowUnavailable as reason:
        _log.warning("flow stays with the CPU", reason=str(reason))
        why = (f"No OFA: {reason}; {_VPI_AGAIN}.",)
    flow = None if dense is None else f"OFA through VPI {dense.version}, {dense.route}"
    return Vision(JetsonOps(gpu, kernels, dense, width=width, tell=tell), gpu, kernels.origin, flow, why)
