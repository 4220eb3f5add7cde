"""The CUDA sources, what they are built for, and where what was built lies.

One toolkit builds one file, `stillwatch-DIGEST-cuda12.6.fatbin`, with machine code for the architectures of its row
in `TARGETS`, and PTX, which a driver can translate for newer ones. DIGEST names the sources, so that a stale file is
never taken.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import structlog

from config.errors import EngineFault

FOLDER = Path(__file__).parent
ENTRY = FOLDER / "stillwatch.cu"
"""Includes all the others: one module, one load."""
BUILT = FOLDER / "built"
"""Where `scripts/build-kernels` puts what it builds."""
OPTIONS = ("-std=c++17",)

Version = tuple[int, int]

_log = structlog.get_logger(__name__)


class Target(NamedTuple):
    """machine: compute capabilities (×10) to make machine code for. ptx: the one to make PTX for."""

    machine: tuple[int, ...]
    ptx: int


TARGETS: Mapping[int, Target] = {12: Target((87,), 87), 13: Target((87, 110), 87)}
"""By major version of the toolkit: JetPack 6 has CUDA 12 (Orin), JetPack 7 has CUDA 13 (Thor, and Orin from 7.2)."""


def sources() -> list[Path]:
    """Every file that is compiled."""
    return sorted([*FOLDER.glob("*.cu"), *FOLDER.glob("*.cuh")])


def digest() -> str:
    """Names the content of the sources, ten hexadecimal digits."""
    content = b"\0".join(file.name.encode() + b"\0" + file.read_bytes() for file in sources())
    return hashlib.sha256(content).hexdigest()[:10]


def fatbin_name(toolkit: Version) -> str:
    """What a toolkit builds ahead."""
    return f"stillwatch-{digest()}-cuda{toolkit[0]}.{toolkit[1]}.fatbin"


def cubin_name(toolkit: Version, architecture: str) -> str:
    """What is compiled on the device itself for an architecture such as `sm_87`."""
    return f"stillwatch-{digest()}-cuda{toolkit[0]}.{toolkit[1]}-{architecture}.cubin"


def found(folders: Iterable[Path], newest: Version, architecture: str) -> list[Path]:
    """Files of these sources that a driver of CUDA `newest` may load on an architecture; newest toolkit first, folders
    in the order given."""
    pattern = re.compile(rf"stillwatch-{digest()}-cuda(\d+)\.(\d+)(?:\.fatbin|-{architecture}\.cubin)")
    files = []
    for folder in folders:
        for file in sorted(folder.glob("stillwatch-*")):
            if (name := pattern.fullmatch(file.name)) and (toolkit := (int(name[1]), int(name[2]))) <= newest:
                files.append((toolkit, file))
    return [file for _, file in sorted(files, key=lambda each: each[0], reverse=True)]


def cache_folder() -> Path:
    """Where a device keeps what it compiled: systemd's CACHE_DIRECTORY, else XDG_CACHE_HOME or ~/.cache."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given.split(":")[0]) / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stillwatch" / "kernels"


def find_nvcc() -> Path | None:
    """The CUDA compiler: $NVCC, on PATH, or where JetPack puts it."""
    for found in (os.environ.get("NVCC"), shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"):
        if found and os.access(found, os.X_OK):
            return Path(found)
    return None


def toolkit_of(nvcc: Path) -> Version:
    """The version that a compiler says it has. Raises EngineFault."""
    said = _run([str(nvcc), "--version"])
    found = re.search(r"release (\d+)\.(\d+)", said)
    if found is None:
        raise EngineFault(f"{nvcc}: found no release in what `--version` says, expected `release 12.6` or so")
    return int(found[1]), int(found[2])


def code_options(toolkit: Version) -> list[str]:
    """What a toolkit is to make code for. Raises EngineFault when there is no row for it."""
    if toolkit[0] not in TARGETS:
        known = " or ".join(str(major) for major in TARGETS)
        raise EngineFault(f"CUDA {toolkit[0]}.{toolkit[1]}: kernels are built with CUDA {known}; JetPack 6 or 7 has it")
    target = TARGETS[toolkit[0]]
    wanted = [(number, f"sm_{number}") for number in target.machine] + [(target.ptx, f"compute_{target.ptx}")]
    return [f"-gencode=arch=compute_{number},code={code}" for number, code in wanted]


def build(nvcc: Path, folder: Path = BUILT) -> tuple[Path, str]:
    """Build all targets of a toolkit into `folder`; the file, and what ptxas says about each kernel's resources. The
    file appears whole or not at all. Raises EngineFault."""
    toolkit = toolkit_of(nvcc)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / fatbin_name(toolkit)
    half = file.with_suffix(f".{os.getpid()}")
    try:
        options = [*OPTIONS, *code_options(toolkit), "-Xptxas=-v", "-Werror=all-warnings"]
        said = _run([str(nvcc), "--fatbin", *options, "-o", str(half), str(ENTRY)])
        half.replace(file)
    finally:
        half.unlink(missing_ok=True)
    return file, said


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise EngineFault(f"{command[0]} failed with status {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout


def keep(file: Path, code: bytes) -> None:
    """Write what was compiled; whole or not at all. A place that can't be written is no fault: the next start compiles
    again."""
    half = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(code)
        half.replace(file)
    except OSError as error:
        _log.warning("kernels_not_kept", file=str(file), error=str(error))
