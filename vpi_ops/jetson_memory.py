"""The GPU as image operations see it: its primary context, one stream, memory that both sides reach, and a count of
what crosses between them.

A Jetson's CPU and GPU share their memory, so arrays that both use are page-locked and mapped: NumPy reads and writes
them in place, kernels get their device address, and nothing is copied. What has to be kept is the order: the host
reads what a kernel wrote after `Gpu.settle`, never before.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from config.errors import EngineFault
from vpi_ops.interface import Held

NON_BLOCKING = 1
"""Flag of a stream."""

_log = structlog.get_logger(__name__)
Tell = Callable[[str], object]


class Gpu:
    """The primary context of GPU 0, the one that jetson-utils, VPI and TensorRT use too, and a stream of our own.

    traffic: how often so far, by name: `frames` (frames handed over to the device), `launches` (groups of kernels),
    `syncs` (waits for a stream), `staged` (copies into mapped memory), `readbacks` (results that the host takes from
    the GPU or the OFA). lost: the error after which nothing is launched any more. Not thread-safe, but `active` and
    `parts` are. tell: hears a sentence when it is given up. Raises ImportError without PyCUDA, what PyCUDA raises
    without a GPU.
    """

    def __init__(self, tell: Tell = _log.error) -> None:
        import pycuda.driver as cuda

        self._tell = tell
        cuda.init()
        self.cuda: Any = cuda
        device = cuda.Device(0)
        self.name = str(device.name())
        major, minor = device.compute_capability()
        self.arch = f"sm_{major}{minor}"  # 8.7 is sm_87, 11.0 is sm_110
        self._context = device.retain_primary_context()  # not pycuda.autoinit: that makes a context nobody else uses
        self.traffic: Counter[str] = Counter()
        self.lost: str | None = None
        self._queued: list[object] = []
        self._lock = threading.Lock()
        self._booked: deque[tuple[str, int, int]] = deque()
        self._parts: dict[str, Held] = {}
        with self.active():  # the default stream, that of others, is not waited for
            self._streams: list[Any] = [cuda.Stream(NON_BLOCKING), cuda.Stream(NON_BLOCKING)]
            self._events: list[Any] = [cuda.Event(cuda.event_flags.DISABLE_TIMING) for _ in range(2)]
        weakref.finalize(self, _end, self._context, self._streams, self._events).atexit = False

    @property
    def stream(self) -> Any:
        """Where work is queued."""
        return self._streams[0]

    @property
    def beside(self) -> Any:
        """For work that waits for nothing that is queued on `stream`."""
        return self._streams[1]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Makes the context current in this thread. The stack is per thread, and must be empty when it ends."""
        self._context.push()
        try:
            yield
        finally:
            self.cuda.Context.pop()

    @contextmanager
    def working(self) -> Iterator[None]:
        """`active`, for launches and waits. An error of CUDA is for good: the context is dead, in this process. Raises
        EngineFault then."""
        try:
            with self.active():
                yield
        except self.cuda.Error as error:
            self.give_up(f"{type(error).__name__}: {error}")
            raise EngineFault(f"GPU: {self.lost}") from error

    @contextmanager
    def sparing(self) -> Iterator[None]:
        """For what may need more memory: where there is none, the GPU is given up, lest every frame fail alike. Raises
        EngineFault then."""
        try:
            yield
        except MemoryError as error:
            self.give_up(str(error))
            raise EngineFault(str(error)) from error

    def give_up(self, reason: str) -> None:
        """Launch nothing any more: whoever asks finds it lost, and does without."""
        known, self.lost = self.lost is not None, reason
        self._queued.clear()
        if not known:
            self._tell(f"the GPU is given up, the CPU compares patches until the next start: {reason}")

    def mapped(self, shape: tuple[int, ...], dtype: Any, part: str = "results") -> NDArray[Any]:
        """An array, zeros, that kernels reach at `address`; given back when nobody has it or a view of it any more,
        whatever thread that happens in. part: under which it is counted. Raises MemoryError."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with self.active(), self._counted(part, size):
            made: NDArray[Any] = self.cuda.pagelocked_empty(
                shape, dtype, mem_flags=self.cuda.host_alloc_flags.DEVICEMAP
            )
            lease = Lease(made, int(made.base.get_device_pointer()))  # type: ignore[union-attr]
        made[...] = 0
        weakref.finalize(lease, self._unmap, [made], part, size).atexit = False
        return np.asarray(lease)

    def _unmap(self, kept: list[NDArray[Any]], part: str, size: int) -> None:
        with self.active():
            kept.clear()
        self._count(part, -size, 0)

    def device(self, size: int, part: str) -> Any:
        """`size` bytes on the device alone, contents undefined: what the GPU caches. Give them to `release`. Raises
        MemoryError."""
        with self.active(), self._counted(part, size):
            return self.cuda.mem_alloc(size)

    def release(self, block: Any, size: int, part: str) -> None:
        """Free what `device` gave, once all that uses it has been waited for. What a GPU that has failed doesn't take
        back is lost with its context."""
        with self.active(), suppress(self.cuda.Error):
            block.free()
        self._count(part, -size, 0)

    def parts(self) -> dict[str, Held]:
        """What is held, by part."""
        with self._lock:
            while self._booked:
                part, size, reserved = self._booked.popleft()
                old = self._parts.get(part, Held())
                now = old.allocated + size
                self._parts[part] = Held(now, max(old.peak, now), max(0, old.reserved + reserved))
            return dict(self._parts)

    @contextmanager
    def _counted(self, part: str, size: int) -> Iterator[None]:
        before = self.cuda.mem_get_info()[0]
        try:
            yield
        except self.cuda.MemoryError as error:
            raise MemoryError(f"GPU: {size} bytes for {part} can't be had: {error}") from error
        self._count(part, size, int(before) - int(self.cuda.mem_get_info()[0]))

    def _count(self, part: str, size: int, reserved: int) -> None:
        """No more than noted: memory is let go of in any thread, at any moment."""
        self._booked.append((part, size, reserved))

    @staticmethod
    def address(array: NDArray[Any]) -> int | None:
        """Where kernels find a whole array of `mapped` or of a `MappedPool`; None for any other."""
        lease = lease_of(array)
        return None if lease is None else lease.address

    def launched(self, *used: object) -> None:
        """Kernels were queued on the stream that read or write what `used` holds: it is kept until `settle`."""
        self.traffic["launches"] += 1
        self._queued.append(used)

    def queued(self, *used: object) -> None:
        """The same of other work than kernels."""
        self._queued.append(used)

    def before(self, stream: Any) -> None:
        """Let all work of another stream, from now on, come after what is queued here. Within `active`."""
        stream.wait_for_event(self._events[0].record(self.stream))

    def reached(self) -> Any:
        """What waits, with `synchronize`, for all that is queued here so far; until it is asked for again: it is one
        and the same. Within `active`."""
        return self._events[1].record(self.stream)

    def settle(self) -> None:
        """Wait for what is queued, if anything is. From here on the host may read it. Raises EngineFault."""
        if self._queued:
            with self.working():
                self.stream.synchronize()
            self.traffic["syncs"] += 1
            self._queued.clear()


def _end(context: Any, *kept: list[Any]) -> None:
    """Let go of streams and events in their context: elsewhere PyCUDA's destructors can't destroy them."""
    context.push()
    try:
        for each in kept:
            each.clear()
    finally:
        context.pop()


def open_gpu(tell: Tell = _log.error) -> Gpu:
    """The GPU of this machine. tell: as for `Gpu`. Raises ImportError without PyCUDA, EngineFault when there is none
    that works."""
    try:
        return Gpu(tell)
    except ImportError as error:
        raise ImportError(f"pycuda can't be imported: {error}") from error
    except Exception as error:  # of which class depends on the version
        raise EngineFault(f"CUDA can't be used: {error}") from error


class MappedPool:
    """Mapped arrays of one shape for whoever keeps them as long as they like: once nobody holds one any more, it is
    handed out again. To allocate mapped memory for every frame would stop the GPU each time."""

    def __init__(self, gpu: Gpu, shape: tuple[int, ...], part: str, dtype: Any = np.uint8) -> None:
        self._gpu, self.shape, self._part, self._dtype = gpu, shape, part, dtype
        self._free: deque[NDArray[Any]] = deque()
        self.made = 0

    def take(self) -> NDArray[Any]:
        """An array with contents undefined; not mapped when the GPU is lost. Raises MemoryError."""
        if self._gpu.lost is not None:
            return np.empty(self.shape, self._dtype)
        try:
            array = self._free.popleft()
        except IndexError:
            array = self._gpu.mapped(self.shape, self._dtype, self._part)
            self.made += 1
        lease = Lease(array, self._gpu.address(array) or 0)
        weakref.finalize(lease, self._free.append, array).atexit = False
        return np.asarray(lease)


class Lease:
    """Stands under the array that is handed out, and ends with it and all its views. address: for kernels. on_device:
    what the GPU knows of it, for whoever works there."""

    def __init__(self, array: NDArray[Any], address: int) -> None:
        self.__array_interface__ = array.__array_interface__
        self.address = address
        self.on_device: Any = None


def lease_of(array: NDArray[Any]) -> Lease | None:
    """What stands under a whole array of mapped memory; None under any other."""
    return array.base if isinstance(array.base, Lease) else None
