from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from insight_looks import look_at

from agent.insight.anomaly import AnomalyModel, AnomalySettings, Stream
from agent.insight.baseline_file import load, load_or_relearn, snapshot, write
from config.errors import ConfigError, CorruptInput

GRID, DIM = (4, 5), 12
SETTINGS = AnomalySettings(learn_s=20)


def fresh() -> AnomalyModel:
    return AnomalyModel(GRID, DIM, SETTINGS)


def stream(model: AnomalyModel, seed: int, start_s: float, seconds: float) -> list[float]:
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(0).standard_normal((20, DIM))
    scores = []
    for i in range(int(seconds * 10)):
        features = (base + 0.3 * rng.standard_normal((20, DIM))).astype(np.float32)
        moving = rng.random(20) < 0.2
        model.update(look_at(features, GRID, 0.1, moving=moving, cells_s=(4 + rng.random(), 1)), start_s + i / 10)
        scores.append(model.state.score)
    return scores


@pytest.fixture(scope="module")
def learned() -> AnomalyModel:
    model = fresh()
    stream(model, 1, 0.0, 60.0)
    model.history.add_alarm(7.0, 50.0)
    return model


def test_a_reloaded_model_gives_identical_scores(learned: AnomalyModel, tmp_path: Path) -> None:
    path = tmp_path / "front.npz"
    write(path, snapshot(learned, "reference", 60.0))
    again, and_again = fresh(), fresh()
    assert load_or_relearn(path, again, "reference", now_s=9000.0) is None
    load(path, and_again, "reference", now_s=9000.0)
    assert again.learned_s == learned.learned_s
    assert again.history.alarms == [(8990.0, 7.0)]
    for kind in Stream:
        assert again.stream_history[kind].limit(1) == learned.stream_history[kind].limit(1)
    scores = stream(again, 2, 9000.0, 20.0)
    assert scores == stream(and_again, 2, 9000.0, 20.0)
    assert [p.name for p in tmp_path.iterdir()] == ["front.npz"]


def test_a_baseline_of_another_model_or_grid_is_refused_in_words(learned: AnomalyModel, tmp_path: Path) -> None:
    path = tmp_path / "front.npz"
    write(path, snapshot(learned, "reference", 60.0))
    with pytest.raises(ConfigError, match=r"front\.npz.*model reference.*now has smolvlm"):
        load(path, fresh(), "smolvlm", 0.0)
    with pytest.raises(ConfigError, match=r"grid \(4, 5\).*\(5, 4\)"):
        load(path, AnomalyModel((5, 4), DIM), "reference", 0.0)
    said = load_or_relearn(path, fresh(), "smolvlm", 0.0)
    assert said is not None and "front.npz.unused-1" in said
    assert (tmp_path / "front.npz.unused-1").exists() and not path.exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_set_aside_or_whole_never_half_loaded(
    learned: AnomalyModel, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "front.npz"
    write(path, snapshot(learned, "reference", 60.0))
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 40))
        damaged = whole[:at] + data.draw(st.binary(min_size=40, max_size=40)) + whole[at + 40 :]
    path.write_bytes(damaged)
    model = fresh()
    said = load_or_relearn(path, model, "reference", 60.0)
    if said is None:
        assert (model.normal.appearance.mean == learned.normal.appearance.mean).all()
    else:
        assert "learned anew" in said
        assert model.learned_s == 0 and not model.normal.appearance.mean.any()
        assert not path.exists()


def test_a_header_that_is_no_python_is_damage(learned: AnomalyModel, tmp_path: Path) -> None:
    path = tmp_path / "front.npz"
    write(path, snapshot(learned, "reference", 60.0))
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    parts["version.npy"] = parts["version.npy"].replace(b"{'descr'", b"{{{descr'").replace(b"}", b" ")
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    with pytest.raises(CorruptInput, match="can't be read"):
        load(path, fresh(), "reference", 60.0)


def test_values_that_are_no_numbers_are_corrupt(learned: AnomalyModel, tmp_path: Path) -> None:
    path = tmp_path / "front.npz"
    arrays = snapshot(learned, "reference", 60.0)
    arrays["mean"][0, 0] = np.nan
    write(path, arrays)
    with pytest.raises(CorruptInput, match="no usable mean"):
        load(path, fresh(), "reference", 0.0)


def test_a_write_that_fails_leaves_the_old_baseline(learned: AnomalyModel, tmp_path: Path) -> None:
    path = tmp_path / "front.npz"
    write(path, snapshot(learned, "reference", 60.0))
    before = path.read_bytes()
    (tmp_path / "front.npz.part").mkdir()
    with pytest.raises(OSError):
        write(path, snapshot(fresh(), "reference", 0.0))
    assert path.read_bytes() == before
