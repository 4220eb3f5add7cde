"""What is written in C: compiled once, by the machine that runs it, for exactly this processor.

The library is kept in the user's cache as `host-KEY.so`. KEY names the source, its constants, the compiler and the
processor, so that a stale file, or one of another machine in a shared home, is never taken; the file ends with the
digest of what is before it, so that a damaged one is seen and made anew. Without a compiler nothing is lost but time:
`vpi_ops.host` does the same with OpenCV, and ONNX Runtime what `engines.native` does.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from config.errors import EngineFault
from vpi_ops import host
from vpi_ops.kernels import cache_folder, keep

INSTALL = "sudo apt-get install -y gcc libc6-dev"
_CONSTANTS = {
    "NOISE_PEAK": host.NOISE_PEAK,
    "TOP_SHARE": host.TOP_SHARE,
    "HALF_WEIGHT": host.LEVEL_WEIGHTS[0],
    "QUARTER_WEIGHT": host.LEVEL_WEIGHTS[1],
    "EXPOSURE_GATE": host.EXPOSURE_GATE,
    "EXPOSURE_SHARE": host.EXPOSURE_SHARE,
    "EXPOSURE_FLOOR": host.EXPOSURE_FLOOR,
}
_OPTIONS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-Wall", "-Wextra", "-fno-math-errno")


@dataclass(frozen=True)
class Source:
    """A C file and what it is compiled with besides the options that all are."""

    file: Path
    options: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        return [*_OPTIONS, *self.options, str(self.file), "-lm", "-pthread"]


OPS = Source(
    Path(__file__).parent / "ops.c",
    (
        "-ffp-contract=off",  # as NumPy rounds: a product and a sum are two roundings
        *(f"-D{name}={value!r}" for name, value in _CONSTANTS.items()),
    ),
)
_TUNED = {"x86_64": "-march=native", "aarch64": "-mcpu=native"}
_COMPILED_WITHIN_S = 120
_PROCESSOR = ("model name", "flags", "CPU implementer", "CPU part", "Features")
"""Lines of /proc/cpuinfo that say what code a processor understands."""

_lock = threading.Lock()
_opened: dict[Source, ctypes.CDLL | str] = {}


def opened(source: Source = OPS) -> ctypes.CDLL | str:
    """The library, or a sentence why there is none; found out once per process."""
    with _lock:
        if source not in _opened:
            try:
                _opened[source] = load(find_compiler(), cache_folder(), source)
            except (EngineFault, OSError, RuntimeError) as error:  # RuntimeError: there is no home for a cache
                _opened[source] = str(error)
        return _opened[source]


def find_compiler() -> Path:
    """The C compiler: $STILLWATCH_CC, else what is on PATH. Raises EngineFault."""
    if given := os.environ.get("STILLWATCH_CC"):
        if found := shutil.which(given):
            return Path(found)
        raise EngineFault(f"STILLWATCH_CC names {given}, and there is no such program")
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return Path(found)
    raise EngineFault(f"there is no C compiler on this machine: {INSTALL}")


def load(compiler: Path, folder: Path, source: Source = OPS) -> ctypes.CDLL:
    """The library from the cache `folder`, compiled first where it is not there. Raises EngineFault with what the
    compiler said."""
    file = folder / f"host-{_key(compiler, source)}.so"
    if _whole(file):
        try:
            return ctypes.CDLL(str(file))
        except OSError:  # of a file system that allows no code, say: what is compiled anew may lie elsewhere
            file.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="stillwatch-") as scratch:
        built = Path(scratch) / "host.so"
        _compile(compiler, source, built)
        code = built.read_bytes()
        keep(file, code + hashlib.sha256(code).digest())
        try:
            return ctypes.CDLL(str(file if _whole(file) else built))
        except OSError as error:
            raise EngineFault(f"what {compiler} made can't be loaded: {error}") from None


def _whole(file: Path) -> bool:
    """Whether a kept library is all there. The linker loads any file that begins well, and dies of what is missing."""
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return len(content) > 32 and hashlib.sha256(content[:-32]).digest() == content[-32:]


def _key(compiler: Path, source: Source) -> str:
    """Names what the library depends on, sixteen hexadecimal digits. Raises EngineFault."""
    parts = [
        source.file.read_text(),
        *_OPTIONS,
        *source.options,
        str(compiler),
        _said([str(compiler), "--version"]),
        platform.machine(),
    ]
    return hashlib.sha256("\0".join([*parts, *_processor()]).encode()).hexdigest()[:16]


def _processor() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.split("\t")[0].split(":")[0].strip() in _PROCESSOR})


def _compile(compiler: Path, source: Source, into: Path) -> None:
    """For this very processor where the compiler can, else for any of its kind. Raises EngineFault."""
    command = [str(compiler), *source.command, "-o", str(into)]
    tuned = _TUNED.get(platform.machine())
    if tuned is not None:
        try:
            _said([*command, tuned])
            return
        except EngineFault:  # an old clang knows no native processor on ARM
            pass
    _said(command)


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_COMPILED_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineFault(f"{command[0]} can't be run: {error}") from None
    if done.returncode:
        raise EngineFault(f"{command[0]} failed with status {done.returncode}: {done.stdout.strip()[-600:]}")
    return done.stdout
