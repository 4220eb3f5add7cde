"""The baseline of one camera on disk: a single .npz that is either whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.insight.anomaly import AnomalyModel, Stream
from agent.insight.rarity import ScoreHistory
from config.errors import ConfigError, CorruptInput

_VERSION = 3


def snapshot(model: AnomalyModel, model_name: str, now_s: float) -> dict[str, NDArray[Any]]:
    """Everything that `model` has learned, copied, so that another thread can write it while this one goes on.
    `now_s` is the clock of `update`: alarms are stored by their age."""
    arrays = {
        "version": np.array(_VERSION),
        "model": np.array(model_name),
        "grid": np.array(model.grid),
        "dim": np.array(model.dim),
        "learned_s": np.array(model.learned_s),
    }
    for name, (owner, attribute) in _parts(model).items():
        arrays[name] = np.asarray(getattr(owner, attribute))
    memory = model.normal.appearance.memory
    arrays["memory_counts"] = np.array([len(row) for row in memory.rows], np.float32)
    arrays["memory_radii"] = np.array(memory.radii, np.float32)
    arrays["memory_rows"] = np.concatenate([row for row in memory.rows if len(row)] or [_no_rows(model)])
    for name, history in _histories(model).items():
        arrays[f"{name}_blocks"] = np.array(history.blocks, np.float64)
        arrays[f"{name}_alarms"] = np.array([(now_s - at, s) for at, s in history.alarms]).reshape(-1, 2)
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
    except Exception as error:  # NumPy reads headers as Python source: damaged ones raise what a tokenizer raises, too
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


def _parts(model: AnomalyModel) -> dict[str, tuple[object, str]]:
    """Name in the file → whose attribute it is. Arrays have a fixed shape, numbers none."""
    normal = model.normal
    return {
        "signs": (normal, "signs"),
        "noise": (normal, "noise"),
        "noise_s": (normal, "seconds"),
        "place_s": (normal.appearance, "seconds"),
        "mean": (normal.appearance, "mean"),
        "variance": (normal.appearance, "variance"),
        "spread": (normal.appearance, "spread"),
        "spread_s": (normal.appearance, "spread_s"),
        "motion_s": (normal.motion, "seconds"),
        "motion_sums": (normal.motion, "sums"),
        "hours_s": (normal.motion.hours, "seconds"),
        "hours_moved": (normal.motion.hours, "moved"),
        "dwell_longest": (normal.dwell, "longest"),
    }


def _histories(model: AnomalyModel) -> dict[str, ScoreHistory]:
    return {"total": model.history, **{stream.value: model.stream_history[stream] for stream in Stream}}


def _no_rows(model: AnomalyModel) -> NDArray[np.float32]:
    return np.zeros((0, model.normal.appearance.mean.shape[1] + 1), np.float32)


def _restore(path: Path, model: AnomalyModel, arrays: dict[str, NDArray[Any]], now_s: float) -> None:
    parts, memory = _parts(model), model.normal.appearance.memory
    expected: dict[str, tuple[int | None, ...]] = {  # None = any length
        name: np.shape(getattr(owner, attribute)) for name, (owner, attribute) in parts.items()
    }
    expected |= {"learned_s": (), "memory_counts": (model.grid[0],), "memory_radii": (model.grid[0],)}
    expected["memory_rows"] = (None, _no_rows(model).shape[1])
    for name in _histories(model):
        expected[f"{name}_blocks"], expected[f"{name}_alarms"] = (None,), (None, 2)
    for name, shape in expected.items():
        array = arrays.get(name)
        if array is None or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise CorruptInput(f"{path}: the baseline has no usable {name}")
        if len(array.shape) != len(shape) or any(n not in (None, m) for m, n in zip(array.shape, shape, strict=True)):
            raise CorruptInput(f"{path}: {name} of the baseline has the wrong shape {array.shape}, expected {shape}")
    ends = np.cumsum(arrays["memory_counts"]).astype(np.int64)
    if (arrays["memory_counts"] < 0).any() or ends[-1] != len(arrays["memory_rows"]):
        raise CorruptInput(f"{path}: memory_counts of the baseline don't add up to its rows")
    for name, (owner, attribute) in parts.items():
        is_number = isinstance(getattr(owner, attribute), float)
        setattr(owner, attribute, float(arrays[name]) if is_number else arrays[name])
    memory.rows = [np.asarray(row, np.float32) for row in np.split(arrays["memory_rows"], ends[:-1])]
    memory.radii = arrays["memory_radii"].tolist()
    model.learned_s = float(arrays["learned_s"])
    for name in _histories(model):
        alarms = arrays[f"{name}_alarms"].tolist()
        restored = ScoreHistory(arrays[f"{name}_blocks"].tolist(), [(now_s - age, score) for age, score in alarms])
        if name == "total":
            model.history = restored
        else:
            model.stream_history[Stream(name)] = restored
