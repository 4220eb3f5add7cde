"""Debug pictures: what they show is what happened, and whatever goes wrong is said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from coherence_standin import PATCH, LinearEncoder, Stretch, costs, frame, texture
from engines_checkpoint import Size, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from agent.cli import app
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.result import FrameResult
from agent.coherence.settings import CoherenceSettings
from agent.inspecting.drawing import flow_colours, heat, slot_map, tint
from agent.inspecting.moments import EvenlySpaced, Moment, Worst
from agent.inspecting.painter import Ages
from agent.inspecting.timeline import MODE_COLOURS, chart, strip
from agent.metrics import Metrics
from engines.export import export_model
from engines.plan import Mode
from engines.preprocess import Placement
from vpi_ops.host import HostOps

GRID = (8, 8)
FILES = {f"{name}.png" for name in ("encoded", "residual", "flow", "age", "ghosting", "cuts", "modes")}


# Pictures from arrays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
def test_every_pixel_shows_the_token_that_looks_at_it(resize: str) -> None:
    placement = Placement.of(resize, (320, 180), 8 * PATCH)
    slots = slot_map(placement, GRID, PATCH, (160, 90))
    seen = placement.valid(PATCH)
    for y, x in ((0, 0), (45, 80), (89, 159), (20, 130)):
        px, py, _, _ = placement.to_picture((2 * x + 1, 2 * y + 1, 0, 0))
        inside = placement.crop[0] <= 2 * x < placement.crop[2]
        assert slots[y, x] == (int(py // PATCH) * 8 + int(px // PATCH) if inside else -1)
    shown = slots[slots >= 0]
    assert set(shown.tolist()) == set(np.flatnonzero(seen).tolist())


def test_heat_and_tint_lie_on_their_tokens_alone() -> None:
    base = np.full((80, 80, 3), 100, np.uint8)
    slots = slot_map(Placement.of("stretch", (80, 80), 8 * PATCH), GRID, PATCH, (80, 80))
    values = np.zeros(64, np.float32)
    values[9] = 1
    hot = heat(base, slots, values).astype(int).sum(axis=2)
    assert (hot[10:20, 10:20] > 500).all()
    assert (hot[20:] < 200).all()
    colours = np.tile(np.array([255, 0, 0], np.uint8), (64, 1))
    tinted = tint(base, slots, colours, values * np.float32(0.5))
    assert tinted[15, 15].tolist() == [177, 50, 50]
    assert (tinted[slots != 9] == 100).all()


def test_flow_has_one_hue_a_direction_and_none_at_rest() -> None:
    right, left, still, slow = (flow_colours(np.full((1, 1, 2), 0, np.float32) + v, 4) for v in
                                ([4, 0], [-4, 0], [0, 0], [1, 0]))  # fmt: skip
    assert right[0, 0].tolist() == [255, 0, 0] and still[0, 0].tolist() == [255, 255, 255]
    assert left[0, 0].tolist() == [0, 255, 255]
    assert slow[0, 0, 1] > 180, "paler than fast motion"


# What is remembered -------------------------------------------------------------------------------------------------


@given(length=st.integers(1, 400), most=st.integers(2, 20))
def test_kept_frames_are_few_and_evenly_spaced(length: int, most: int) -> None:
    kept: EvenlySpaced[int] = EvenlySpaced(most)
    for index in range(length):
        kept.offer(lambda index=index: index)  # type: ignore[misc]
    steps = set(np.diff(kept.kept).tolist())
    assert kept.kept[0] == 0 and len(steps) <= 1
    assert min(length, most // 2) <= len(kept.kept) <= most


@given(scores=st.lists(st.integers(0, 100), min_size=1, max_size=60), most=st.integers(1, 5))
def test_the_worst_frames_are_kept_apart_from_each_other(scores: list[int], most: int) -> None:
    worst: Worst[int] = Worst(most, apart=5)
    for index, score in enumerate(scores):
        worst.offer(score, index, lambda index=index: index)  # type: ignore[misc]
    assert 1 <= len(worst.kept) <= most
    assert all(b - a >= 5 for a, b in zip(worst.kept, worst.kept[1:], strict=False))
    assert max(scores) in [scores[index] for index in worst.kept]


@pytest.fixture
def results() -> Iterator[list[FrameResult]]:
    """Of a clip in which a block crosses the lower half, then all stands still."""
    patient = CoherenceSettings(flow_deadline_ms=60_000)
    vlm = TemporalVLM(Stretch(8 * PATCH), LinearEncoder(), HostOps(), patient, costs=costs())
    handled = []
    for index in range(16):
        image = texture(2)
        at = 10 + 6 * min(index, 10)
        image[70:110, at : at + 40] = texture(99, (40, 40))
        result = vlm.process(frame(image, index))
        handled.append(replace(result, accumulated=result.accumulated.copy()))
    yield handled
    vlm.close()


def test_a_token_is_as_old_as_its_last_encode_wherever_it_went(results: list[FrameResult]) -> None:
    ages, oldest = Ages(64), 0
    for index, result in enumerate(results):
        now = ages.process(result)
        if result.dirty is not None:
            assert (now[result.dirty] == 0).all()
        oldest = max(oldest, int(now.max()))
        assert oldest <= index
    assert oldest > 8, "the upper half does not change"
    step = np.roll(np.arange(64), 1)
    before = ages.frames.copy()
    nothing = np.zeros(0, np.int64)
    np.testing.assert_array_equal(ages.process(replace(results[-1], dirty=nothing, slid=step)), before[step] + 1)


# Over time ----------------------------------------------------------------------------------------------------------


def moment(index: int, mode: Mode, *, cut: bool = False, encoded: float = 0.1) -> Moment:
    return Moment(index, index / 25, mode, encoded, encoded / 2, 0.9, 0.99, 0, cut, 5.0)


@pytest.mark.parametrize("length", [1, 50, 5000])
def test_the_chart_has_every_mode_and_cut_at_its_time(length: int) -> None:
    cut_at = length // 2
    moments = [
        moment(i, Mode.SCENE_CUT_FULL if i == cut_at else Mode.REUSE, cut=i == cut_at, encoded=float(i == cut_at))
        for i in range(length)
    ]
    picture = chart(moments, "a clip", 0.985)
    red = (picture == MODE_COLOURS[Mode.SCENE_CUT_FULL]).all(axis=2)
    columns = np.flatnonzero(red[100:400].all(axis=0))
    assert 1 <= len(columns) <= 1200 / min(length, 1200) + 1
    assert abs((columns[0] - 150) / 1200 - cut_at / length) < 0.01
    assert (picture == MODE_COLOURS[Mode.REUSE]).all(axis=2).any() or length == 1


def test_the_strip_has_the_newest_frame_at_the_right() -> None:
    moments = [moment(i, Mode.REUSE) for i in range(500)] + [moment(500, Mode.FULL, encoded=1)]
    picture = strip(moments, (400, 72))
    full = (picture == MODE_COLOURS[Mode.FULL]).all(axis=2)
    assert full[20:, -4:].any() and not full[:, :-4].any()


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, Size())
    export_model(folder, name="random", domain="noise", prompt="{image}{question}")
    return folder


def clip(folder: Path, images: list[NDArray[np.uint8]]) -> Path:
    folder.mkdir()
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"{index:03}.png"), image[..., ::-1])
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["inspect", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        code = getattr(result.exception, "exit_code", None)
        if code is None:
            raise result.exception
        return int(code), str(result.exception)
    return result.exit_code, result.output


def test_a_clip_is_drawn_with_its_cut(model: Path, tmp_path: Path) -> None:
    images = [texture(1) for _ in range(8)]
    for index, image in enumerate(images):
        image[40:80, 20 + 5 * index : 60 + 5 * index] = texture(3, (40, 40))
    images += [cv2.convertScaleAbs(texture(2), alpha=0.3) for _ in range(8)]
    source, out = clip(tmp_path / "clip", images), tmp_path / "new" / "pictures"
    code, said = run(source, "--out", out, "--model", model, "--json", tmp_path / "report.json")
    assert code == 0 and "16 frames" in said
    assert {path.name for path in out.iterdir()} == {*FILES, "inspect.mp4"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["frames"], report["cuts"], report["frame_size"]) == (16, [8], [224, 128])
    assert sum(report["modes"].values()) == sum(report["coherence"]["classes"].values()) + 1 == 16
    with av.open(str(out / "inspect.mp4")) as video:
        pictures = [each.to_ndarray(format="rgb24") for each in video.decode(video=0)]
        assert video.streams.video[0].codec_context.name in ("h264", "mpeg4")
    assert len(pictures) == 16 and pictures[0].shape[1] == 1200


def test_a_clip_that_breaks_off_is_drawn_as_far_as_it_went(model: Path, tmp_path: Path) -> None:
    source = clip(tmp_path / "clip", [texture(1)] * 6)
    (source / "004.png").write_bytes(b"no picture")
    code, said = run(source, "--out", tmp_path / "out", "--model", model)
    assert code == 74 and "004.png" in said
    with av.open(str(tmp_path / "out" / "inspect.mp4")) as video:
        assert len(list(video.decode(video=0))) == 4
    assert {path.name for path in (tmp_path / "out").iterdir()} > FILES


def test_what_cannot_be_inspected_is_named_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    source, out = clip(tmp_path / "clip", [texture(1)] * 2), tmp_path / "out"
    (tmp_path / "file").write_text("in the way")
    for code, name, arguments in (
        (69, "missing.mp4", (tmp_path / "missing.mp4", "--out", out, "--model", model)),
        (78, "file", (source, "--out", tmp_path / "file", "--model", model)),
        (78, "fidelity_floor", (source, "--out", out, "--model", model, "--fidelity-floor", 2)),
        (78, "nothing-here", (source, "--out", out, "--model", tmp_path / "nothing-here")),
        (2, "never ends", ("scene:street", "--out", out)),
        (2, "sprots", (source, "--out", out, "--profile", "sprots")),
        (2, "--out", (source,)),
    ):
        found, said = run(*arguments)
        assert (found, name in said) == (code, True), said
        assert not out.exists()


def test_the_page_names_every_file_key_and_metric_that_there_is(model: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "inspect.md").read_text(encoding="utf-8")
    source = clip(tmp_path / "clip", [texture(1)] * 3)
    assert run(source, "--out", tmp_path / "out", "--model", model, "--json", tmp_path / "report.json")[0] == 0
    report = json.loads((tmp_path / "report.json").read_text())
    parts = {*report, *report["memory"], *report["profile"]["frame"], *report["files"], *report["consistency"]} - {
        "pairs",
        "lag_s",
    }
    assert {part for part in parts if f"`{part}" not in page and f".{part}`" not in page} == set()
    metrics = Metrics("0")
    published = {metric.name for metric in metrics.registry.collect()}
    published |= {f"{metric.name}_total" for metric in metrics.registry.collect() if metric.type == "counter"}
    told = set(re.findall(r"`(?:rate\()?((?:stillwatch|process)_\w+)", page))
    assert told and told <= published
