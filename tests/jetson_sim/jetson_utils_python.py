"""Stand-in for the C extension of jetson_utils: sources with their ring of buffers, images, streams.

Cameras are simulated; files are decoded. What a camera does is told by a JSON file that $JETSON_SIM_CAMERA names, read
again at each capture, in whatever process: `{"does": "stream" | "nothing" | "hang" | "throw" | "die" | "offline" |
"end", "after": frames, "size": [w, h]}`, or `{"of": {URI: the same, for that camera}}`. Frame n of a camera holds n in
the red of its upper left quarter, and its upper right is green.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simulated_cuda import Allocation, ContractBroken, machine

if os.environ.get("JETSON_SIM_EXTENSION") == "broken":
    raise ImportError("libgstapp-1.0.so.0: cannot open shared object file")

_FROM_YUV = {"rgb8": (3, np.uint8), "rgba8": (4, np.uint8), "rgb32f": (3, np.float32), "rgba32f": (4, np.float32)}
_KNOWN = (*_FROM_YUV, "bgr8", "bgra8", "gray8", "gray32f", "nv12", "i420", "yuyv")
_VIDEO = (".mkv", ".mp4", ".qt", ".flv", ".avi", ".h264", ".h265", ".mov", ".webm")


class cudaMemory:
    def __init__(self, size: int, mapped: int = 1, freeOnDelete: int = 1) -> None:
        made = machine.allocate(size, "mapped" if mapped else "device")
        if made is None:
            raise Exception("jetson.utils -- cudaMalloc failed")
        self._made, self.ptr, self.gpudata, self.size = made, made.address, made.address, size
        self.mapped, self.freeOnDelete, self.stream, self.event = bool(mapped), bool(freeOnDelete), 0, 0

    def __del__(self) -> None:
        if getattr(self, "freeOnDelete", False) and machine.find(self.ptr) is self._made:
            machine.free(self.ptr)


class cudaImage(cudaMemory):
    def __init__(
        self,
        width: int,
        height: int,
        format: str = "rgb8",
        timestamp: int = 0,
        mapped: int | None = None,
        freeOnDelete: int | None = None,
        ptr: int = 0,
        like: cudaImage | None = None,
    ) -> None:
        channels, kind = _FROM_YUV.get(format, (1, np.uint8))
        self.width, self.height, self.channels, self.format, self.timestamp = width, height, channels, format, timestamp
        self.shape = (height, width, channels)
        size = width * height * channels * np.dtype(kind).itemsize
        if ptr:
            self.ptr = self.gpudata = ptr
            self.size, self.mapped, self.freeOnDelete = size, bool(mapped), bool(freeOnDelete)
            self.stream = self.event = 0
        else:
            super().__init__(size, 1 if mapped is None else mapped, 1 if freeOnDelete is None else freeOnDelete)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        machine.counts["leaked dicts"] += 1
        return {"shape": self.shape, "typestr": "<u1", "data": (self.ptr, False), "version": 3}

    @property
    def __array_interface__(self) -> dict[str, Any] | None:
        machine.counts["leaked dicts"] += 1
        if not self.mapped:
            return None
        return {"shape": self.shape, "typestr": "<u1", "data": (self.ptr, False), "version": 3}

    def __len__(self) -> int:
        return self.width * self.height


def cudaStreamCreate(nonblocking: bool = False, priority: int = 0) -> int:
    return machine.new_stream(blocking=not nonblocking).handle


def cudaStreamDestroy(stream: int, /) -> None:
    machine.synchronize(stream)
    del machine.streams[stream]


def cudaStreamSynchronize(stream: int, /) -> None:
    machine.synchronize(stream, counted=True)


def cudaDeviceSynchronize() -> None:
    machine.synchronize(counted=True)


def _orders(uri: str) -> dict[str, Any]:
    file = os.environ.get("JETSON_SIM_CAMERA")
    try:
        orders: dict[str, Any] = json.loads(Path(file).read_text()) if file else {}
    except (OSError, ValueError):
        return {}
    return orders.get("of", {}).get(uri, orders)  # type: ignore[no-any-return]


class videoSource:
    def __init__(
        self,
        uri: str | None = None,
        argv: list[str] | None = None,
        positionArg: int = -1,
        options: dict[str, Any] | None = None,
    ) -> None:
        machine.counts["sources"] += 1
        self._uri = uri or "csi://0"
        self._options = {"numBuffers": 4, "zeroCopy": True, "flipMethod": "none", "latency": 10, **(options or {})}
        self._failed = "jetson.utils -- failed to create videoSource device"
        self._is_file = False
        if match := re.fullmatch(r"(csi)://(\d+)|(rtsp)://.+|(?:v4l2://)?(/dev/video)\d+", self._uri):
            self._kind = match[1] or match[3] or "v4l2"
        elif self._uri.startswith("file://") or "://" not in self._uri:
            self._kind, self._is_file = "file", True
        else:
            raise Exception(self._failed)
        if _orders(self._uri).get("does") == "offline" and (self._kind != "rtsp" or "codec" not in self._options):
            raise Exception(self._failed)  # an RTSP source of known codec is made all the same
        self._pictures: Iterator[NDArray[np.uint8]] | None = None
        if self._is_file:
            path = Path(self._uri.removeprefix("file://"))
            if not path.is_file() or path.suffix.lower() not in _VIDEO:
                raise Exception(self._failed)
            self._pictures = _decoded(path)
        self._rate = float(self._options.get("framerate", 30))
        wanted = self._options.get("width", 96), self._options.get("height", 64)
        self._size = tuple(_orders(self._uri).get("size", wanted))
        self._ring: list[Allocation] = []
        self._captured = self._received = 0
        self._streaming = self._ended = False
        self._thread: int | None = None
        self._started = time.monotonic()

    def Capture(self, format: str = "rgb8", timeout: int = 1000, stream: int = 0) -> cudaImage | None:
        if not isinstance(format, str) or not isinstance(timeout, int) or not isinstance(stream, int):
            raise TypeError("videoSource.Capture() failed to parse arguments")
        if format not in _KNOWN:
            raise ContractBroken(f"{format!r} gives an undecoded buffer that lies about its size")
        if self._thread not in (None, threading.get_ident()):
            raise ContractBroken("one source is captured from two threads: nothing guards its ring")
        self._thread = threading.get_ident()
        self._streaming = self._streaming or not self._ended
        picture = self._latest(timeout / 1e3 if timeout >= 0 else 1e9)
        if picture is None:
            return None
        if format not in _FROM_YUV or format == "rgb32f":
            raise Exception("jetson.utils -- videoSource failed to capture image")
        return self._deliver(picture, format, stream)

    def _latest(self, timeout_s: float) -> NDArray[np.uint8] | None:
        orders = _orders(self._uri)
        self._size = tuple(orders.get("size", self._size))
        does = orders.get("does", "stream") if self._received >= orders.get("after", 0) else "stream"
        if does == "hang":  # until it is told otherwise, in a process that has not been killed
            while _orders(self._uri).get("does") == "hang":
                time.sleep(0.05)
            return None
        if does == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if does in ("nothing", "offline"):
            time.sleep(min(timeout_s, 0.05))
            return None
        if does == "end" or (self._pictures is None and does == "throw"):
            self._streaming, self._ended = does != "end", does == "end"
            raise Exception("jetson.utils -- videoSource failed to capture image")
        if self._pictures is not None:
            if self._ended:
                self._streaming = False
                raise Exception("jetson.utils -- videoSource failed to capture image")
            picture = next(self._pictures, None)
            self._ended = picture is None  # the end shows as a time-out first
            self._received += picture is not None
            return picture
        due = self._started + (self._received + 1) / self._rate
        if due - time.monotonic() > timeout_s:
            time.sleep(timeout_s)
            return None
        time.sleep(max(0.0, due - time.monotonic()))
        self._received = max(self._received + 1, int((time.monotonic() - self._started) * self._rate))
        return self._pattern(self._received)

    def _pattern(self, number: int) -> NDArray[np.uint8]:
        width, height = self._size
        image = np.full((height, width, 3), 40, np.uint8)
        image[: height // 2, : width // 2, 0] = number % 256
        image[: height // 2, width // 2 :, 1] = 200
        upside_down = self._kind == "csi" and self._options["flipMethod"] == "none"
        upside_down |= self._kind != "csi" and self._options["flipMethod"] == "rotate-180"
        return np.ascontiguousarray(image[::-1, ::-1]) if upside_down else image

    def _deliver(self, picture: NDArray[np.uint8], format: str, stream: int) -> cudaImage:
        height, width = picture.shape[:2]
        channels, kind = _FROM_YUV[format]
        size = height * width * channels * np.dtype(kind).itemsize
        if not self._ring or len(self._ring[0].buffer) < size:
            self._free()
            mapped = "mapped" if self._options["zeroCopy"] else "device"
            made = [machine.allocate(size, mapped) for _ in range(int(self._options["numBuffers"]))]
            self._ring = [one for one in made if one is not None]
        slot = self._ring[self._captured % len(self._ring)]
        self._captured += 1
        self._size = (width, height)
        self._streaming = True
        out = slot.buffer[:size].view(kind).reshape(height, width, channels)

        def convert() -> None:
            out[..., :3] = picture

        machine.queue(stream, convert)
        mapped_flag = slot.kind == "mapped"
        stamp = self._received * round(1e9 / self._rate)
        return cudaImage(width, height, format, stamp, mapped_flag, 0, slot.address)

    def _free(self) -> None:
        for slot in self._ring:
            machine.free(slot.address)
        self._ring = []

    def Open(self) -> None:
        raise ContractBroken("videoSource.Open() sets its exception without the GIL: never call it")

    def Close(self) -> None:
        self._streaming = False

    def GetWidth(self) -> int:
        return int(self._size[0])

    def GetHeight(self) -> int:
        return int(self._size[1])

    def GetFrameRate(self) -> int:
        return int(self._rate)

    def GetFrameCount(self) -> int:
        return self._received

    def IsStreaming(self) -> bool:
        return self._streaming

    def GetOptions(self) -> dict[str, Any]:
        return dict(self._options)

    def __del__(self) -> None:
        if hasattr(self, "_ring"):
            self._free()


def _decoded(path: Path) -> Iterator[NDArray[np.uint8]]:
    import av

    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
