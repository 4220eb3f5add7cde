"""The baseline of one camera on disk: a single .npz that is either whole or not there."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.insight.anomaly import AnomalyModel, Stream
from agent.insight.rarity import ScoreHistory
from config.errors import ConfigError, CorruptInput

_VERSION = 2
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def snapshot(model: AnomalyModel, model_name: str, now_s: float) -> dict[str, NDArray[Any]]:
    """Everything that `model` has learned, copied, so that another thread can write it while this one goes on.
    `now_s` is the clock of `update`: alarms are stored by their age."""
    arrays = {
        "version": np.array(_VERSION),
        "model": np.array(model_name),
        "grid": np.array(model.grid),
        "dim": np.array(model.dim),
        "learned_s": np.array(model.learned_s),
        "signs": model.signs,
        "seconds": model.appearance.seconds,
        "mean": model.appearance.mean,
        "variance": model.appearance.variance,
        "motion_seconds": model.motion.seconds,
        "motion_moments": model.motion.moments,
        "dwell_longest": model.dwell.longest,
    }
    for stream, history in model.history.items():
        arrays[f"{stream.value}_blocks"] = np.array(history.blocks, np.float64)
        arrays[f"{stream.value}_alarms"] = np.array([(now_s - at, s) for at, s in history.alarms]).reshape(-1, 2)
    return {name: array.copy() for name, array in arrays.items()}


def write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Replace the file at `path` in one step: after a power cut there is the old one or the new one. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load(path: Path, model: AnomalyModel, model_name: str, now_s: float) -> None:
    """Give a fresh `model` what was learned before.

    Raises FileNotFoundError, CorruptInput for a file that can't be read, and ConfigError for a baseline of another
    vision model or grid; `model` is unchanged then.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        found = (int(arrays["version"]), str(arrays["model"]), tuple(arrays["grid"].tolist()), int(arrays["dim"]))
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise CorruptInput(f"{path}: the baseline can't be read ({error})") from error
    expected = (_VERSION, model_name, model.grid, model.dim)
    for name, was, now in zip(("format version", "model", "grid", "feature width"), found, expected, strict=True):
        if was != now:
            raise ConfigError(
                f"{path}: this baseline was learned with {name} {was}, this camera now has {now}; "
                "move the file away to learn anew, or go back to what it was learned with"
            )
    _restore(path, model, arrays, now_s)


def load_or_relearn(path: Path, model: AnomalyModel, model_name: str, now_s: float) -> str | None:
    """Load the baseline if there is one. One that can't be used is renamed, never deleted; the sentence that comes back
    says so, for the log and the health topic. None = nothing to say."""
    try:
        load(path, model, model_name, now_s)
    except FileNotFoundError:
        return None
    except (CorruptInput, ConfigError) as error:
        aside = next(p for n in range(1, 1_000_000) if not (p := path.with_name(f"{path.name}.unused-{n}")).exists())
        path.rename(aside)
        return f"{error}. It was set aside as {aside.name}, and normal is being learned anew"
    return None


def _restore(path: Path, model: AnomalyModel, arrays: dict[str, NDArray[Any]], now_s: float) -> None:
    targets: dict[str, tuple[object, str]] = {
        "signs": (model, "signs"),
        "seconds": (model.appearance, "seconds"),
        "mean": (model.appearance, "mean"),
        "variance": (model.appearance, "variance"),
        "motion_seconds": (model.motion, "seconds"),
        "motion_moments": (model.motion, "moments"),
        "dwell_longest": (model.dwell, "longest"),
    }
    expected: dict[str, tuple[int | None, ...]] = {  # None = any length
        name: getattr(owner, attribute).shape for name, (owner, attribute) in targets.items()
    }
    expected["learned_s"] = ()
    for stream in Stream:
        expected[f"{stream.value}_blocks"], expected[f"{stream.value}_alarms"] = (None,), (None, 2)
    for name, shape in expected.items():
        array = arrays.get(name)
        if array is None or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise CorruptInput(f"{path}: the baseline has no usable {name}")
        if len(array.shape) != len(shape) or any(n not in (None, m) for m, n in zip(array.shape, shape, strict=True)):
            raise CorruptInput(f"{path}: {name} of the baseline has the wrong shape {array.shape}, expected {shape}")
    for name, (owner, attribute) in targets.items():
        setattr(owner, attribute, arrays[name])
    model.learned_s = float(arrays["learned_s"])
    for stream in Stream:
        alarms = arrays[f"{stream.value}_alarms"]
        model.history[stream] = ScoreHistory(
            arrays[f"{stream.value}_blocks"].tolist(), [(now_s - age_s, score) for age_s, score in alarms.tolist()]
        )
