"""CUDA graphs: what a stream was given once, given again in one call.

A small tower is hundreds of short kernels, and queueing them one by one costs a Jetson's CPU more than they take. Every
context of ours has fixed shapes and addresses, so its work can be recorded and replayed. PyCUDA has no calls for it;
the driver's own are taken through ctypes, as cuda.h of CUDA 13.0 declares them (the names are there since 11.4). None
has run on a GPU: whoever records must do without when EngineFault says that it doesn't work.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from config.errors import EngineFault

_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile is no fault."""


class Recorded:
    """Work of one stream, ready to be queued again. The context must be current at each call."""

    def __init__(self, driver: Driver, ready: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
        self._calls, self._ready, self._stream = driver, ready, stream

    def launch(self) -> None:
        """Queue it. Raises EngineFault."""
        self._calls.call("cuGraphLaunch", self._ready, self._stream)

    def destroy(self) -> None:
        self._calls.call("cuGraphExecDestroy", self._ready)


class Driver:
    """The few calls of libcuda. library: what ctypes loads, or an object with its functions."""

    def __init__(self, library: str | Any = "libcuda.so.1") -> None:
        try:
            self._library: Any = ctypes.CDLL(library) if isinstance(library, str) else library
        except OSError as error:
            raise EngineFault(f"{library}: can't be loaded ({error})") from error

    def record(self, stream: int, queue: Callable[[], None]) -> Recorded:
        """What `queue` gives to the stream isn't carried out, but recorded. The context must be current. Raises
        EngineFault; the stream can be used as before then."""
        handle, graph, ready = ctypes.c_void_p(stream), ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuStreamBeginCapture_v2", handle, ctypes.c_int(_THREAD_LOCAL))
        try:
            queue()
        finally:
            self.call("cuStreamEndCapture", handle, ctypes.byref(graph))
        try:
            self.call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        finally:
            self.call("cuGraphDestroy", graph)
        return Recorded(self, ready, handle)

    def call(self, name: str, *arguments: Any) -> None:
        """One call of libcuda by its name. Raises EngineFault."""
        status = getattr(self._library, name)(*arguments)
        if status:
            raise EngineFault(f"{name}: CUDA error {status}")
