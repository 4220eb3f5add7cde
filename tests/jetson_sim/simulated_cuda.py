"""The CUDA device that the stand-ins share: memory, contexts, streams and counts.

It is as lazy as a device may be: what is queued on a stream runs when somebody synchronises, never before, so whoever
reads too early finds what was there before. Addresses are those of real host memory; all of them are known, and any
other, freed or overrun one is refused. The real driver would corrupt memory or kill the context there.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


class ContractBroken(AssertionError):
    """What the real library answers with undefined behaviour."""


@dataclass
class Allocation:
    """kind: device, mapped or pinned."""

    address: int
    buffer: Bytes
    kind: str

    @property
    def end(self) -> int:
        return self.address + len(self.buffer)


@dataclass
class SimulatedStream:
    handle: int
    blocking: bool
    queue: deque[Callable[[], None]] = field(default_factory=deque)


class Counts(Counter[str]):
    """Also told in the folder STILLWATCH_SIM_COUNTS, a file a process and kind, at the first, tenth, hundredth, … of
    it: a process that is killed could not at its end."""

    def __setitem__(self, kind: str, count: int) -> None:
        super().__setitem__(kind, count)
        folder = os.environ.get("STILLWATCH_SIM_COUNTS")
        if folder and str(count).strip("0") == "1":
            (Path(folder) / f"{kind}-{os.getpid()}").write_text(str(count))


class Machine:
    """One device. counts: copies by direction, launches, synchronisations. budget: bytes that can be allocated."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counts()
        self.budget = 2**32
        self.capability = (8, 7)
        self._lock = threading.RLock()
        self._addresses: list[int] = []
        self._allocations: dict[int, Allocation] = {}
        self._local = threading.local()
        self._handles = 0x5000
        self.streams: dict[int, SimulatedStream] = {0: SimulatedStream(0, True)}

    # contexts

    @property
    def stack(self) -> list[Any]:
        """This thread's contexts."""
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        stack: list[Any] = self._local.stack
        return stack

    @property
    def current(self) -> Any | None:
        return self.stack[-1] if self.stack else None

    # memory

    def allocate(self, size: int, kind: str) -> Allocation | None:
        """None when memory is out. Contents are what nobody has written: 0xA5."""
        with self._lock:
            if size <= 0 or self.used + size > self.budget:
                return None
            raw = np.full(size + 256, 0xA5, np.uint8)
            start = -raw.ctypes.data % 256
            buffer = raw[start : start + size]
            made = Allocation(int(buffer.ctypes.data), buffer, kind)
            self._allocations[made.address] = made
            insort(self._addresses, made.address)
            return made

    def free(self, address: int) -> None:
        with self._lock:
            self.synchronize()  # cuMemFree waits for the device
            if self._allocations.pop(address, None) is None:
                raise ContractBroken(f"{address:#x} is freed, and was not allocated")
            self._addresses.remove(address)

    @property
    def used(self) -> int:
        return sum(len(one.buffer) for one in self._allocations.values())

    def find(self, address: int) -> Allocation | None:
        with self._lock:
            place = bisect_right(self._addresses, address) - 1
            found = self._allocations[self._addresses[place]] if place >= 0 else None
        return found if found is not None and address < found.end else None

    def at(self, address: int, size: int) -> Bytes:
        """`size` bytes of device-visible memory at `address`."""
        found = self.find(address)
        if found is None:
            raise ContractBroken(f"{address:#x} is no address of the device: never allocated, or freed")
        if found.kind == "pinned":
            raise ContractBroken(f"{address:#x} is page-locked memory that was not mapped for the device")
        if address + size > found.end:
            raise ContractBroken(f"{size} bytes at {address:#x} end {address + size - found.end} beyond the allocation")
        offset = address - found.address
        return found.buffer[offset : offset + size]

    # streams

    def new_stream(self, *, blocking: bool) -> SimulatedStream:
        with self._lock:
            self._handles += 16
            made = self.streams[self._handles] = SimulatedStream(self._handles, blocking)
            return made

    def stream(self, handle: int) -> SimulatedStream:
        if handle not in self.streams:
            raise ContractBroken(f"{handle} is no stream")
        return self.streams[handle]

    def queue(self, handle: int, work: Callable[[], None]) -> None:
        with self._lock:
            stream = self.stream(handle)
            if stream.handle == 0:  # the default stream comes after everything on blocking streams
                for other in self.streams.values():
                    if other.blocking:
                        self._drain(other)
            elif stream.blocking:
                self._drain(self.streams[0])
            stream.queue.append(work)

    def synchronize(self, handle: int | None = None, *, counted: bool = False) -> None:
        """Run what is queued on a stream; None = on all."""
        with self._lock:
            if counted:
                self.counts["sync"] += 1
            for stream in [self.stream(handle)] if handle is not None else list(self.streams.values()):
                self._drain(stream)

    def finish(self, handle: int, upto: Callable[[], None]) -> None:
        """Run a stream up to one piece of its work, done already or not."""
        with self._lock:
            stream = self.stream(handle)
            while upto in stream.queue:
                stream.queue.popleft()()

    def _drain(self, stream: SimulatedStream) -> None:
        while stream.queue:
            stream.queue.popleft()()


machine = Machine()
