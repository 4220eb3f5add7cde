"""Where imported models lie: one folder a model, named after it.

`STILLWATCH_MODELS` names the store. Without it: `models` under the service's state folder (`STATE_DIRECTORY`, which
systemd sets), /var/lib/stillwatch/models for root, else ~/.local/share/stillwatch/models (`XDG_DATA_HOME`); what root
imported is found by everybody.

A model appears whole or not at all: it is built in `.import-NAME` and renamed. The builder holds a lock on that folder;
the lock ends with its process, so a folder that nobody holds is what a crash left, and the next import sweeps it away.
`.download-NAME` is kept when a download breaks off, so that the next one goes on from there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from config.errors import ModelError, StorageError

SYSTEM = Path("/var/lib/stillwatch/models")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_IMPORT, _DOWNLOAD, _REMOVED = ".import-", ".download-", ".removed-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def places() -> tuple[Path, ...]:
    """Folders in which models are looked for; new ones go to the first."""
    if named := os.environ.get("STILLWATCH_MODELS"):
        return (Path(named).expanduser().absolute(),)
    if state := os.environ.get("STATE_DIRECTORY"):
        own = Path(state.split(":")[0]) / "models"
    elif os.geteuid() == 0:
        own = SYSTEM
    else:
        own = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "stillwatch" / "models"
    return (own,) if own == SYSTEM else (own, SYSTEM)


def names() -> list[str]:
    """Names of all imported models."""
    found = set()
    for place in places():
        with contextlib.suppress(OSError):
            found |= {folder.name for folder in place.iterdir() if _NAME.fullmatch(folder.name) and folder.is_dir()}
    return sorted(found)


def unfinished_downloads() -> dict[str, int]:
    """Bytes that broken downloads have fetched so far, by the name of the model."""
    found = {}
    with contextlib.suppress(OSError):
        for folder in places()[0].glob(f"{_DOWNLOAD}*"):
            found[folder.name.removeprefix(_DOWNLOAD)] = size_of(folder)
    return found


def folder_of(name: str) -> Path | None:
    """Folder of an imported model; None when there is none of that name."""
    if not _NAME.fullmatch(name):
        return None
    return next((place / name for place in places() if (place / name).is_dir()), None)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def check_name(name: str) -> None:
    """Raises ModelError when a new model can't have this name."""
    if name == "reference" or not _NAME.fullmatch(name):
        raise ModelError(
            f"model name `{name}`: expected 1 to 64 letters, digits, `.`, `_`, `-`, a letter or digit first, and not "
            "`reference`; give another with --name"
        )
    if folder := folder_of(name):
        raise ModelError(
            f"model `{name}`: found one of that name in {folder}; expected a new name: give --name, or take the old "
            f"model away with `stillwatch model remove {name}`"
        )


@contextlib.contextmanager
def building(name: str) -> Iterator[Path]:
    """An empty folder that becomes the model `name` when the block ends, and disappears when the block raises. Raises
    ModelError when the name is taken or another process builds it, StorageError when the disk doesn't allow it."""
    check_name(name)
    place = places()[0]
    with writing_to(place):
        place.mkdir(parents=True, exist_ok=True)
        _sweep(place)
        lock = _lock(place / f"{_IMPORT}{name}")
    if lock is None:
        raise ModelError(
            f"model `{name}`: another import of that name is under way; wait for it, or give another --name"
        )
    folder = place / f"{_IMPORT}{name}"
    try:
        with writing_to(place):
            _empty(folder)
            yield folder
            for file in folder.iterdir():
                _sync(file)
            _publish(folder, place / name)
            _sync(place)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def download_folder(name: str) -> Path:
    """Where the download of a model is collected; only whoever builds that model may use it."""
    return places()[0] / f"{_DOWNLOAD}{name}"


def remove(name: str) -> Path:
    """Take a model, or its unfinished download, away; returns its folder. Raises ModelError, StorageError."""
    if name == "reference":
        raise ModelError("model `reference`: comes with Stillwatch and can't be removed")
    folder = folder_of(name)
    if folder is None and _NAME.fullmatch(name) and download_folder(name).is_dir():
        folder = download_folder(name)
    if folder is None:
        raise ModelError(
            f"model `{name}`: found none of that name; expected {', '.join(names()) or 'an imported model'}"
        )
    with writing_to(folder.parent):
        gone = folder.with_name(f"{_REMOVED}{name}-{os.getpid()}")
        folder.rename(gone)
        shutil.rmtree(gone)
    return folder


@contextlib.contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Turns what the system says about a disk or a folder into StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"{error.filename or place}: the disk is full, or a limit on file size is reached ({error.strerror}); "
                "nothing half-written is left; make room, or name another place in STILLWATCH_MODELS"
            ) from error
        if error.filename is None or not Path(error.filename).is_relative_to(place):
            raise
        raise StorageError(
            f"{error.filename}: can't be written ({error.strerror}); expected a store that this user may write to; "
            "name another in STILLWATCH_MODELS"
        ) from error


def check_room(place: Path, needed: int) -> None:
    """Raises StorageError when the disk has no room for `needed` more bytes."""
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise StorageError(
            f"{place}: {free / 1e6:,.0f} MB are free, expected {needed / 1e6:,.0f} MB for this model; make room, or "
            "name another place in STILLWATCH_MODELS"
        )


def _lock(folder: Path) -> int | None:
    """A lock on a folder, made if need be, as an open descriptor; None when another process has it."""
    while True:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        except FileNotFoundError:  # it was renamed or removed between two calls; the lock is on something else
            pass
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.close(descriptor)


def _sweep(place: Path) -> None:
    """Remove what crashed imports and removals left."""
    for folder in place.glob(f"{_REMOVED}*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in place.glob(f"{_IMPORT}*"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _publish(folder: Path, target: Path) -> None:
    try:
        folder.rename(target)
    except OSError as error:
        if target.is_dir():
            raise ModelError(f"model `{target.name}`: another import made it first; nothing was changed") from error
        raise


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _sync(path: Path) -> None:
    """Let what was written reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
