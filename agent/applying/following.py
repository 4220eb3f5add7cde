"""Whether a file has changed, by a look at its size and times now and then."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[int, int, int] | None


class FileWatch:
    """path: None = there is nothing to watch."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known = self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether it is another one since the last change that was told; only when two looks find the same, so that it
        is not read while it is being written."""
        before, self._seen = self._seen, self._stamp()
        if self._seen == self._known or self._seen != before:
            return False
        self._known = self._seen
        return True

    def _stamp(self) -> Stamp:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
