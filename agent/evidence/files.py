"""Files that are there whole or not at all, and which of them go when there is no more room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.events.model import Severity

SNAPSHOTS, CLIPS = "snapshots", "clips"
_PART = ".part"
_RANKS = {severity.value: severity.rank for severity in Severity}


def write_whole(path: Path, write: Callable[[Path], None]) -> int:
    """Have `write` make the file under another name, then give it its own in one step: after a crash or a power cut
    it is whole or not there. Returns its size. Raises what `write` raises, and OSError; nothing is left then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + _PART)
    try:
        write(part)
        _sync(part)
        size = part.stat().st_size
        part.replace(path)
        _sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    rank: int
    size: int
    changed_s: float


class Shelf:
    """The media files of a state folder: `snapshots/<severity>/…` and `clips/<severity>/…`. Ids sort by time, so names
    do. Files that stand outside a severity's folder count as the least severe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, kind: str, severity: Severity, name: str) -> Path:
        return self._folder / kind / severity.value / name

    def relative(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def clear_unfinished(self) -> int:
        """Remove what an earlier run did not finish; call before this one writes. Returns how many."""
        parts = [path for path in self._files() if path.name.endswith(_PART)]
        for path in parts:
            path.unlink(missing_ok=True)
        return len(parts)

    def prune(self, *, older_than_s: float, max_bytes: int) -> int:
        """Remove files older than that (seconds since the epoch), then the least severe and oldest until the others fit
        in `max_bytes`; returns the bytes that are left. Raises OSError."""
        kept = []
        for file in self._kept():
            if file.changed_s < older_than_s:
                file.path.unlink(missing_ok=True)
            else:
                kept.append(file)
        size = sum(file.size for file in kept)
        for file in sorted(kept, key=_least_worth):
            if size <= max_bytes:
                break
            file.path.unlink(missing_ok=True)
            size -= file.size
        return size

    def make_room(self, size: int, severity: Severity) -> int:
        """Remove the least severe and oldest files, none more severe than this, until about `size` bytes are free;
        returns how many bytes went. Raises OSError."""
        freed = 0
        for file in sorted(self._kept(), key=_least_worth):
            if freed >= size or file.rank > severity.rank:
                break
            file.path.unlink(missing_ok=True)
            freed += file.size
        return freed

    def free(self) -> int:
        """Bytes that the disk has left. Raises OSError."""
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def _kept(self) -> Iterator[_Kept]:
        for path in self._files():
            if path.name.endswith(_PART):
                continue
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            yield _Kept(path, _RANKS.get(path.parent.name, 0), found.st_size, found.st_mtime)

    def _files(self) -> Iterator[Path]:
        for kind in (SNAPSHOTS, CLIPS):
            for path in (self._folder / kind).glob("**/*"):
                if path.is_file():
                    yield path


def _least_worth(file: _Kept) -> tuple[int, str]:
    return file.rank, file.path.name
