"""Stand-in for NVIDIA VPI's Python module: images, conversions and dense optical flow, with VPI's refusals.

Work is queued on streams and runs when a stream is synchronised. Reading an image that has work waiting is refused;
a view used after its lock is gone shows garbage. What is read out is S10.5, one vector a cell of the grid. `behaviour`
is what differs between versions, and what the documentation leaves open.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from simulated_cuda import machine

__version__ = "3.2.4"


class Backend(Flag):
    CPU = auto()
    CUDA = auto()
    PVA = auto()
    VIC = auto()
    OFA = auto()
    DEFAULT = auto()
    AVAILABLE = CPU | CUDA | VIC | OFA

    def __enter__(self) -> Backend:
        _scope().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _scope().pop()


_local = threading.local()


def _scope() -> list[Backend]:
    if not hasattr(_local, "scope"):
        _local.scope = []
    scope: list[Backend] = _local.scope
    return scope


class Format(Enum):
    INVALID = "INVALID"
    U8 = "U8"
    U16 = "U16"
    S16 = "S16"
    F32 = "F32"
    RGB8 = "RGB8"
    BGR8 = "BGR8"
    Y8_ER = "Y8_ER"
    Y8_ER_BL = "Y8_ER_BL"
    Y16_ER = "Y16_ER"
    NV12_ER = "NV12_ER"
    NV12_ER_BL = "NV12_ER_BL"


class _Hidden(Enum):
    """What exists and has no verified name in Python."""

    MOTION = "2S16_BL"


class OptFlowQuality(Enum):
    LOW, MEDIUM, HIGH = range(3)


class Lock(Enum):
    READ, WRITE, READ_WRITE = range(3)


class Conversion(Enum):
    INVALID, CLAMP, CAST = range(3)


class Interp(Enum):
    NEAREST, LINEAR = range(2)


class Border(Enum):
    CLAMP, ZERO = range(2)


_TO_BLOCK_LINEAR = {Format.Y8_ER: Format.Y8_ER_BL, Format.NV12_ER: Format.NV12_ER_BL}
_COLOURS = (Format.RGB8, Format.BGR8)
_OFA_TAKES = (Format.Y8_ER_BL, Format.NV12_ER_BL)


@dataclass
class Behaviour:
    """gridsize: how the keyword is spelt. cuda_to_block_linear: VPI 3 converts RGB8 to Y8_ER_BL on CUDA. vic: whether
    the VIC converts at all. anchored: the image whose pixels the vectors belong to; sign: of the vector to where the
    content is in the other."""

    gridsize: str = "gridsize"
    cuda_to_block_linear: bool = True
    vic: bool = True
    ofa: bool = True
    anchored: str = "frame"
    sign: int = 1
    fails: int = 0
    counts: Counter[str] = field(default_factory=Counter)


behaviour = Behaviour()


def _needs_context() -> None:
    if machine.current is None:
        raise RuntimeError("VPI_ERROR_INTERNAL: (cudaErrorDeviceUninitialized) no CUDA context on this thread")


class Stream:
    _default: Stream

    def __init__(self) -> None:
        _needs_context()
        self._work: list[tuple[Image, Callable[[], None]]] = []

    def sync(self) -> None:
        behaviour.counts["sync"] += 1
        machine.counts["sync"] += 1
        work, self._work = self._work, []
        for _, each in work:
            each()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.sync()

    def _queue(self, target: Image, work: Callable[[], None]) -> None:
        self._work.append((target, work))
        target._waiting = self

    def _has(self, image: Image) -> bool:
        return any(target is image for target, _ in self._work)


def _stream(stream: Stream | None) -> Stream:
    if stream is None:
        if not hasattr(_local, "default"):
            _local.default = Stream()
        default: Stream = _local.default
        return default
    if not isinstance(stream, Stream):
        raise TypeError("incompatible function arguments: stream")
    return stream


_ids = itertools.count(1)


class Image:
    """Pixels are uint8 (h, w[, 3]), or int16 (h, w, 2) for motion."""

    def __init__(self, size: tuple[int, int], format: Format | _Hidden) -> None:
        _needs_context()
        width, height = size
        behaviour.counts["image"] += 1
        if format in (Format.NV12_ER, Format.NV12_ER_BL) and (width % 2 or height % 2):
            raise RuntimeError("VPI_ERROR_INVALID_ARGUMENT: NV12 needs even width and height")
        self.format, self.width, self.height, self.size = format, int(width), int(height), (int(width), int(height))
        self.id = next(_ids)
        self._waiting: Stream | None = None
        self._wrapped: Callable[[], NDArray[Any]] | None = None
        self._locked = False
        if format is _Hidden.MOTION:
            self._pixels: NDArray[Any] = np.zeros((height, width, 2), np.int16)
        else:
            channels = (3,) if format in _COLOURS else ()
            self._pixels = np.zeros((height, width, *channels), np.uint8)

    @staticmethod
    def zeros(size: tuple[int, int], format: Format) -> Image:
        return Image(size, format)

    def _read(self) -> NDArray[Any]:
        return self._pixels if self._wrapped is None else self._wrapped()

    def convert(
        self,
        out: Image | Format,
        *,
        policy: Conversion = Conversion.CLAMP,
        scale: float = 1,
        offset: float = 0,
        chroma_up: Interp = Interp.NEAREST,
        chroma_down: Interp = Interp.NEAREST,
        backend: Backend = Backend.DEFAULT,
        stream: Stream | None = None,
    ) -> Image:
        _needs_context()
        if self._locked:
            raise RuntimeError("VPI_ERROR_BUFFER_LOCKED")
        target = Image(self.size, out) if isinstance(out, Format) else out
        if not isinstance(target, Image):
            raise TypeError("incompatible function arguments: out")
        if target.size != self.size:
            raise RuntimeError("VPI_ERROR_INVALID_ARGUMENT: input and output differ in size")
        if backend is Backend.DEFAULT and _scope():
            backend = _scope()[-1]
        if not self._converts(target.format, backend):
            raise RuntimeError(
                f"VPI_ERROR_NOT_IMPLEMENTED: {self.format.value} to {target.format.value} on {backend.name}"
            )
        behaviour.counts["convert"] += 1

        def work() -> None:
            pixels = self._read()
            if self.format in _COLOURS:
                code = cv2.COLOR_RGB2GRAY if self.format is Format.RGB8 else cv2.COLOR_BGR2GRAY
                pixels = np.asarray(cv2.cvtColor(pixels, code))
            target._pixels[...] = pixels

        _stream(stream)._queue(target, work)
        return target

    def _converts(self, target: Any, backend: Backend) -> bool:
        if backend is Backend.CUDA:
            if self.format in _COLOURS:
                return target in (Format.Y8_ER, Format.NV12_ER) or (
                    target is Format.Y8_ER_BL and behaviour.cuda_to_block_linear
                )
            return self.format is Format.Y8_ER and target is Format.NV12_ER
        if backend is Backend.VIC:
            return behaviour.vic and _TO_BLOCK_LINEAR.get(self.format) is target  # type: ignore[arg-type]
        return False

    @contextmanager
    def rlock_cpu(self) -> Iterator[NDArray[Any]]:
        if self._waiting is not None and self._waiting._has(self):
            raise RuntimeError("the image is read while work on it waits in a stream: stream.sync() first")
        behaviour.counts["readout"] += 1
        self._locked = True
        view = self._read().copy()
        try:
            yield view
        finally:
            view.view(np.uint8).fill(0xA5)  # the mapping is gone
            self._locked = False

    def cpu(self) -> NDArray[Any]:
        with self.rlock_cpu() as view:
            return view.copy()


def asimage(buffer: Any, format: Format = Format.INVALID) -> Image:
    """Wraps without a copy: what is in the buffer when the work runs is what is used."""
    _needs_context()
    behaviour.counts["wrap"] += 1
    if isinstance(buffer, np.ndarray):
        shape: tuple[int, ...] = buffer.shape
        pixels = buffer

        def read() -> NDArray[Any]:
            return pixels
    else:
        described = buffer.__cuda_array_interface__
        shape = tuple(described["shape"])
        address, size = described["data"][0], int(np.prod(shape))
        if described["typestr"] != "|u1" or described.get("strides") is not None:
            raise RuntimeError("VPI_ERROR_INVALID_IMAGE_FORMAT")
        machine.at(address, size)

        def read() -> NDArray[Any]:
            return machine.at(address, size).reshape(shape)

    if format is Format.INVALID:
        format = Format.RGB8 if len(shape) == 3 else Format.U8
    expected = 3 if format in _COLOURS else 2
    if len(shape) != expected:
        raise RuntimeError(f"VPI_ERROR_INVALID_IMAGE_FORMAT: {format.value} from shape {shape}")
    made = Image((shape[1], shape[0]), format)
    made._wrapped = read
    return made


def optflow_dense(
    ref: Image,
    frame: Image,
    *,
    out: Image | None = None,
    quality: OptFlowQuality = OptFlowQuality.HIGH,
    backend: Backend = Backend.DEFAULT,
    stream: Stream | None = None,
    **named: Any,
) -> Image:
    unknown = set(named) - {behaviour.gridsize}
    if unknown:
        raise TypeError(f"optflow_dense(): incompatible function arguments: {', '.join(sorted(unknown))}")
    grid = named.get(behaviour.gridsize, 4)
    _needs_context()
    if backend is not Backend.OFA:
        raise RuntimeError(f"VPI_ERROR_NOT_IMPLEMENTED: dense optical flow on {backend.name}")
    if not behaviour.ofa or not Backend.OFA & Backend.AVAILABLE:
        raise RuntimeError("VPI_ERROR_INVALID_OPERATION: the OFA is not available")
    if behaviour.fails:
        behaviour.fails -= 1
        raise RuntimeError("VPI_ERROR_INTERNAL: told to fail")
    if not isinstance(quality, OptFlowQuality) or grid not in (1, 2, 4, 8):
        raise RuntimeError("VPI_ERROR_INVALID_ARGUMENT: quality or grid size")
    if ref.format is not frame.format or ref.size != frame.size:
        raise RuntimeError("VPI_ERROR_INVALID_ARGUMENT: the images differ in format or size")
    if ref.format not in _OFA_TAKES:
        raise RuntimeError(f"VPI_ERROR_INVALID_IMAGE_FORMAT: {ref.format.value} is not block-linear")
    if min(ref.size) < 32:
        raise RuntimeError(f"VPI_ERROR_INVALID_ARGUMENT: {ref.size} is below 32x32")
    cells = (-(-ref.width // grid), -(-ref.height // grid))
    target = Image(cells, _Hidden.MOTION) if out is None else out
    if target.size != cells or target.format is not _Hidden.MOTION:
        raise RuntimeError("VPI_ERROR_INVALID_ARGUMENT: the output does not fit")
    behaviour.counts["flow"] += 1
    machine.counts["flow"] += 1

    def work() -> None:
        a, b = ref._read(), frame._read()
        if behaviour.anchored == "frame":
            a, b = b, a
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        field = behaviour.sign * np.asarray(dis.calc(np.ascontiguousarray(a), np.ascontiguousarray(b), None))
        padded = np.pad(field, ((0, -len(field) % grid), (0, -field.shape[1] % grid), (0, 0)), mode="edge")
        mean = padded.reshape(cells[1], grid, cells[0], grid, 2).mean(axis=(1, 3))
        target._pixels[...] = np.clip(np.rint(mean * 32), -32768, 32767)

    _stream(stream)._queue(target, work)
    return target


def clear_cache() -> None:
    behaviour.counts["clear_cache"] += 1
