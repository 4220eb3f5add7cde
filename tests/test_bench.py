"""The measuring command: every number it reports, on clips whose numbers are known."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from coherence_standin import texture
from engines_checkpoint import Size, write_checkpoint
from numpy.typing import NDArray
from rich.console import Console

from agent.bench import NAMES, Bound, Wanted, bench, render
from agent.bench.words import Agreement
from config.errors import SourceError
from engines.decoder import Decoder
from engines.export import export_model
from engines.manifest import load_model

SIZE = Size()
FRAMES = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, SIZE)
    export_model(folder, name="random", domain="noise", prompt="{image}{question}")
    return folder


def clip(folder: Path, images: list[NDArray[np.uint8]]) -> str:
    folder.mkdir()
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"{index:03}.png"), image[..., ::-1])
    return str(folder)


def test_a_still_clip_is_reused_at_full_fidelity(model: Path, tmp_path: Path) -> None:
    still = clip(tmp_path / "still", [texture(1)] * FRAMES)
    (report,) = bench([still], model=model, threads=1)
    json.dumps(report)
    assert (report["frames"], report["model"], report["content"]) == (FRAMES, "random", tmp_path.name)
    assert report["modes"] == {"reuse": FRAMES - 1, "full": 1}
    assert report["fidelity"]["min"] == pytest.approx(1, abs=1e-4)
    assert report["copy_last_fidelity"] == pytest.approx(1, abs=1e-6)
    assert (report["bound"], report["efficiency"]) == (None, None)
    tokens = report["tokens"]
    assert tokens["full_per_s"] == 16 * report["fps"]
    assert tokens["encoded_per_s"] == pytest.approx(16 / FRAMES * report["fps"])
    assert tokens["reduction"] == FRAMES  # the first picture is described, and nothing is news after it
    assert tokens["decoder_per_s"] == pytest.approx(4 / FRAMES * report["fps"])
    assert 0 < sum(report["stages_ms"].values()) <= report["temporal_ms"]["mean"]
    assert report["speedup"] == pytest.approx(report["full_ms"]["mean"] / report["temporal_ms"]["mean"])


def test_a_clip_that_never_holds_still_is_encoded_in_full_and_true(model: Path, tmp_path: Path) -> None:
    wild = clip(tmp_path / "wild", [texture(seed) for seed in range(FRAMES)])
    (report,) = bench([wild], model=model, threads=1)
    assert report["modes"].get("full", 0) + report["modes"].get("scene_cut_full", 0) == FRAMES
    assert report["fidelity"]["token_p5"] == pytest.approx(1, abs=1e-4)
    assert report["skill"] == pytest.approx(1, abs=1e-3)
    assert report["copy_last_fidelity"] < 0.999
    assert report["bound"] == pytest.approx(1, abs=0.1)


def test_a_sample_encodes_fewer_frames_in_full_and_measures_the_same_things(model: Path, tmp_path: Path) -> None:
    images = [np.roll(texture(2), 3 * index, axis=1) for index in range(FRAMES)]
    moving = clip(tmp_path / "moving", images)
    ticks = iter(range(10_000))
    (report,) = bench([moving], model=model, wanted=Wanted(sample=8), threads=1, clock=lambda: float(next(ticks)))
    assert report["frames"] == FRAMES
    assert report["copy_last_fidelity"] is not None
    assert 0.5 < report["fidelity"]["min"] <= report["fidelity"]["p5"] <= report["fidelity"]["mean"] <= 1
    assert report["full_ms"]["mean"] == 1000
    assert set(report["fidelity_ema"]) == {"mean", "p5"}


def test_rivals_stand_beside_ours_with_the_keys_of_the_report(model: Path, tmp_path: Path) -> None:
    moving = clip(tmp_path / "moving", [np.roll(texture(2), 3 * index, axis=1) for index in range(FRAMES)])
    wanted = Wanted(against=NAMES, pan=(1.0, 0.0), ask_every=12)
    (report,) = bench([moving], model=model, wanted=wanted, threads=1)
    json.dumps(report, allow_nan=False)
    assert set(report) >= {
        *("clip", "content", "model", "frames", "fps", "full_ms", "temporal_ms", "speedup", "bound", "efficiency"),
        *("fidelity", "fidelity_ema", "skill", "copy_last_fidelity", "tokens", "modes", "stages_ms", "rivals"),
    }
    rivals = {name: [r for r in report["rivals"] if r["name"] == name] for name in NAMES}
    assert [len(rivals[name]) for name in ("full", "motion-gate", "previous-frame-gate", "eventful")] == [1, 4, 4, 6]
    for rival in report["rivals"]:
        assert rival["speedup"] > 0
        assert set(rival["fidelity"]) == {"mean", "p5", "min", "token_p5"}
    assert rivals["full"][0]["fidelity"]["min"] == pytest.approx(1, abs=1e-6)
    assert [r["equal_cost"] for r in rivals["every-n"]].count(True) == 1
    at_equal = report["ours_at_equal_fidelity"]
    assert set(at_equal) == set(NAMES) - {"full"}
    for theirs in at_equal.values():
        assert theirs["mean"]["ratio"] == pytest.approx(report["speedup"] / theirs["mean"]["speedup"])
    assert report["text"]["frames"] == 2
    assert 0 <= report["text"]["flipped"] <= 1
    assert report["text"]["answers_right"] is None


def test_equal_tokens_say_the_same_and_others_do_not(model: Path) -> None:
    features = np.random.default_rng(1).normal(size=(2, 16, SIZE.dim)).astype(np.float32)
    for ours, same in ((features[0], 1.0), (features[1], 0.0)):
        agreement = Agreement(Decoder(load_model(model)), every=1)
        agreement.compare(ours, features[0], None, 320)
        told = agreement.report()
        assert told["exact_match"] == same
        assert (told["flipped"] == 0) == (same == 1)


def test_the_truth_of_a_rendered_scene_judges_both_sides() -> None:
    wanted = Wanted(frames=4, ask_every=3)
    (report,) = bench(["scene:street?seed=3&width=320&height=180"], wanted=wanted, threads=1)
    told = report["text"]
    assert (told["frames"], told["answers"]) == (2, 12)
    assert set(told["captions_right"]) == set(told["answers_right"]) == {"full", "ours"}
    assert report["events"]["full"] == 0


def test_reports_are_shown_as_a_table(model: Path, tmp_path: Path) -> None:
    still = clip(tmp_path / "still", [texture(3)] * 4)
    console = Console(record=True, width=140, file=io.StringIO())
    console.print(render(bench([still], model=model, threads=1, wanted=Wanted(frames=3))))
    shown = console.export_text()
    assert "still" in shown
    assert "reuse 2" in shown


def test_the_bound_counts_patches_that_differ_from_their_own_reference() -> None:
    bound = Bound((2, 2), 14, np.ones(4, bool))
    picture = np.full((28, 28, 3), 100, np.uint8)
    for level in (100, 106, 112, 118):
        picture[:14, :14] = level
        bound.process(picture)
    assert bound.speedup == pytest.approx(12)


def test_a_clip_that_is_not_there_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.mp4"):
        bench([str(tmp_path / "none.mp4")], model=model)
