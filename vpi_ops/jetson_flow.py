"""Dense optical flow on the Jetson's flow engine (OFA) through VPI.

The OFA reads block-linear images and nothing else; which conversion gets there differs by VPI version, so the ways are
a table, and the first that works is kept. Nor does the documentation say which image the vectors belong to, or their
sign: both are found out at start, on a picture in which a block has moved. What fails that test is not used.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from config.errors import in_words
from vpi_ops.jetson_memory import Gpu

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]
Paint = Callable[[int, tuple[int, int], bool], None]
"""Queues a kernel that writes an image of (width, height) to an address of the device: RGB8 or, if not, grey."""

FRACTION = 32
"""S10.5: a vector is an int16 in 32nds of a pixel."""
LEAST_SIDE = 32
_PROBE, _BLOCK, _MOVED, _GRAIN = (384, 256), 160, 16, 12


class FlowUnavailable(Exception):
    """There is no dense flow to be had from VPI here; the message says why."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a grey image becomes what the OFA reads. source: format it is wrapped in; steps: (backend, format) each."""

    source: str
    steps: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return " → ".join([self.source, *(f"{format} ({backend})" for backend, format in self.steps)])


ROUTES = (
    Route("RGB8", (("CUDA", "Y8_ER_BL"),)),  # since VPI 3
    Route("RGB8", (("CUDA", "Y8_ER"), ("VIC", "Y8_ER_BL"))),
    Route("Y8_ER", (("VIC", "Y8_ER_BL"),)),  # last but one: the VIC is slow on memory that CUDA owns
    Route("RGB8", (("CUDA", "NV12_ER"), ("VIC", "NV12_ER_BL"))),
)
"""Tried in this order. VPI takes our mapped memory as CUDA memory, whose safe first consumer is CUDA."""


@dataclass(frozen=True, slots=True)
class Convention:
    """What `optflow_dense(ref, frame)` means. swapped: the current image goes in as `ref`. sign: times the vector is
    where a pixel of the current image lies in the previous one, relative to where it is."""

    swapped: bool
    sign: int


CONVENTIONS = tuple(Convention(swapped, sign) for swapped in (False, True) for sign in (1, -1))


class OfaFlow:
    """Backward flow of pairs of images of one size after another. Any thread may ask; one flow is made at a time.

    grid: pixels along a cell that gets one vector: 1, 2, 4 or 8. route, convention: what was found at start.
    Raises FlowUnavailable.
    """

    def __init__(self, gpu: Gpu, *, grid: int = 4) -> None:
        try:
            import vpi
        except Exception as error:  # built for another NumPy, say, it raises AttributeError
            raise FlowUnavailable(f"the Python module vpi can't be imported: {in_words(error)}") from error
        self._vpi: Any = vpi
        self.version = str(getattr(vpi, "__version__", "of unknown version"))
        self._gpu = gpu
        self._grid = grid
        self._lane: _Lane | None = None
        self._busy = threading.Lock()
        try:
            available = getattr(vpi.Backend, "AVAILABLE", None)
            there = hasattr(vpi.Backend, "OFA") and (available is None or bool(vpi.Backend.OFA & available))
            with gpu.active():
                self._stream: Any = vpi.Stream() if there else None
        except Exception as error:
            raise FlowUnavailable(f"VPI can't be used: {in_words(error)}") from error
        if not there:
            raise FlowUnavailable("VPI has no OFA backend on this machine")
        self.route, self.convention = self._find()

    def __call__(self, previous: Grey, current: Grey) -> Floats:
        """Flow from `previous` to `current`, uint8 (h, w) both: float32 (h, w, 2), pixels. Raises FlowUnavailable for
        images that the OFA can't take, RuntimeError when VPI fails."""
        if min(current.shape) < LEAST_SIDE:
            raise FlowUnavailable(f"the OFA takes images from {LEAST_SIDE}x{LEAST_SIDE} on, not {current.shape}")
        return np.asarray(self.convention.sign * self._run(self.route, *self._pair(previous, current)), np.float32)

    def prepare(self, image: Grey, paint: Paint) -> None:
        """Have `image` painted by the GPU where VPI finds it, so that the host needn't copy it there: what `paint`
        queues must be done before the flow of this very array is asked for or begun. Nothing happens while a flow is
        made, one that was late, say; the host copies then."""
        with self._idle(image) as lane:
            if lane is not None:
                lane.paint(image, paint)

    def begin(self, previous: Grey, current: Grey) -> None:
        """Let the engine work on a flow that will be asked for, and go on: it is one of its own, and runs beside the
        kernels. Both images must have been prepared; nothing happens otherwise."""
        with self._idle(current) as lane:
            if lane is not None:
                lane.begin(*self._pair(previous, current), self._grid)

    def _pair(self, previous: Grey, current: Grey) -> tuple[Grey, Grey]:
        return (current, previous) if self.convention.swapped else (previous, current)

    @contextmanager
    def _idle(self, image: Grey) -> Iterator[_Lane | None]:
        """The lane for images like this one; None where there is none, or it is at work in another thread."""
        if min(image.shape) < LEAST_SIDE or not self._busy.acquire(blocking=False):
            yield None
            return
        try:
            with self._gpu.active():
                yield self._lane_of(self.route, (image.shape[0], image.shape[1]))
        finally:
            self._busy.release()

    def _run(self, route: Route, ref: Grey, frame: Grey) -> Floats:
        with self._busy, self._gpu.active():
            return self._lane_of(route, (frame.shape[0], frame.shape[1])).flow(ref, frame, self._grid)

    def _lane_of(self, route: Route, size: tuple[int, int]) -> _Lane:
        if self._lane is None or self._lane.size != size or self._lane.route is not route:
            self._lane = _Lane(self._vpi, self._gpu, self._stream, route, size)
        return self._lane

    def _find(self) -> tuple[Route, Convention]:
        """The first route and convention that see a block move as it did."""
        previous, current, shown = _moved_block()
        why = []
        for route in ROUTES:
            try:
                ways = (self._run(route, previous, current), self._run(route, current, previous))
                for convention in CONVENTIONS:
                    found = convention.sign * np.median(ways[convention.swapped][shown], axis=0)
                    if np.abs(found - (-_MOVED, 0)).max() < 2:
                        return route, convention
            except MemoryError:
                raise
            except Exception as error:  # VPI's own, names that a version lacks, a read-out that is not as we know it
                why.append(f"{route}: {in_words(error)}")
                continue
            why.append(f"{route}: a block that moved by {_MOVED} px is not found where it came from")
        raise FlowUnavailable("; ".join(why))


class _Lane:
    """All that images of one size (h, w) need, made once: mapped memory that VPI wraps, its images, and the vectors.
    There is room for two; the newest is kept converted: mostly it is the older one of the next pair."""

    def __init__(self, vpi: Any, gpu: Gpu, stream: Any, route: Route, size: tuple[int, int]) -> None:
        self.size, self.route = size, route
        self._vpi, self._gpu, self._stream = vpi, gpu, stream
        height, width = (side + side % 2 for side in size)  # NV12 wants even sides
        channels = (3,) if route.source == "RGB8" else ()
        self._ways = []
        for _ in range(2):
            array = gpu.mapped((height, width, *channels), np.uint8, "flow")
            wrapped = vpi.asimage(_CudaMemory(gpu, array), getattr(vpi.Format, route.source))
            images = [vpi.Image((width, height), getattr(vpi.Format, format)) for _, format in route.steps]
            self._ways.append((array, wrapped, images))
        self._backends = [getattr(vpi.Backend, backend) for backend, _ in route.steps]
        self._held: list[Grey | None] = [None, None]
        self._converted = [False, False]
        self._newest = 0
        self._begun: tuple[Grey, Grey, int] | None = None
        self._motion: Any = None
        self._spelling: str | None = None

    def flow(self, ref: Grey, frame: Grey, grid: int) -> Floats:
        """What the OFA gives for (ref, frame), float32 (h, w, 2), pixels. Two waits: one here, none in between."""
        begun, self._begun = self._begun, None
        if begun is None or begun[0] is not ref or begun[1] is not frame or begun[2] != grid:
            self._motion = self._dense(*self._images(ref, frame), grid)
        vectors = self._motion
        self._stream.sync()
        self._gpu.traffic["syncs"] += 1
        with vectors.rlock_cpu() as view:  # the view ends with the lock
            cells = np.asarray(view, np.float32) / FRACTION
        self._gpu.traffic["readbacks"] += 1
        size = (cells.shape[1] * grid, cells.shape[0] * grid)
        whole = cells if grid == 1 else np.asarray(cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR), np.float32)
        return np.ascontiguousarray(whole[: self.size[0], : self.size[1]])

    def begin(self, ref: Grey, frame: Grey, grid: int) -> None:
        """Queue what `flow` will wait for, where both images are here."""
        if all(any(held is image for held in self._held) for image in (ref, frame)):
            self._motion = self._dense(*self._images(ref, frame), grid)
            self._begun = ref, frame, grid

    def paint(self, image: Grey, paint: Paint) -> None:
        """Have an image written by the GPU, in the place of the older of the two."""
        if any(held is image for held in self._held):
            return
        if self._begun is not None:  # nobody has asked for it; it may still read what is written now
            self._stream.sync()
            self._gpu.traffic["syncs"] += 1
            self._begun = None
        slot = 1 - self._newest
        self._held[slot], self._converted[slot], self._newest = None, False, slot
        array = self._ways[slot][0]
        paint(self._gpu.address(array) or 0, (array.shape[1], array.shape[0]), array.ndim == 3)
        self._held[slot] = image

    def _images(self, ref: Grey, frame: Grey) -> tuple[Any, Any]:
        """Both images as the OFA reads them."""
        for image, other in ((ref, frame), (frame, ref)):
            if not any(held is image for held in self._held):
                self._copy(1 if self._held[0] is other else 0, image)
        for slot in (0, 1):
            if not self._converted[slot]:
                self._convert(slot)
        first = 0 if self._held[0] is ref else 1
        second = 0 if self._held[0] is frame else 1
        return self._ways[first][2][-1], self._ways[second][2][-1]

    def _copy(self, slot: int, image: Grey) -> None:
        array, height, width = self._ways[slot][0], *self.size
        self._held[slot], self._converted[slot], self._newest = image, False, slot
        part = array[:height, :width]
        part[...] = image[..., None] if array.ndim == 3 else image
        array[height:], array[:, width:] = array[height - 1], array[:, width - 1 : width]
        self._gpu.traffic["staged"] += 1

    def _convert(self, slot: int) -> None:
        _, source, images = self._ways[slot]
        for backend, target in zip(self._backends, images, strict=True):
            source.convert(target, backend=backend, stream=self._stream)
            source = target
        self._converted[slot] = True

    def _dense(self, ref: Any, frame: Any, grid: int) -> Any:
        """The vectors, queued. The binding's reference page spells the grid otherwise than the programs that run: the
        first call finds out."""
        quality = self._vpi.OptFlowQuality.MEDIUM
        options = {"quality": quality, "backend": self._vpi.Backend.OFA, "stream": self._stream}
        if self._spelling is not None:
            self._vpi.optflow_dense(ref, frame, out=self._motion, **{self._spelling: grid}, **options)
            return self._motion
        try:
            self._motion, self._spelling = self._vpi.optflow_dense(ref, frame, gridsize=grid, **options), "gridsize"
        except TypeError:
            self._motion, self._spelling = self._vpi.optflow_dense(ref, frame, gridSize=grid, **options), "gridSize"
        return self._motion


class _CudaMemory:
    """Mapped memory as VPI is to see it. Nothing but this interface, so that it can't be taken for a host buffer."""

    def __init__(self, gpu: Gpu, array: NDArray[np.uint8]) -> None:
        self._keep = array
        self.__cuda_array_interface__ = {
            "shape": tuple(array.shape),
            "typestr": "|u1",
            "data": (gpu.address(array), False),
            "version": 3,
        }


def _moved_block() -> tuple[Grey, Grey, NDArray[np.bool_]]:
    """Two images in which a textured block moves right over a textured ground, and where it shows in the current image
    and did not in the previous one: there alone vectors of the current image lead back by the whole way."""
    rng = np.random.default_rng(5)
    width, height = _PROBE

    def texture(w: int, h: int) -> Grey:
        coarse = rng.integers(0, 256, (h // _GRAIN, w // _GRAIN), dtype=np.uint8)
        return np.asarray(cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC), np.uint8)

    ground, block = texture(width, height), texture(_BLOCK, _BLOCK)
    top, left = (height - _BLOCK) // 2, (width - _BLOCK) // 2
    images = []
    for x in (left, left + _MOVED):
        image = ground.copy()
        image[top : top + _BLOCK, x : x + _BLOCK] = block
        images.append(image)
    shown = np.zeros((height, width), bool)
    inset = _BLOCK // 4
    shown[top + inset : top + _BLOCK - inset, left + _BLOCK + 2 : left + _BLOCK + _MOVED - 2] = True
    return images[0], images[1], shown
