"""One source of jetson-utils, read by one thread, and a frame type that knows how long its memory is its own.

jetson-utils gives out pictures in a ring of `buffers` of its own: frame k is overwritten while frame k + buffers is
captured, whoever still looks at it, and the ring is freed with its source. So a picture is never handed out bare. A
`RingFrame` is copied while it stands, or leased; and `RingCamera` captures nothing into memory that is leased.
"""

from __future__ import annotations

import importlib
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError, EndOfStream, SourceError

Image = NDArray[np.uint8]

CODECS = ("H264", "H265", "VP8", "VP9", "MPEG2", "MPEG4", "MJPEG")
FLIPS = (
    "none",
    "counterclockwise",
    "rotate-180",
    "clockwise",
    "horizontal-flip",
    "upper-right-diagonal",
    "vertical-flip",
    "upper-left-diagonal",
)
_SENSOR = {"none": "rotate-180", "rotate-180": "none"}
"""jetson-utils exchanges these two for CSI cameras, so that its default shows the picture upside down."""


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """What jetson-utils is to open. uri may hold credentials and is never shown; messages use `name`.

    flip: turns the picture as the sensor sees it. codec: of an RTSP source; with it a camera that is offline at start
    is waited for, without it is refused after some seconds. latency_ms: what RTSP holds back against jitter.
    """

    uri: str = field(repr=False)
    name: str
    size: tuple[int, int] | None = None
    rate: float | None = None
    codec: str | None = None
    flip: str = "none"
    latency_ms: int | None = None
    buffers: int = 4

    @property
    def recorded(self) -> bool:
        """Whether this is a file, which ends; all else is live."""
        return self.uri.startswith("file:")

    def as_options(self) -> dict[str, Any]:
        """The dictionary that `videoSource` takes; it ignores what it doesn't know without a word."""
        csi = self.uri.startswith("csi:")
        options: dict[str, Any] = {"numBuffers": self.buffers, "zeroCopy": True}
        options["flipMethod"] = _SENSOR.get(self.flip, self.flip) if csi else self.flip
        if self.size is not None:
            options["width"], options["height"] = self.size
        if self.rate is not None:
            options["framerate"] = self.rate
        if self.codec is not None:
            options["codec"] = self.codec
        if self.latency_ms is not None:
            options["latency"] = self.latency_ms
        return options


def import_jetson_utils() -> Any:
    """The C extension. The package that re-exports it imports without complaint when the extension is broken, and
    replaces some of its functions. Raises ImportError."""
    try:
        return importlib.import_module("jetson_utils_python")
    except ImportError:
        package = importlib.import_module("jetson_utils")
    if not hasattr(package, "videoSource"):
        raise ImportError("jetson_utils is installed, but its C extension jetson_utils_python can't be loaded")
    return package


class FrameExpired(Exception):
    """A picture was asked for after its memory had gone to a newer one."""


class RingFrame:
    """One picture in the ring. stamp_ns: position by the source's own clock, not the time of day."""

    def __init__(self, camera: RingCamera, number: int, image: Any) -> None:
        self._camera, self._number, self._image = camera, number, image
        self.size: tuple[int, int] = (int(image.width), int(image.height))
        self.stamp_ns = int(image.timestamp)

    @property
    def pointer(self) -> int:
        """Where it is. Raises FrameExpired once a newer picture may be there."""
        if not self._camera.holds(self._number):
            raise FrameExpired(f"frame {self._number} was overwritten: copy or lease it before the next ones")
        return int(self._image.ptr)

    def copy_into(self, out: Image) -> None:
        """Copy the picture, uint8 RGB (h, w, 3). Raises FrameExpired."""
        np.copyto(out, np.asarray(_Memory(self.pointer, (self.size[1], self.size[0], 3))))

    def lease(self) -> Image:
        """The picture itself, for as long as any view of it lives; the camera stands still rather than overwrite it.
        Raises FrameExpired."""
        memory = _Memory(self.pointer, (self.size[1], self.size[0], 3), self._camera)
        self._camera.leased(self._number, memory)
        return np.asarray(memory)


class RingCamera:
    """An open `videoSource`. Everything but `close` belongs to the thread that made it.

    Raises ImportError without jetson-utils, SourceError when the source can't be opened now.
    """

    def __init__(self, options: CameraOptions) -> None:
        self._library = import_jetson_utils()
        self._options = options
        try:
            self._source: Any = self._library.videoSource(options.uri, options=options.as_options())
        except Exception as error:  # jetson-utils raises nothing more special
            raise SourceError(f"{options.name}: jetson-utils can't open it: {error}") from None
        self._stream = int(self._library.cudaStreamCreate())  # blocking: with NVMM, copies run on the default stream
        self._stamped = True
        self._captured = 0
        self._leases: deque[tuple[int, weakref.ref[_Memory]]] = deque()

    @property
    def rate(self) -> float:
        """Frames a second by the source's word."""
        return float(self._source.GetFrameRate()) or 30.0

    @property
    def full(self) -> bool:
        """Whether the memory of the next picture is still leased: `capture` would raise."""
        while self._leases and self._leases[0][1]() is None:
            self._leases.popleft()
        return any(
            number <= self._captured - self._options.buffers and memory() is not None for number, memory in self._leases
        )

    def capture(self, timeout_s: float) -> RingFrame | None:
        """The newest picture, finished; None when none came in time. Raises EndOfStream after the last of a file,
        SourceError for what else goes wrong, RuntimeError when `full`."""
        if self.full:
            raise RuntimeError(f"{self._options.name}: the next picture's memory is leased")
        try:
            image = self._take(round(timeout_s * 1e3))
        except Exception as error:  # an end and a failure differ in nothing but what the source says of itself
            if self._options.recorded and not self._source.IsStreaming():
                raise EndOfStream(f"{self._options.name}: end of the video") from None
            raise SourceError(f"{self._options.name}: jetson-utils: {error}") from None
        if image is None:
            return None
        self._finish()
        self._captured += 1
        return RingFrame(self, self._captured - 1, image)

    def holds(self, number: int) -> bool:
        """Whether picture `number` is still in the ring."""
        return self._source is not None and self._captured - number <= self._options.buffers

    def leased(self, number: int, memory: _Memory) -> None:
        self._leases.append((number, weakref.ref(memory)))

    def close(self) -> None:
        """Let go of the source; leased pictures keep its ring alive. A source that has failed is never reopened."""
        source, self._source = self._source, None
        if source is not None:
            for _, memory in self._leases:
                kept = memory()
                if kept is not None:
                    kept.keep(source)
            source.Close()
            self._library.cudaStreamDestroy(self._stream)

    def _take(self, timeout_ms: int) -> Any:
        if self._stamped:
            try:
                return self._source.Capture(format="rgb8", timeout=timeout_ms, stream=self._stream)
            except TypeError:
                self._stamped = False  # before 2024-06 Capture took no stream
        return self._source.Capture(format="rgb8", timeout=timeout_ms)

    def _finish(self) -> None:
        """Wait for the conversion: Capture returns while it is still queued."""
        if self._stamped:
            self._library.cudaStreamSynchronize(self._stream)
        else:
            self._library.cudaDeviceSynchronize()


class _Memory:
    """A picture's memory as NumPy takes it. The interface of jetson-utils' own images leaks a dictionary each time.
    device_pointer: where the GPU finds the same memory, which is mapped for both; `vpi_ops.jetson_frames` asks."""

    def __init__(self, pointer: int, shape: tuple[int, int, int], *kept: object) -> None:
        self.device_pointer = pointer  # jetson-utils gives mapped memory one address, or none at all
        self.__array_interface__ = {"shape": shape, "typestr": "|u1", "data": (pointer, False), "version": 3}
        self._kept = list(kept)

    def keep(self, thing: object) -> None:
        self._kept.append(thing)


def check(options: CameraOptions) -> None:
    """Raises ConfigError for what jetson-utils would ignore or misread."""
    if options.codec is not None and options.codec not in CODECS:
        raise ConfigError(f"{options.name}: codec {options.codec!r}; expected one of {', '.join(CODECS)}")
    if options.flip not in FLIPS:
        raise ConfigError(f"{options.name}: flip {options.flip!r}; expected one of {', '.join(FLIPS)}")
    if options.buffers < 2:
        raise ConfigError(f"{options.name}: {options.buffers} buffers; expected 2 or more")
