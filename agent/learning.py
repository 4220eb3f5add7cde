"""What the anomaly models of all cameras have learned: read when a camera begins, written by whoever has time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from numpy.typing import NDArray

from agent.insight import baseline_file
from agent.insight.anomaly import AnomalyModel
from engines.manifest import Manifest

log = structlog.get_logger()

Arrays = dict[str, NDArray[Any]]
Snapshot = Callable[[AnomalyModel, float], Arrays]


class Learned:
    """The baselines in a folder, one file a camera. What `keeper` gives is called by frame loops and costs a copy;
    `write` is for a thread that may wait for the disk. notes: gets a sentence for each baseline that can't be used."""

    def __init__(self, folder: Path, notes: list[str]) -> None:
        self._folder, self._notes = folder, notes
        self._waiting: dict[Path, Arrays] = {}
        self._latest: dict[tuple[Path, str], Arrays] = {}
        self.snapshots: dict[str, Snapshot] = {}
        """By camera: how its model is copied for a file."""

    def keeper(self, camera: str, manifest: Manifest) -> Callable[[AnomalyModel, float], None]:
        """What a frame loop calls now and then with the model and the time of its last frame."""
        path, identity = self._path(camera), _identity(manifest)

        def snapshot(model: AnomalyModel, now_s: float) -> Arrays:
            return baseline_file.snapshot(model, identity, now_s)

        def keep(model: AnomalyModel, now_s: float) -> None:
            self._waiting[path] = self._latest[path, identity] = snapshot(model, now_s)

        self.snapshots[camera] = snapshot
        return keep

    def load(self, camera: str, manifest: Manifest, model: AnomalyModel) -> None:
        """Give a fresh model what this camera learned with this vision model, in this run or an earlier one."""
        self.write()
        path, identity = self._path(camera), _identity(manifest)
        ours = self._latest.get((path, identity))
        if ours is not None:  # another vision model may have had its turn in between
            self._write(path, ours)
        note = baseline_file.load_or_relearn(path, model, identity, time.monotonic())
        if note is not None:
            log.warning(note, camera=camera)
            self._notes.append(note)

    def write(self) -> None:
        """Write what waits. A disk that refuses is logged; what was to be kept then is kept the next time."""
        while self._waiting:
            self._write(*self._waiting.popitem())

    def _path(self, camera: str) -> Path:
        return self._folder / f"{camera}.npz"

    def _write(self, path: Path, arrays: Arrays) -> None:
        try:
            baseline_file.write(path, arrays)
        except OSError as error:
            log.warning("what was learned can't be kept", file=str(path), reason=error.strerror)


def _identity(manifest: Manifest) -> str:
    return f"{manifest.name} {next(iter(manifest.weights.values()))[:12]}"
