"""CUDA through PyCUDA: implements `engines.tensorrt.device.Gpu`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import EngineFault
from engines.preprocess import OnDevice
from engines.tensorrt.device import Block, Replay, Stream
from engines.tensorrt.graphs import Driver

Scatter = Callable[..., None]
"""The kernel behind `Gpu.scatter_rows`, of the same parameters, stream being PyCUDA's: `Kernels.scatter_rows` of
`vpi_ops.cuda`. It belongs to the context in which it was loaded."""
_NON_BLOCKING = 1


class CudaGpu:
    """Device 0 and its primary context: the one that TensorRT, VPI and jetson-utils use too. An own context
    (`pycuda.autoinit`) would share neither memory nor streams with them.

    The context is pushed for the length of a call and popped after it, in whatever thread: a thread that ends with a
    context on its stack takes the process down. load: called in the context, gives the kernel. libcuda: as in
    `engines.tensorrt.graphs.Driver`. Raises EngineFault where there is no PyCUDA, no GPU or no kernel.
    """

    def __init__(self, load: Callable[[], Scatter], *, libcuda: str | Any = "libcuda.so.1") -> None:
        try:
            import pycuda.driver as driver
        except ImportError as error:
            raise EngineFault(f"PyCUDA can't be loaded ({error}): pip install 'stillwatch[jetson]'") from error
        self._driver: Any = driver
        self._libcuda = libcuda
        with self._faults("CUDA can't be used"):
            driver.init()
            device = driver.Device(0)
            self._context = device.retain_primary_context()
            self._name = str(device.name())
            major, minor = device.compute_capability()
        self._capability = int(major), int(minor)
        with self.active(), self._faults("kernels can't be loaded"):
            self._scatter = load()

    @property
    def name(self) -> str:
        return self._name

    @property
    def capability(self) -> tuple[int, int]:
        return self._capability

    @contextmanager
    def active(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def stream(self) -> Stream:
        with self._faults("no stream"):
            return _Stream(self._driver.Stream(_NON_BLOCKING), self)

    def allocate(self, nbytes: int) -> Block:
        with self._faults("cuMemAlloc"):
            raw = self._driver.mem_alloc(nbytes)
            self._driver.memset_d8(int(raw), 0, nbytes)
            self._driver.Context.synchronize()  # else a non-blocking stream could overtake the zeros
        return _Block(raw, nbytes, self)

    def staging(self, nbytes: int) -> NDArray[Any]:
        with self._faults("page-locked memory"):
            made = self._driver.pagelocked_empty((nbytes,), np.uint8)
        lease = _Lease(made.__array_interface__)
        weakref.finalize(lease, self._unlock, [made]).atexit = False
        return np.asarray(lease)

    def _unlock(self, kept: list[Any]) -> None:
        """Give page-locked memory or a stream back, in whatever thread the last use of it ends."""
        with self.active():
            kept.clear()

    def free_bytes(self) -> int:
        with self._faults("cuMemGetInfo"):
            return int(self._driver.mem_get_info()[0])

    def record(self, stream: Stream, queue: Callable[[], None]) -> Replay:
        return Driver(self._libcuda).record(stream.handle, queue)

    def gather(
        self, picture: OnDevice, slots: int, fine: int, coarse: int, out: int, stream: Stream, **format: Any
    ) -> None:
        with self._faults("kernel that gathers patches"):
            picture.gather(slots, fine, coarse, out, _raw(stream), **format)

    def upload(self, address: int, data: NDArray[Any], stream: Stream) -> None:
        with self._faults("copy to the GPU"):
            self._driver.memcpy_htod_async(address, data, _raw(stream))

    def download(self, data: NDArray[Any], address: int, stream: Stream) -> None:
        with self._faults("copy from the GPU"):
            self._driver.memcpy_dtoh_async(data, address, _raw(stream))

    def scatter_rows(self, new: int, cache: int, index: int, source: int, n: int, stream: Stream, **sizes: int) -> None:
        with self._faults("kernel that scatters rows"):
            self._scatter(new, cache, index, source, n, _raw(stream), **sizes)

    @contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        """PyCUDA's errors, which don't derive from the built-in ones, as EngineFault."""
        driver = self._driver
        try:
            yield
        except driver.LaunchError as error:
            raise EngineFault(
                f"{what}: {error}; after a failed launch the CUDA context is lost: restart Stillwatch"
            ) from error
        except (driver.Error, RuntimeError) as error:
            raise EngineFault(f"{what}: {error}") from error


@dataclass(frozen=True)
class _Block:
    """nbytes: by this name whoever adds up a camera's memory finds it."""

    raw: Any
    nbytes: int
    gpu: CudaGpu

    def __int__(self) -> int:
        return int(self.raw)

    def free(self) -> None:
        with self.gpu._faults("cuMemFree"):
            self.raw.free()


class _Lease:
    """Stands under an array that is handed out, and ends with it and all its views."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


class _Stream:
    def __init__(self, raw: Any, gpu: CudaGpu) -> None:
        self._raw, self._gpu = [raw], gpu
        weakref.finalize(self, gpu._unlock, self._raw).atexit = False  # in no other context can it be destroyed

    @property
    def raw(self) -> Any:
        return self._raw[0]

    @property
    def handle(self) -> int:
        return int(self.raw.handle)

    def synchronize(self) -> None:
        with self._gpu._faults("work on the GPU"):
            self.raw.synchronize()


def _raw(stream: Stream) -> Any:
    if not isinstance(stream, _Stream):
        raise TypeError(f"expected a stream of this GPU, found {type(stream).__name__}")
    return stream.raw
