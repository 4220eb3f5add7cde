"""Motion vectors of the codec: painted, followed through pictures that were left out, never believed where they mean
another picture than the one before, and used as flow where they know enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from capture_media import read_all
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.capture import open_source
from agent.capture.frame import Frame
from agent.capture.ring import Ring
from agent.coherence.motion import MotionStage
from agent.coherence.sampling import TokenSampler
from agent.masks import masked
from engines.preprocess import Placement
from vpi_ops.codec import UNKNOWN, CodecMotion
from vpi_ops.host import HostOps
from vpi_ops.interface import FlowField

WIDTH, HEIGHT = 320, 192
LOW_DELAY = {"preset": "fast", "x264-params": "bframes=0:ref=1:scenecut=0"}
Image = NDArray[np.uint8]


def mottled(seed: int, width: int, height: int) -> Image:
    """Texture coarse enough to be coded, without a period to be mistaken by."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def panned(frames: int, right: int, down: int) -> list[Image]:
    """Content that moves by (right, down) pixels a frame."""
    world = mottled(1, 600, 420)
    return [
        np.ascontiguousarray(world[y : y + HEIGHT, x : x + WIDTH])
        for x, y in ((150 - i * right, 120 - i * down) for i in range(frames))
    ]


def written(
    path: Path, images: list[Image], codec: str = "libx264", gop: int = 100, options: dict[str, str] = LOW_DELAY
) -> str:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.bit_rate = 4_000_000
        stream.options = options if codec == "libx264" else {}
        for image in images:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode(None))
    return str(path)


def read(uri: str, fps: float | None = None) -> list[Frame]:
    return read_all(open_source(uri, source_id="cam", motion=True, fps=fps))


def pixels(motion: CodecMotion) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The flow in source pixels, and where it is known; without the border, over which content comes in."""
    flow = motion.flow()
    assert flow.error is not None
    return (flow.backward * flow.scale)[3:-3, 3:-3], (flow.error < UNKNOWN)[3:-3, 3:-3]


@pytest.mark.parametrize(("name", "codec"), [("c.mp4", "libx264"), ("c.avi", "mpeg4")])
def test_a_pan_is_seen_backward_in_every_predicted_frame(tmp_path: Path, name: str, codec: str) -> None:
    frames = read(written(tmp_path / name, panned(9, 3, -2), codec, gop=4))
    assert [frame.motion is None for frame in frames] == [i % 4 == 0 for i in range(9)]
    for frame in frames:
        if frame.motion is not None:
            backward, known = pixels(frame.motion)
            assert known.mean() > 0.9
            assert np.median(backward[known], axis=0) == pytest.approx([-3, 2], abs=0.25)


def test_a_moving_block_moves_alone_and_what_comes_from_nowhere_is_unknown(tmp_path: Path) -> None:
    images = []
    for step in range(6):
        image = mottled(2, WIDTH, HEIGHT)
        image[64:112, 32 + 4 * step : 96 + 4 * step] = mottled(3, 66, 48)[:, :64]
        if step == 5:
            image[128:160, 224:272] = 255 - mottled(4, 48, 36)[:32]
        images.append(image)
    motion = read(written(tmp_path / "c.mp4", images))[-1].motion
    assert motion is not None
    flow = motion.flow()
    assert flow.error is not None
    backward, known = flow.backward * flow.scale, flow.error < UNKNOWN
    inside, around, new = np.s_[9:13, 9:12], np.s_[:6], np.s_[17:19, 29:33]
    assert np.median(backward[inside], axis=(0, 1)) == pytest.approx([-4, 0], abs=0.25)
    assert not backward[around].any()
    assert known[inside].all() and known[around].all()
    assert not known[new].any()


def test_behind_a_b_picture_nothing_is_said(tmp_path: Path) -> None:
    options = {"preset": "fast", "x264-params": "bframes=2:b-adapt=0:b-pyramid=none:ref=1:scenecut=0"}
    uri = written(tmp_path / "c.mp4", panned(13, 4, 0), options=options)
    with av.open(uri) as container:
        kinds = [int(picture.pict_type) for picture in container.decode(video=0)]
    assert kinds == [1, *[3, 3, 2] * 4]
    frames = read(uri)
    assert [i for i, frame in enumerate(frames) if frame.motion] == [1, 4, 7, 10]  # behind I and P
    backward, known = (np.stack(each) for each in zip(*(pixels(f.motion) for f in frames if f.motion), strict=True))
    assert 0.02 < known.mean() < 0.9, "blocks that come from a later picture are unknown"
    assert np.median(backward[known], axis=0) == pytest.approx([-4, 0], abs=0.25)


def test_motion_is_followed_through_frames_that_are_skipped(tmp_path: Path) -> None:
    uri = written(tmp_path / "c.mp4", panned(16, 2, 1), gop=10)
    frames = read(uri, fps=25 / 3)
    assert [frame.index for frame in frames] == [0, 3, 6, 9, 12, 15]
    assert [frame.motion and frame.motion.frames for frame in frames] == [None, 3, 3, 3, None, 3]  # a key frame at 10
    for frame in frames:
        if frame.motion is not None:
            backward, known = pixels(frame.motion)
            assert np.median(backward[known], axis=0) == pytest.approx([-6, -3], abs=0.5)
    assert all(frame.motion is None for frame in read(uri, fps=2)), "too long a way"


def test_what_stood_still_through_several_frames_is_known_to_the_last_row_and_column() -> None:
    y, x = (axis.ravel() for axis in np.mgrid[4:36:8, 4:52:8])  # blocks of 8 px, a picture of 48×32
    blocks = np.zeros((len(x), 10), np.int32)
    blocks[:, 0] = -1
    halves = blocks.view(np.int16)
    halves[:, 2], halves[:, 5], halves[:, 6], halves[:, 16] = 8 | 8 << 8, x, y, 4
    flow = CodecMotion((48, 32), (blocks,) * 3).flow()
    assert flow.error is not None and not flow.error.any()
    assert not flow.backward.any()


def test_motion_is_followed_through_frames_that_the_ring_drops(tmp_path: Path) -> None:
    frames = read(written(tmp_path / "c.mp4", panned(8, 2, 0)))
    ring = Ring(2)
    for frame in frames[:2]:
        ring.put(frame)
    seen = [ring.get()]
    for frame in frames[2:]:
        ring.put(frame)
    seen += [ring.get(), ring.get()]
    indices = [frame.index for frame in seen if frame]
    assert indices == [0, 6, 7]
    motions = [frame.motion for frame in seen if frame]
    assert [motion and motion.frames for motion in motions] == [None, 6, 1]
    assert motions[1] is not None
    backward, known = pixels(motions[1])
    assert known.mean() > 0.8
    assert np.median(backward[known], axis=0) == pytest.approx([-12, 0], abs=0.5)


def test_behind_damage_nothing_is_said_until_the_next_key_frame(tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    written(path, panned(20, 2, 0), gop=8)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    place, size = packets[3]
    data[place : place + size] = b"\xff" * size
    path.write_bytes(data)
    frames = read(str(path))
    assert len(frames) == 19
    key = [0, 7, 15]
    assert [i for i, frame in enumerate(frames) if frame.motion is None] == [*key[:1], 3, 4, 5, 6, *key[1:]]


def test_what_costs_more_than_dense_flow_is_not_asked_for(tmp_path: Path) -> None:
    wide = [mottled(5, 1602, 906)[:900, :1600]] * 3
    assert not any(frame.motion for frame in read(written(tmp_path / "c.mp4", wide)))
    step = CodecMotion.of((1280, 720), b"")
    assert step.after(step) is None
    small = CodecMotion.of((320, 180), b"")
    assert small.after(small) is not None


def test_where_there_are_no_vectors_there_is_no_motion(tmp_path: Path) -> None:
    images = panned(4, 2, 0)
    assert not any(frame.motion for frame in read(written(tmp_path / "c.mkv", images, "mjpeg")))
    unasked = open_source(written(tmp_path / "c.mp4", images), source_id="cam")
    assert not any(frame.motion for frame in read_all(unasked))


def test_what_a_mask_hides_does_not_show_in_vectors(tmp_path: Path) -> None:
    uri = written(tmp_path / "c.mp4", panned(3, 2, 0))
    opener = masked(lambda: open_source(uri, source_id="cam", motion=True), {"door": [(0, 0), (90, 0), (90, 90)]})
    assert not any(frame.motion for frame in read_all(opener()))


class Counting(HostOps):
    flows = 0

    def flow(self, *arguments: Any) -> FlowField:
        self.flows += 1
        return super().flow(*arguments)


@pytest.fixture
def ops() -> Counting:
    return Counting()


@pytest.fixture
def stage(ops: Counting) -> Iterator[MotionStage]:
    made = MotionStage(ops, deadline_s=60)
    yield made
    made.close()


ALL = np.ones(100, bool)
SAMPLER = TokenSampler(Placement.of("stretch", (WIDTH, HEIGHT), 140), (10, 10), 14)


def test_flow_is_of_the_codec_and_dense_where_it_has_none(tmp_path: Path, ops: Counting, stage: MotionStage) -> None:
    frames = read(written(tmp_path / "c.mp4", panned(9, 3, -2), gop=4))
    flows = [stage.process(frame, ALL, SAMPLER, wanted=True, dense=True) for frame in frames]
    assert [flow is None for flow in flows] == [True] + [False] * 8
    assert ops.flows == 2, "at key frames"
    for flow in flows[1:]:
        assert flow is not None
        assert np.median(SAMPLER.backward(flow), axis=0) == pytest.approx([-3, 2], abs=0.3)
        assert stage.check(flow) is not None


def test_motion_over_another_gap_than_ours_is_not_believed(tmp_path: Path, ops: Counting, stage: MotionStage) -> None:
    frames = read(written(tmp_path / "c.mp4", panned(4, 3, 0)))
    stage.process(frames[1], ALL, SAMPLER, wanted=True, dense=True)
    flow = stage.process(frames[3], ALL, SAMPLER, wanted=True, dense=True)
    assert ops.flows == 1
    assert flow is not None
    assert np.median(SAMPLER.backward(flow), axis=0) == pytest.approx([-6, 0], abs=0.3)


def test_what_the_codec_does_not_know_is_looked_at(tmp_path: Path, ops: Counting, stage: MotionStage) -> None:
    frames = read(written(tmp_path / "c.mp4", panned(2, 3, 0)))
    intra = replace(frames[1], motion=CodecMotion.of((WIDTH, HEIGHT), b""))
    stage.process(frames[0], ALL, SAMPLER, wanted=True, dense=True)
    assert stage.process(intra, ALL, SAMPLER, wanted=True, dense=True) is not None
    assert ops.flows == 1
    still = read(written(tmp_path / "d.mp4", panned(2, 0, 0)))[1]
    assert stage.process(replace(intra, index=2), ALL, SAMPLER, wanted=True, dense=False) is None
    assert stage.process(replace(still, index=3), ~ALL, SAMPLER, wanted=True, dense=True) is None
    assert ops.flows == 1


BLOCKS = {
    "whole": [(16, 16, 8, 8)],
    "rows": [(16, 8, 8, 4), (16, 8, 8, 12)],
    "columns": [(8, 16, 4, 8), (8, 16, 12, 8)],
    "quarters": [(8, 8, 4, 4), (8, 8, 12, 4), (8, 8, 4, 12), (8, 8, 12, 12)],
    "intra": [],
}
"""Width, height and centre of the blocks of a macroblock."""


@given(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=12, max_size=12), st.integers(0, 1000), st.booleans())
def test_every_block_is_painted_where_it_lies(kinds: list[str], seed: int, later_too: bool) -> None:
    size = (60, 41)  # 4 × 3 macroblocks, the last ones cut
    rng = np.random.default_rng(seed)
    vectors, expected = [(-1, 16, 16, 72, 8, 55, 55), (-1, 16, 16, 8, 56, 55, 55)], np.full((48, 64, 2), np.nan)
    for at, kind in enumerate(kinds):
        left, top = at % 4 * 16, at // 4 * 16
        for width, height, x, y in BLOCKS[kind]:
            x, y = left + x, top + y
            move = rng.integers(-9, 10, 2)
            vectors.append((-1, width, height, x, y, *move))
            if later_too:
                vectors.append((1, width, height, x, y, 77, 77))
            expected[y - height // 2 : y + height // 2, x - width // 2 : x + width // 2] = move / 4
    flow = CodecMotion.of(size, exported(vectors)).flow()
    assert flow.error is not None and flow.backward.shape == (6, 8, 2)
    cells = expected[4::8, 4::8].astype(np.float32)
    known = ~np.isnan(cells[..., 0])
    np.testing.assert_array_equal(flow.error, np.where(known, 0, UNKNOWN))
    filled = cells.copy()
    for y, x in np.argwhere(~known):
        around = np.s_[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5]
        filled[y, x] = cells[around][known[around]].mean(axis=0) if known[around].any() else 0
    np.testing.assert_allclose(flow.backward * flow.scale, cv2.medianBlur(filled, 3), atol=1e-4)


def exported(vectors: Sequence[tuple[int, ...]]) -> bytes:
    """Vectors (source, w, h, x, y, motion x, motion y) as libav lays them out, in quarter pixels."""
    block = [("source", "i4"), ("w", "u1"), ("h", "u1"), ("from", "i2", 2), ("x", "i2"), ("y", "i2"), ("flags", "u8")]
    layout = np.dtype([*block, ("mx", "i4"), ("my", "i4"), ("scale", "u2")], align=True)
    made = np.full(len(vectors), 0xA5, np.uint8).repeat(layout.itemsize).view(layout)  # padding is never zero
    for each, (source, w, h, x, y, mx, my) in zip(made, vectors, strict=True):
        for name, value in {"source": source, "w": w, "h": h, "x": x, "y": y, "mx": mx, "my": my, "scale": 4}.items():
            each[name] = value
    return made.tobytes()


@pytest.mark.parametrize("box", [(0, 0, 40, 30), (100, 60, 150, 110), (250, 150, 320, 192), (0, 0, 320, 192)])
def test_a_part_is_as_in_the_whole(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    motion = read(written(tmp_path / "c.mp4", panned(3, 3, -2)))[2].motion
    assert motion is not None
    whole, part = motion.flow(), motion.flow(box)
    x0, y0, x1, y1 = box
    inside = np.s_[y0 // 8 : -(-y1 // 8), x0 // 8 : -(-x1 // 8)]
    assert whole.error is not None and part.error is not None
    np.testing.assert_array_equal(part.error[inside], whole.error[inside])
    np.testing.assert_allclose(part.backward[inside], whole.backward[inside], atol=1e-5)
    assert part.backward.shape == whole.backward.shape
