"""What the benchmark looks at, and how it shows what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from coherence_standin import texture
from hypothesis import given
from hypothesis import strategies as st

from agent.bench.chart import draw
from agent.bench.clips import Clip
from agent.bench.news import timing
from agent.bench.pan import PannedSource
from agent.capture import open_source
from config.errors import ConfigError, EndOfStream


def write(folder: Path, frames: int) -> str:
    """A still picture whose corner says which frame it is."""
    folder.mkdir()
    for index in range(frames):
        image = texture(1, (64, 48))
        image[0, 0] = index
        cv2.imwrite(str(folder / f"{index}.png"), image[..., ::-1])
    return str(folder)


def test_a_pan_slides_to_the_border_and_back(tmp_path: Path) -> None:
    clip = write(tmp_path / "still", 40)
    whole = texture(1, (64, 48))
    whole[0, 0] = 0
    with PannedSource(open_source(clip, source_id="x", paced=False), (2, -0.5)) as source:
        assert (source.info.width, source.info.height, source.info.frames) == (48, 36, 40)
        for index in range(40):
            image = source.read().image
            x, y = abs((2 * index + 16) % 32 - 16), round(abs((0.5 * index) % 24 - 12))
            inside = whole[y : y + 36, x : x + 48]
            np.testing.assert_array_equal(image[1:, 1:], inside[1:, 1:])
            assert image.flags.c_contiguous
        with pytest.raises(EndOfStream):
            source.read()


@pytest.mark.parametrize("step", [(17, 0), (0, float("nan"))])
def test_a_pan_that_leaves_the_picture_is_refused(tmp_path: Path, step: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"--pan .*16,12 or less"):
        PannedSource(open_source(write(tmp_path / "still", 1), source_id="x", paced=False), step)


def test_a_stretch_of_a_clip_is_those_frames_and_no_others(tmp_path: Path) -> None:
    folder = write(tmp_path / "still", 9)
    clip = Clip.of(f"{folder}:3-6")
    with clip.open() as source:
        assert clip.length(source) == 4
        assert [int(frame.image[0, 0, 0]) for frame in clip.frames(source)] == [3, 4, 5, 6]
    assert clip.content == tmp_path.name
    with Clip.of(f"{folder}:20-30").open() as source, pytest.raises(EndOfStream, match="20-30"):
        list(Clip.of(f"{folder}:20-30").frames(source))


def test_a_scene_ends_by_its_seconds_its_frames_or_its_stretch() -> None:
    assert Clip.of("scene:street?seed=1").endless
    for name, frames in (("scene:street?seconds=2", None), ("scene:street", 5), ("scene:street?seed=1:0-9", None)):
        assert not Clip.of(name, frames).endless
    assert (Clip.of("scene:street?seed=1:10-99", 5).last, Clip.of("scene:street").content) == (14, "scene")


@given(st.lists(st.floats(0, 1e3), max_size=6), st.floats(-1.9, 1.9))
def test_the_same_events_a_little_later_all_match(times: list[float], late_s: float) -> None:
    apart = [10 * index + time / 1e3 for index, time in enumerate(times)]
    found = timing([time + late_s for time in apart], apart)
    assert found["matched"] == found["ours"] == found["full"] == len(times)
    if times:
        assert (found["late_s"], found["largest_s"]) == (pytest.approx(late_s), pytest.approx(abs(late_s)))


def test_events_far_apart_are_two_events() -> None:
    assert timing([5.0, 9.0], [5.5, 20.0]) == {"ours": 2, "full": 2, "matched": 1, "late_s": -0.5, "largest_s": 0.5}


def report(content: str, fidelity: float, speedup: float) -> dict[str, Any]:
    rivals = [
        {"name": "eventful", "setting": {"threshold": t}, "speedup": t, "fidelity": {"mean": 1 - t / 100}}
        for t in (1, 2)
    ]
    return {
        "content": content,
        "pan": None,
        "frames": 100,
        "fidelity": {"mean": fidelity},
        "speedup": speedup,
        "rivals": rivals,
    }


def test_a_chart_has_a_panel_for_each_content_and_a_dot_for_each_clip() -> None:
    one, two = draw([report("static", 0.99, 5)]), draw([report("static", 0.99, 5), report("action", 0.98, 3)])
    assert two.shape[1] == 2 * one.shape[1]

    def red(image: np.ndarray[Any, Any]) -> int:
        return int((image.astype(int) @ [-1, -1, 1] > 60).sum())

    half = two.shape[1] // 2
    assert min(red(two[:, :half]), red(two[:, half:])) > 50
