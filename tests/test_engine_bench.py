"""`bench --engine`: what it measures and what it says; random towers; the loss of level of detail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from engines_checkpoint import Size, write_checkpoint
from typer.testing import CliRunner

from agent.cli import app
from agent.engine_bench import PERCENTS, bench_engine
from engines.cost import crossover
from engines.export import export_model
from engines.fidelity import lod_loss
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode
from engines.random_tower import TOWERS, model_or_tower


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, Size(image=112))
    export_model(folder, name="tiny", domain="noise", prompt="{image}{question}")
    return folder


def ticking(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def test_the_curve_covers_every_share_of_every_tower(folder: Path) -> None:
    ticks = ticking(0.01)
    report = bench_engine([str(folder), str(folder)], threads=1, seconds=0.0, clock=lambda: next(ticks))
    assert [tower["name"] for tower in report["towers"]] == [str(folder)] * 2
    for tower in report["towers"]:
        assert (tower["tokens"], tower["rounds"]) == (64, 5)
        assert tower["full_ms"] == pytest.approx(10)
        assert tower["cache_bytes"] == 2 * 2 * 64 * 32 * 4
        assert [point["dirty_percent"] for point in tower["curve"]] == list(PERCENTS)
        assert [point["tokens"] for point in tower["curve"]] == [1, 1, 3, 6, 16, 32, 48, 64]
        assert all(point["speedup"] == pytest.approx(1) for point in tower["curve"])
        assert tower["curve"][-1]["path"] == "full"
        assert [point.get("paired_ms") for point in tower["curve"]] == [pytest.approx(5)] * 4 + [None] * 4
        assert [point.get("side_by_side_ms") for point in tower["curve"]][:4] == [pytest.approx(10 / 6)] * 4


def test_the_command_writes_json_and_a_picture(folder: Path, tmp_path: Path) -> None:
    numbers, chart = tmp_path / "engine.json", tmp_path / "engine.png"
    command = ["bench", "--engine", "--towers", str(folder), "--seconds", "0"]
    result = CliRunner().invoke(app, [*command, "--json", str(numbers), "--png", str(chart)])
    assert result.exit_code == 0, result.output
    assert "two in one pass, not side by side" in " ".join(result.output.split())
    report = json.loads(numbers.read_text())
    assert {"name", "tokens", "full_ms", "curve"} <= report["towers"][0].keys()
    picture = cv2.imread(str(chart))
    assert picture is not None and picture.std() > 1


@pytest.mark.parametrize("arguments", [["bench"], ["bench", "clip.mp4", "--engine"]])
def test_clips_and_engine_exclude_each_other(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "either clips or --engine" in result.output


@pytest.mark.parametrize(("name", "dtype"), [("vit-s-576", "float32"), ("vit-s-576-int8", "int8")])
def test_a_random_tower_has_the_shape_it_is_named_after_and_no_language_model(name: str, dtype: str) -> None:
    with model_or_tower(name) as model:
        manifest = model.manifest
        assert (manifest.tokens, manifest.dim, manifest.layers, manifest.heads) == (576, 384, 12, 6)
        assert manifest.dtype == dtype
        assert "prefill" not in manifest.graphs
        encoder = OnnxEncoder(OnnxRuntime(model, threads=1))
        picture = np.random.default_rng(0).integers(0, 256, (384, 384, 3), dtype=np.uint8)
        full = encoder.encode(picture, EncodePlan(Mode.FULL, None)).features.copy()
        again = encoder.encode(picture, EncodePlan(Mode.WARPING, np.arange(0, 576, 50))).features
        np.testing.assert_allclose(again, full, atol=1e-4)
        folder = model.folder
    assert not folder.exists()


def test_towers_are_named_after_their_tokens() -> None:
    for name, shape in TOWERS.items():
        assert int(name.rsplit("-", 1)[1]) == (shape["image_size"] // shape["patch_size"]) ** 2


@pytest.mark.parametrize(
    ("cost_ms", "expected"),
    [
        ({1: 1, 50: 5, 75: 8, 100: 10}, 92),
        ({1: 1, 50: 12, 75: 14, 100: 10}, 42),
        ({1: 1, 50: 5, 75: 7, 100: 10}, 100),
        ({1: 11, 50: 12, 75: 14, 100: 10}, 1),
        ({1: 11, 50: 5, 75: 7.5, 100: 10}, 100),
    ],
    ids=["beyond what was measured", "between", "never", "always", "one count measured badly"],
)
def test_the_crossover_is_where_selecting_costs_as_much_as_all(cost_ms: dict[int, float], expected: int) -> None:
    assert crossover(cost_ms) == expected


def test_level_of_detail_costs_nothing_on_a_plain_picture_and_something_on_noise(folder: Path) -> None:
    with model_or_tower(folder) as model:
        size = model.manifest.image_size
        noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
        loss = lod_loss(model, [noise], threads=1)
        assert loss["coarse_p5"] <= loss["coarse_mean"] < loss["fine_mean"] < 1
        flat = lod_loss(model, [np.full((size, size, 3), 90, np.uint8)], threads=1)
        assert flat["coarse_mean"] > loss["coarse_mean"]
        with pytest.raises(ValueError, match="no pictures"):
            lod_loss(model, [])
