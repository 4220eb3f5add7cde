"""`stillwatch cuts`: any clip in, frames and times out, and what is said when that can't be."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from calling import caller
from numpy.typing import NDArray

from agent.capture.scene import Scene

SHOTS = [Scene(place, seed, width=160, height=90, light="day") for place, seed in (("street", 1), ("office", 2))]
IMAGES = [SHOTS[i >= 18].render(i) for i in range(36)]


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Call the command in this process: (status, stdout, stderr)."""
    return caller(monkeypatch, capsys, "cuts")


def write_video(path: Path, images: list[NDArray[np.uint8]], times_ms: list[int]) -> Path:
    """Each image at its own time, as phones and screen recorders write them."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=30)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.codec_context.bit_rate = "yuv420p", 2_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, time_ms in zip(images, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def test_frame_and_time_of_a_video_whose_frames_come_at_any_time(cuts, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    gaps = np.random.default_rng(5).integers(15, 400, len(IMAGES))
    times_ms = [500 + int(t) for t in np.cumsum(gaps)]
    clip, out = write_video(tmp_path / "phone.mkv", IMAGES, times_ms), tmp_path / "cuts.json"
    status, said, _ = cuts(clip, "--json", out)
    assert status == 0
    assert "frame 18  cut" in said
    (cut,) = json.loads(out.read_text())["cuts"]
    assert (cut["frame"], cut["start"], cut["kind"]) == (18, 18, "cut")
    assert cut["time_s"] == pytest.approx((times_ms[18] - times_ms[0]) / 1000, abs=1e-6)
    assert 0.32 <= cut["score"] <= 1


def test_a_folder_of_images_and_a_clip_that_ends_with_the_new_shot(cuts, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for index, image in enumerate(IMAGES[:19]):
        cv2.imwrite(str(tmp_path / f"frame_{index}.png"), image[..., ::-1])
    out = tmp_path / "cuts.json"
    assert cuts(tmp_path, "--json", out)[0] == 0
    (cut,) = json.loads(out.read_text())["cuts"]
    assert (cut["frame"], cut["time_s"]) == (18, 18 / 25)


def test_the_detectors_of_two_neighbours_find_what_is_plain(cuts, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    board = np.kron(np.indices((9, 16)).sum(axis=0) % 2 * 255, np.ones((10, 10))).astype(np.uint8)
    images = [*IMAGES[:6], *[np.dstack([board] * 3)] * 3]
    clip = write_video(tmp_path / "clip.mkv", images, [40 * i for i in range(len(images))])
    for detector in ("histogram", "features", "combined"):
        assert cuts(clip, "--detector", detector, "--frames", 8) == (0, "0:00.240  frame 6  cut\n", "")
        assert cuts(clip, "--detector", detector, "--frames", 6) == (0, "", "")


def test_a_scene_is_cut_where_its_truth_says(cuts, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "cuts.json"
    assert cuts("scene:street?seed=2&camera=cut&fps=4&width=160&height=90&seconds=20", "--json", out)[0] == 0
    scene = Scene("street", 2, camera="cut", fps=4, width=160, height=90)
    assert [cut["frame"] for cut in json.loads(out.read_text())["cuts"]] == [
        index for index in range(80) if scene.truth(index).cut
    ]


def test_no_cuts_are_an_empty_list(cuts, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    cv2.imwrite(str(tmp_path / "one.png"), IMAGES[0])
    out = tmp_path / "cuts.json"
    assert cuts(tmp_path / "one.png", "--json", out) == (0, "", "")
    assert json.loads(out.read_text()) == {"cuts": []}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("{folder}/none.mp4",), 69, "none.mp4"),
        (("{folder}/bad.mp4",), 74, "bad.mp4"),
        (("{folder}/empty.mp4",), 74, "empty"),
        (("{folder}/one.png", "--json", "{folder}/no/such/folder.json"), 78, "can't be written"),
        (("{folder}/one.png", "--detector", "features", "--model", "{folder}"), 78, "{folder}"),
        (("{folder}/one.png", "--detector", "guess"), 2, "guess"),
        (("{folder}/one.png", "--model", "reference"), 2, "--model"),
        (("{folder}/one.png", "--frames", "0"), 2, "--frames"),
        (("scene:street?seed=1",), 2, "seconds="),
        (("scene:strete?seconds=1",), 78, "street"),
        ((), 2, "CLIP"),
    ],
)
def test_what_can_t_be_used_is_named(  # type: ignore[no-untyped-def]
    cuts, tmp_path: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), IMAGES[0])
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + np.random.default_rng(7).bytes(3000))
    (tmp_path / "empty.mp4").touch()
    found, said, err = cuts(*(argument.format(folder=tmp_path) for argument in arguments))
    assert (found, said) == (status, "")
    assert words.format(folder=tmp_path) in err
