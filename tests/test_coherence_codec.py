"""Vectors of the codec are hints: pixels decide, whatever a skipped block or a wrong vector says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from coherence_reference import slots_in, watch
from coherence_standin import frame
from numpy.typing import NDArray
from test_codec_motion import exported

from agent.capture.frame import Frame
from agent.capture.scene import Scene
from vpi_ops.codec import CodecMotion

Image = NDArray[np.uint8]

WIDTH, HEIGHT = 320, 176
WALKER = (208, 80, 32, 64)


def coded(images: list[Image], move: tuple[int, int]) -> list[Frame]:
    """Frames whose every macroblock is said to have moved by `move` pixels; (0, 0) is what skipped ones say."""
    blocks = [(x + 8, y + 8) for y in range(0, HEIGHT, 16) for x in range(0, WIDTH, 16)]
    vectors: list[tuple[int, ...]] = [(-1, 16, 16, *at, -4 * move[0], -4 * move[1]) for at in blocks]
    motion = CodecMotion.of((WIDTH, HEIGHT), exported(vectors))
    return [replace(frame(image, index), motion=motion if index else None) for index, image in enumerate(images)]


def walked(frames: int) -> list[Image]:
    """A street in which somebody stands from frame 4 on, and leaves after eight."""
    empty = Scene("street", 4, width=WIDTH, height=HEIGHT, light="day", noise=1.5, max_objects=0)
    images = [empty.render(index) for index in range(frames)]
    x, y, w, h = WALKER
    for image in images[4:12]:
        image[y : y + h, x : x + w] = image[y : y + h, x : x + w] // 3
    return images


@pytest.mark.parametrize("move", [(0, 0), (16, 0), (-32, 16), (5, -3)])
def test_vectors_that_lie_hide_nothing_and_move_nothing(move: tuple[int, int]) -> None:
    seen = watch(coded(walked(15), move), judged=[4, 8, 12, 14])
    x, y, w, h = WALKER
    for index in (4, 12):  # comes, leaves
        assert set(slots_in(seen[index], (x + 2, y + 2, w - 4, h - 4)).tolist()) <= set(seen[index].slots.tolist())
    assert min(seen[index].fidelity for index in (4, 8, 12, 14)) > 0.985
