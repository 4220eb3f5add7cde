"""The CUDA kernels on the host: compiled by g++ through a shim, launched over the whole grid.

`host_module()` stands for a `pycuda.driver.Module`: `get_function(name)` gives what `prepare` and `prepared_async_call`
can be called on. Addresses are those of host memory; a launch has ended when it returns.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from vpi_ops import kernels
from vpi_ops.cuda import SIGNATURES

FOLDER = Path(__file__).parent
OPTIONS = (
    *("-std=c++17", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    *("-Wno-missing-field-initializers", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"),
    *("-include", "cuda_shim.h"),
)


class LaunchError(RuntimeError):
    """A launch that a device would refuse, or would not survive."""


class HostFunction:
    """One kernel."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._launch = getattr(library, f"launch_{name}")
        self._launch.restype = ctypes.c_char_p
        self._launch.argtypes = [ctypes.POINTER(ctypes.c_uint), ctypes.c_char_p, ctypes.c_size_t]
        said = getattr(library, f"signature_{name}")
        said.restype = ctypes.c_char_p
        self.name = name
        self.signature: str = said().decode()
        self._format: str | None = None

    def prepare(self, arg_types: str) -> HostFunction:
        """Arguments to come, as `struct` letters."""
        self._format = arg_types
        return self

    def prepared_async_call(
        self, grid: tuple[int, ...], block: tuple[int, ...], stream: Any, *arguments: float, shared_size: int = 0
    ) -> None:
        """Run it. Raises LaunchError, and struct.error for arguments that don't fit what was prepared."""
        if not isinstance(block, tuple) or self._format is None or shared_size:
            raise LaunchError(f"{self.name}: a block is a tuple, a function is prepared first, and no memory is asked")
        packed = struct.pack("@" + self._format, *arguments)
        dims = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
        fault = self._launch(dims, packed, len(packed))
        if fault:
            raise LaunchError(f"{self.name}: {fault.decode()}")


class HostModule:
    """A compiled library of kernels."""

    def __init__(self, file: Path) -> None:
        self._library = ctypes.CDLL(str(file))

    def get_function(self, name: str) -> HostFunction:
        """Raises AttributeError for a kernel that is not there."""
        return HostFunction(self._library, name)

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Blocks and threads run from the last to the first: what leans on an order that nobody promised, differs."""
        self._library.shim_backward(1)
        try:
            yield
        finally:
            self._library.shim_backward(0)


@lru_cache
def host_module() -> HostModule:
    """The product's kernels. Raises FileNotFoundError without g++."""
    return HostModule(compiled(kernels.ENTRY, tuple(SIGNATURES)))


def compiled(entry: Path, names: Iterable[str]) -> Path:
    """A library of the kernels `names` in `entry`, kept in the temporary folder until a source changes. Raises
    FileNotFoundError without g++, CalledProcessError when it doesn't compile."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise FileNotFoundError("the host shim needs g++")
    text = f'#include "{entry}"\n' + "".join(f"SHIM_KERNEL({name})\n" for name in names)
    parts = [*sorted(FOLDER.rglob("*.h")), FOLDER / "shim.cpp", *sorted(entry.parent.glob("*.cu*")), Path(__file__)]
    digest = hashlib.sha256(text.encode() + b"".join(part.read_bytes() for part in parts)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"stillwatch-kernel-shim-{os.getuid()}"
    file = folder / f"{digest}.so"
    if not file.is_file():
        folder.mkdir(mode=0o700, exist_ok=True)
        source, half = folder / f"{digest}-{os.getpid()}.cpp", folder / f"{digest}-{os.getpid()}.so"
        source.write_text(text, encoding="utf-8")
        includes = [f"-I{FOLDER / 'include'}", f"-I{entry.parent}"]
        command = [compiler, *OPTIONS, *includes, str(source), str(FOLDER / "shim.cpp"), "-o", str(half)]
        subprocess.run(command, check=True)
        half.replace(file)
        source.unlink()
    return file
