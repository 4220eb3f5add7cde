"""`pycuda.driver` on the simulated device. Refuses what the real one refuses: no current context, Python numbers as
kernel arguments, a block that is no tuple, foreign pointers."""

from __future__ import annotations

import atexit
import os
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simulated_cuda import ContractBroken, machine
from simulated_kernels import Launch, load


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class LogicError(Error):
    pass


class LaunchError(Error):
    pass


class RuntimeError(Error):
    pass


class CompileError(Error):
    pass


class host_alloc_flags:
    PORTABLE, DEVICEMAP, WRITECOMBINED = 1, 2, 4


class event_flags:
    DEFAULT, BLOCKING_SYNC, DISABLE_TIMING, INTERPROCESS = 0, 1, 2, 4


class ctx_flags:
    SCHED_AUTO, SCHED_SPIN, SCHED_YIELD, BLOCKING_SYNC, SCHED_BLOCKING_SYNC, MAP_HOST = 0, 1, 2, 4, 4, 8


_initialised = False


def init(flags: int = 0) -> None:
    global _initialised
    _initialised = True


def get_version() -> tuple[int, int, int]:
    return (12, 6, 0)


def get_driver_version() -> int:
    return 12060


def _current() -> Context:
    context = machine.current
    if context is None:
        raise LogicError("no currently active context?")
    return context  # type: ignore[no-any-return]


class Context:
    def __init__(self, primary: bool) -> None:
        self.primary, self.handle = primary, id(self)

    def push(self) -> None:
        machine.stack.append(self)

    @staticmethod
    def pop() -> None:
        if not machine.stack:
            raise LogicError("cannot pop non-current context")
        machine.stack.pop()

    def detach(self) -> None:
        if self in machine.stack:
            machine.stack.remove(self)

    @staticmethod
    def synchronize() -> None:
        _current()
        machine.synchronize(counted=True)

    @staticmethod
    def get_current() -> Context:
        return _current()

    @staticmethod
    def get_device() -> Device:
        _current()
        return Device(0)


_PRIMARY = Context(primary=True)


class Device:
    def __init__(self, index: int | str) -> None:
        if not _initialised:
            raise LogicError("cuDeviceGet failed: initialization error")
        if index != 0:
            raise LogicError("cuDeviceGet failed: invalid device ordinal")

    @staticmethod
    def count() -> int:
        return 1

    def name(self) -> str:
        return "Orin (simulated)"

    def compute_capability(self) -> tuple[int, int]:
        return machine.capability

    def total_memory(self) -> int:
        return machine.budget

    def retain_primary_context(self) -> Context:
        return _PRIMARY

    def make_context(self, flags: int = 0) -> Context:
        made = Context(primary=False)
        made.push()
        return made


class _NeedsContext:
    """What PyCUDA's destructors give back in a current context only: without one they warn, and it stays taken."""

    def __del__(self) -> None:
        if machine.current is None:
            machine.counts["leaked"] += 1


class Stream(_NeedsContext):
    def __init__(self, flags: int = 0) -> None:
        _current()
        self._stream = machine.new_stream(blocking=flags == 0)

    @property
    def handle(self) -> int:
        return self._stream.handle

    def synchronize(self) -> None:
        machine.synchronize(self.handle, counted=True)

    def is_done(self) -> bool:
        return not self._stream.queue

    def wait_for_event(self, event: Event) -> None:
        machine.queue(self.handle, event._recorded)  # what was recorded last until now


def _handle(stream: Stream | None) -> int:
    if stream is not None and not isinstance(stream, Stream):
        raise TypeError(f"expected a pycuda Stream or None, got {type(stream).__name__}")
    return 0 if stream is None else stream.handle


class _Recorded:
    """A place in the work of a stream, reached or not."""

    def __init__(self, handle: int) -> None:
        self._handle, self.reached = handle, False
        machine.queue(handle, self._reach)

    def _reach(self) -> None:
        self.reached = True

    def __call__(self) -> None:
        if not self.reached:
            machine.finish(self._handle, self._reach)


class Event(_NeedsContext):
    def __init__(self, flags: int = 0) -> None:
        _current()
        self._recorded: Callable[[], None] = lambda: None

    def record(self, stream: Stream | None = None) -> Event:
        self._recorded = _Recorded(_handle(stream))
        return self

    def synchronize(self) -> Event:
        machine.counts["sync"] += 1
        self._recorded()
        return self

    def query(self) -> bool:
        return not isinstance(self._recorded, _Recorded) or self._recorded.reached

    def time_since(self, event: Event) -> float:
        return 0.5

    def time_till(self, event: Event) -> float:
        return 0.5


class DeviceAllocation:
    def __init__(self, address: int) -> None:
        self._address: int | None = address

    def __int__(self) -> int:
        if self._address is None:
            raise LogicError("DeviceAllocation.__int__: freed")
        return self._address

    __index__ = __int__

    def free(self) -> None:
        address = int(self)
        self._address = None
        if machine.current is None:
            machine.counts["leaked"] += 1  # PyCUDA warns of a context-dependent clean-up, and the memory stays taken
            return
        machine.free(address)

    def __del__(self) -> None:
        if self._address is not None:
            self.free()

    def as_buffer(self, size: int, offset: int = 0) -> memoryview:
        return memoryview(machine.at(int(self) + offset, size))


def mem_alloc(bytes: int, /) -> DeviceAllocation:
    _current()
    made = machine.allocate(int(bytes), "device")
    if made is None:
        raise MemoryError("cuMemAlloc failed: out of memory")
    return DeviceAllocation(made.address)


def mem_get_info() -> tuple[int, int]:
    _current()
    return machine.budget - machine.used, machine.budget


class PagelockedHostAllocation:
    def __init__(self, size: int, flags: int) -> None:
        made = machine.allocate(size, "mapped" if flags & host_alloc_flags.DEVICEMAP else "pinned")
        if made is None:
            raise MemoryError("cuMemHostAlloc failed: out of memory")
        self._made, self._flags, self._freed = made, flags, False
        self.__array_interface__: dict[str, Any] = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (made.address, False),
            "version": 3,
        }

    def get_device_pointer(self) -> int:
        _current()
        if not self._flags & host_alloc_flags.DEVICEMAP:
            raise LogicError("cuMemHostGetDevicePointer failed: invalid argument")
        return self._made.address

    def get_flags(self) -> int:
        return self._flags

    def free(self) -> None:
        _current()
        self._freed = True
        machine.free(self._made.address)

    def __del__(self) -> None:
        if getattr(self, "_freed", True):
            return
        if machine.current is None:
            machine.counts["leaked"] += 1  # as with `DeviceAllocation`
        else:
            self.free()


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> NDArray[Any]:
    _current()
    kind = np.dtype(dtype)
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (int(shape),)
    allocation = PagelockedHostAllocation(int(np.prod(sizes)) * kind.itemsize, mem_flags)
    allocation.__array_interface__ |= {"shape": sizes, "typestr": kind.str}
    return np.asarray(allocation)  # whose base is the allocation, as the C extension makes it


def memcpy_htod(dest: Any, src: Any) -> None:
    memcpy_htod_async(dest, src)
    machine.synchronize(counted=True)


def memcpy_htod_async(dest: Any, src: Any, stream: Stream | None = None) -> None:
    _current()
    machine.counts["upload"] += 1
    data = np.frombuffer(memoryview(src).cast("B"), np.uint8)
    into = machine.at(_address(dest), len(data))
    machine.queue(_handle(stream), lambda: np.copyto(into, data))


def memcpy_dtoh(dest: Any, src: Any) -> None:
    memcpy_dtoh_async(dest, src)
    machine.synchronize(counted=True)


def memcpy_dtoh_async(dest: Any, src: Any, stream: Stream | None = None) -> None:
    _current()
    machine.counts["readback"] += 1
    into = np.frombuffer(memoryview(dest).cast("B"), np.uint8)
    data = machine.at(_address(src), len(into))
    machine.queue(_handle(stream), lambda: np.copyto(into, data))


def memcpy_dtod(dest: Any, src: Any, size: int) -> None:
    memcpy_dtod_async(dest, src, size)


def memcpy_dtod_async(dest: Any, src: Any, size: int, stream: Stream | None = None) -> None:
    _current()
    into, data = machine.at(_address(dest), size), machine.at(_address(src), size)
    machine.queue(_handle(stream), lambda: np.copyto(into, data))


def memset_d8(dest: Any, data: int, size: int) -> None:
    _current()
    machine.synchronize()
    machine.at(_address(dest), size)[:] = data


def _address(where: Any) -> int:
    if not isinstance(where, DeviceAllocation | int | np.integer):
        raise TypeError(f"expected a DeviceAllocation or an address, got {type(where).__name__}")
    return int(where)


class Module(_NeedsContext):
    def __init__(self, image: bytes) -> None:
        _current()
        kernels = load(image)
        if kernels is None:
            raise LogicError("cuModuleLoadDataEx failed: device kernel image is invalid")
        self._kernels = kernels

    def get_function(self, name: str) -> Function:
        try:
            return Function(name, self._kernels(name))
        except AttributeError:
            raise LogicError("cuModuleGetFunction failed: named symbol not found") from None


def module_from_buffer(buffer: bytes, options: Sequence[Any] = (), message_handler: Any = None) -> Module:
    return Module(bytes(buffer))


def module_from_file(filename: str) -> Module:
    with open(filename, "rb") as file:  # noqa: PTH123
        return Module(file.read())


class Function:
    def __init__(self, name: str, launch: Launch) -> None:
        self._name, self._launch = name, launch
        self._format: str | None = None

    def __call__(
        self,
        *args: Any,
        block: tuple[int, ...] | None = None,
        grid: tuple[int, ...] = (1, 1),
        stream: Stream | None = None,
        shared: int = 0,
        texrefs: Sequence[Any] = (),
        time_kernel: bool = False,
    ) -> None:
        if block is None:
            raise ValueError("must specify block size")
        packed = b""
        values: list[Any] = []
        for number, value in enumerate(args):
            if isinstance(value, DeviceAllocation):
                value = np.uintp(int(value))
            elif isinstance(value, bool | int | float):
                raise TypeError(f"invalid type on parameter #{number} (0-based)")
            elif not isinstance(value, np.number):
                pointer = getattr(value, "gpudata", None)
                value = np.uintp(pointer if pointer is not None else value.__cuda_array_interface__["data"][0])
            packed += value.tobytes()
            values.append(value.item())
        self._start(grid, block, _handle(stream), values, shared)

    def prepare(self, arg_types: str, texrefs: Any = None) -> Function:
        self._format = arg_types
        return self

    def prepared_call(self, grid: tuple[int, ...], block: tuple[int, ...], *args: Any, shared_size: int = 0) -> None:
        self.prepared_async_call(grid, block, None, *args, shared_size=shared_size)

    def prepared_async_call(
        self, grid: tuple[int, ...], block: tuple[int, ...], stream: Stream | None, *args: Any, shared_size: int = 0
    ) -> None:
        if self._format is None:
            raise LogicError("the function was not prepared")
        if not isinstance(block, tuple):
            raise ContractBroken("PyCUDA takes a block that is no tuple for the first argument of the kernel")
        struct.pack(self._format, *args)  # raises what PyCUDA's packing raises
        self._start(grid, block, _handle(stream), list(args), shared_size)

    def _start(self, grid: Any, block: Any, handle: int, args: list[Any], shared: int) -> None:
        _current()
        shape = tuple(block) + (1,) * (3 - len(block))
        blocks = tuple(grid) + (1,) * (3 - len(grid))
        if not 0 < int(np.prod(shape)) <= 1024 or shape[2] > 64 or not all(size > 0 for size in blocks):
            raise LaunchError(f"cuLaunchKernel failed: invalid argument: grid {blocks}, block {shape}")
        if max(blocks[1:]) > 65535 or shared > 48 * 1024:
            raise LaunchError("cuLaunchKernel failed: invalid argument")
        machine.counts["launch"] += 1
        work, types = self._launch, self._format
        machine.queue(handle, lambda: work(types, blocks, shape, args, shared))


@atexit.register
def _abort_with_a_context() -> None:
    if machine.stack:
        sys.stderr.write("PyCUDA ERROR: The context stack was not empty upon module cleanup.\n")
        sys.stderr.flush()
        os._exit(134)
