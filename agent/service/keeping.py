"""What a state folder holds, and how people take it away, forget parts of it, or all."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from agent.events.lock import StateLock
from agent.service import stateformat
from config.errors import ConfigError, StorageError

DATABASE = "events.db"
PARTS: dict[str, tuple[str, ...]] = {
    "events": (f"{DATABASE}*", "unwritten.*", "snapshots", "clips", "exports"),
    "learned": ("baselines",),
    "configuration": ("config", "remote"),
}
"""What can be forgotten by name, as patterns below the folder."""
_OWN = (
    "device-id",
    "lock",
    stateformat.NAME,
    "rules.json",
    "cameras.json",
    "retained.json",
    "describer-requests.json*",
)
"""The rest of what the agent writes there."""
_MEDIA = ("snapshots", "clips", "exports")
_CONFIG = "config"
_NOT_EXPORTED = ("lock", f"{DATABASE}-wal", f"{DATABASE}-shm", DATABASE, _CONFIG)


def reset(folder: Path, parts: Sequence[str]) -> list[str]:
    """Forget these `PARTS`; returns what was removed. Raises ConfigError while an agent uses the folder, or for what
    is none; StorageError when the disk refuses."""
    with _locked(folder):
        return _remove(folder, _matching(folder, [pattern for part in parts for pattern in PARTS[part]]))


def delete(folder: Path) -> tuple[list[str], list[str]]:
    """Remove everything that is the agent's, and the folder when nothing else is in it; returns what was removed, and
    what is not the agent's and was left. Raises as `reset`."""
    with _locked(folder):
        patterns = [*(pattern for part in PARTS.values() for pattern in part), *_OWN, ".*.[0-9]*"]
        removed = _remove(folder, _matching(folder, patterns))
    left = sorted(path.name for path in folder.iterdir())
    if not left:
        folder.rmdir()
    return removed, left


def export(folder: Path, to: Path, *, media: bool) -> int:
    """Write the folder into a .tar.gz, whole or not at all; returns its bytes. The agent may run meanwhile: events are
    copied as they are at one moment. media: pictures and clips, too.

    An archive is sent around: it is for its owner alone, and without the text of the configuration file, in whose URLs
    passwords may stand. Raises ConfigError and StorageError.
    """
    _require(folder)
    half = to.with_name(f".{to.name}.{os.getpid()}")
    skip = {*_NOT_EXPORTED, *(() if media else _MEDIA)}
    try:
        with (
            tempfile.TemporaryDirectory(dir=to.parent) as scratch,
            open(half, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file,
            tarfile.open(fileobj=file, mode="w:gz") as archive,
        ):
            if (folder / DATABASE).exists():
                copy = Path(scratch) / DATABASE
                with closing(read_only(folder / DATABASE)) as source, closing(sqlite3.connect(copy)) as target:
                    source.backup(target)
                archive.add(copy, DATABASE)
            for path in sorted(folder.iterdir()):
                if path.name not in skip and not path.name.startswith("."):
                    archive.add(path, path.name)
            for path in sorted((folder / _CONFIG).rglob("*.json")):
                _add_without_text(archive, path, path.relative_to(folder).as_posix())
        half.replace(to)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise StorageError(f"{to}: can't be written: {error}") from error
    finally:
        half.unlink(missing_ok=True)
    return to.stat().st_size


def _add_without_text(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """A file of `agent.applying.journal`. One that can't be read is left out: nobody knows what is in it."""
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, FileNotFoundError):
        return
    if not isinstance(document, dict):
        return
    if "text" in document:
        document["text"] = None
    data = json.dumps(document, ensure_ascii=False).encode()
    entry = archive.gettarinfo(path, name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def read_only(database: Path) -> sqlite3.Connection:
    """An outbox, open to look into, also while an agent writes it. Leaves no file behind: one of root's would keep the
    service from its own. Raises sqlite3.Error."""
    running = database.with_name(f"{database.name}-wal").exists()
    mode = "mode=ro" if running else "mode=ro&immutable=1"
    return sqlite3.connect(f"{database.absolute().as_uri()}?{mode}", uri=True, timeout=5.0)


def _locked(folder: Path) -> StateLock:
    _require(folder)
    return StateLock(folder)


def _require(folder: Path) -> None:
    """Nobody wants a folder of somebody else emptied."""
    if not any((folder / name).is_file() for name in (stateformat.NAME, DATABASE)):
        raise ConfigError(f"{folder}: expected a state folder, with {stateformat.NAME} or {DATABASE} in it")


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


def _remove(folder: Path, paths: Iterable[Path]) -> list[str]:
    removed = []
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{path}: can't be removed: {error.strerror}") from error
        removed.append(path.name)
    return removed


def summary(folder: Path) -> str:
    """Such as `{"events.db": 12345}`, bytes by name; for people who are about to forget something."""
    sizes = {path.name: _size(path) for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
    return json.dumps(sizes)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
