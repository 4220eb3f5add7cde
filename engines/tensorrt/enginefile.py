"""A built engine on disk: what it was built for, then the plan.

    8 bytes   b"SWENGINE"
    8 bytes   length of the header, little-endian
    header    JSON: the identity, SHA-256 and length of the plan, and what the verification found
    plan      as TensorRT serialised it

A file appears whole or not at all. A plan works only with the TensorRT, the GPU and the graph it was built for, and a
damaged one can take the process down; so nothing is given to TensorRT before identity and hash agree.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines import store
from engines.manifest import Model, sha256

MAGIC = b"SWENGINE"
RECIPE = 1
"""Raised when what we ask of the builder changes."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that an engine depends on. graph: SHA-256 of the graph file and of the weights it points to; rows:
    the row count of each profile, none for a graph of fixed shapes; slots: of a cache whose length the graph leaves
    open."""

    tensorrt: str
    capability: str
    l4t: str
    graph: str
    precision: str
    rows: tuple[int, ...]
    slots: int = 0
    recipe: int = RECIPE

    def difference(self, other: dict[str, Any]) -> str:
        """In words, where a stored identity differs; empty where it doesn't."""
        return "; ".join(
            f"{key}: found {other.get(key)!r}, expected {value!r}"
            for key, value in json.loads(json.dumps(asdict(self))).items()
            if other.get(key) != value
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a file. plan: None when it can't be used, and then `reason` says why. refused: the reason why such
    an engine was built, verified and not accepted. checks: what the verification found."""

    plan: bytes | None
    reason: str = ""
    refused: str = ""
    checks: tuple[dict[str, Any], ...] = ()


def folder_for(name: str) -> Path:
    """Where engines of a model lie: `engines/NAME` beside the store of models, or under STILLWATCH_ENGINES."""
    named = os.environ.get("STILLWATCH_ENGINES")
    root = Path(named).expanduser().absolute() if named else store.places()[0].with_name("engines")
    return root / name


def discard(name: str) -> None:
    """Take the engines of a model away, if there are any. What can't be removed stays; it fits no other model."""
    shutil.rmtree(folder_for(name), ignore_errors=True)


def hash_of(model: Model, graph: str) -> str:
    """SHA-256 over the graph file and the hashes of the weights."""
    digest = hashlib.sha256(sha256(model.graph(graph)).encode())
    for file, weights in sorted(model.manifest.weights.items()):
        digest.update(f"{file} {weights}".encode())
    return digest.hexdigest()


def l4t(release: Path = Path("/etc/nv_tegra_release")) -> str:
    """Release of the Jetson's Linux, such as 36.4.3; `none` elsewhere."""
    try:
        found = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", release.read_text(encoding="utf-8"))
    except OSError:
        return "none"
    return f"{found[1]}.{found[2]}" if found else "unknown"


def look(file: Path, identity: Identity) -> Found:
    """Read a file and check it against what is wanted."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return Found(None, "not built yet")
    except OSError as error:
        return Found(None, f"{file}: can't be read ({error.strerror})")
    size = int.from_bytes(content[8:16], "little")
    try:
        header = json.loads(content[16 : 16 + size])
        found, digest = header["identity"], header["sha256"]
    except (ValueError, KeyError, TypeError):
        return Found(None, f"{file}: damaged: no engine file of Stillwatch")
    if content[:8] != MAGIC:
        return Found(None, f"{file}: damaged: no engine file of Stillwatch")
    if difference := identity.difference(found):
        return Found(None, f"{file}: stale: {difference}")
    plan = content[16 + size :]
    if hashlib.sha256(plan).hexdigest() != digest:
        return Found(None, f"{file}: damaged: SHA-256 of the plan isn't what was written")
    return Found(plan, refused=header.get("refused", ""), checks=tuple(header.get("checks", ())))


def install(
    file: Path, identity: Identity, plan: bytes, *, checks: tuple[dict[str, Any], ...] = (), refused: str = ""
) -> None:
    """Write an engine file whole or not at all. A refused one is written without its plan, so that the next start knows
    and doesn't build it again. Raises StorageError."""
    kept = b"" if refused else plan
    header = json.dumps(
        {
            "identity": asdict(identity),
            "sha256": hashlib.sha256(kept).hexdigest(),
            "checks": checks,
            "refused": refused,
        }
    ).encode()
    write(file, MAGIC + len(header).to_bytes(8, "little") + header + kept)


def write(file: Path, content: bytes) -> None:
    """Replace a file in one step. Raises StorageError."""
    with store.writing_to(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            Path(unfinished).replace(file)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One builder at a time in a folder; the others wait. The lock ends with its process. Raises StorageError."""
    with store.writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
