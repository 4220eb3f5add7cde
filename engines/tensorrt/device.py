"""What the TensorRT encoder asks of CUDA. `engines.tensorrt.cuda` answers with PyCUDA and the project's kernel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import NDArray

from engines.preprocess import OnDevice


class Stream(Protocol):
    """An order of work on the GPU."""

    @property
    def handle(self) -> int: ...

    def synchronize(self) -> None:
        """Wait until everything queued is done. Raises EngineFault when some of it has failed."""
        ...


class Replay(Protocol):
    """Recorded work of one stream."""

    def launch(self) -> None: ...

    def destroy(self) -> None: ...


class Block(Protocol):
    """Device memory; freed with `free`, in a thread in which the context is active."""

    def __int__(self) -> int: ...

    def free(self) -> None: ...


class Gpu(Protocol):
    """One GPU and its primary context. Every method but `active` wants to be called within `active`; all raise
    EngineFault. What takes a stream is queued; arrays must be page-locked (`staging`) and stay until it is done."""

    @property
    def name(self) -> str: ...

    @property
    def capability(self) -> tuple[int, int]: ...

    def active(self) -> AbstractContextManager[None]:
        """Makes the primary context current in this thread."""
        ...

    def stream(self) -> Stream: ...

    def allocate(self, nbytes: int) -> Block:
        """Memory that holds zeros."""
        ...

    def staging(self, nbytes: int) -> NDArray[Any]:
        """Page-locked host memory, uint8 (nbytes,)."""
        ...

    def free_bytes(self) -> int: ...

    def record(self, stream: Stream, queue: Callable[[], None]) -> Replay:
        """Record what `queue` gives to the stream, instead of carrying it out."""
        ...

    def gather(
        self,
        picture: OnDevice,
        slots: int,
        fine: int,
        coarse: int,
        out: int,
        stream: Stream,
        *,
        patch: int,
        cols: int,
        scale: tuple[float, float, float],
        shift: tuple[float, float, float],
        half: bool = False,
    ) -> None:
        """`OnDevice.gather`."""
        ...

    def upload(self, address: int, data: NDArray[Any], stream: Stream) -> None: ...

    def download(self, data: NDArray[Any], address: int, stream: Stream) -> None: ...

    def scatter_rows(
        self,
        new: int,
        cache: int,
        index: int,
        source: int,
        n: int,
        stream: Stream,
        *,
        planes: int,
        row_bytes: int,
        new_rows: int,
        cache_rows: int,
    ) -> None:
        """cache (planes, cache_rows, row_bytes)[p, index[j]] = new (planes, new_rows, row_bytes)[p, source[j]] for
        j < n; index and source are addresses of int32 (n,). new and cache may be one array, if no row is both read and
        written. Nothing but the rows moves."""
        ...
