"""What training looks at: pairs of rendered pictures with their truth, and pairs of frames of real clips."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from agent.capture import open_source
from agent.capture.scene.pair import random_pair
from agent.capture.scene.truth import SceneTruth
from config.errors import EndOfStream
from engines.preprocess import shrink

SIZE, PATCH, GRID = 280, 14, 20
MARGIN = 3
WIDE = SIZE + 2 * MARGIN * PATCH
MAX_OBJECTS = 8
FRAME = (640, 360)
VIDEO = (".mp4", ".avi", ".mkv", ".webm")
CONTENTS = ("static", "conversation", "action", "camera-motion", "cuts")


def picture_of(image: np.ndarray, size: int = SIZE) -> np.ndarray:
    """The model's picture of a frame, by the product's own preprocessing."""
    picture = np.empty((size, size, 3), np.uint8)
    shrink(image, picture)
    return picture


def coverage_of(truth: SceneTruth, labels: np.ndarray) -> np.ndarray:
    """uint8 (MAX_OBJECTS, 400): per object, how many of a patch's 196 pixels show it."""
    rows = (np.arange(SIZE) + 0.5) * labels.shape[0] / SIZE
    columns = (np.arange(SIZE) + 0.5) * labels.shape[1] / SIZE
    small = labels[rows.astype(int)][:, columns.astype(int)].reshape(GRID, PATCH, GRID, PATCH)
    found = np.zeros((MAX_OBJECTS, GRID * GRID), np.uint8)
    for i, item in enumerate(truth.objects[:MAX_OBJECTS]):
        found[i] = (small == item.id).sum(axis=(1, 3)).reshape(-1)
    return found


def mirror(truth: SceneTruth) -> SceneTruth:
    """The truth of the picture seen in a mirror."""
    turned = tuple(
        replace(o, box=(FRAME[0] - o.box[0] - o.box[2], o.box[1], o.box[2], o.box[3])) for o in truth.objects
    )
    return replace(truth, objects=turned)


def _render(arguments: tuple[str, int, int, int]) -> list[tuple[SceneTruth, SceneTruth]]:
    """Fill rows [first, last) of the picture file; returns their truths."""
    folder, seed, first, last = arguments
    cv2.setNumThreads(1)
    pictures = np.lib.format.open_memmap(Path(folder) / "pictures.npy", mode="r+")
    covers = np.lib.format.open_memmap(Path(folder) / "coverage.npy", mode="r+")
    truths = []
    for i in range(first, last):
        both = random_pair(np.random.default_rng((seed, i)), *FRAME)
        for n, (image, truth, labels) in enumerate(both):
            pictures[i, n], covers[i, n] = picture_of(image), coverage_of(truth, labels)
        truths.append((both[0][1], both[1][1]))
    return truths


class Rendered:
    """Rendered pairs on disk, made once from a seed: pictures uint8 (N, 2, 280, 280, 3), coverage uint8
    (N, 2, MAX_OBJECTS, 400), truths."""

    def __init__(self, folder: Path, count: int, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        facts = folder / "truths.npy"
        if not facts.exists():
            np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, (count, 2, SIZE, SIZE, 3))
            np.lib.format.open_memmap(folder / "coverage.npy", "w+", np.uint8, (count, 2, MAX_OBJECTS, GRID * GRID))
            truths: list[tuple[SceneTruth, SceneTruth]] = []
            shares = [(str(folder), seed, i, min(i + 50, count)) for i in range(0, count, 50)]
            began = time.monotonic()
            with multiprocessing.get_context("fork").Pool(2) as workers:
                for part in workers.imap(_render, shares):
                    truths += part
                    if len(truths) % 500 == 0:
                        print(f"rendered {len(truths)}/{count} pairs, {time.monotonic() - began:.0f} s", flush=True)
            np.save(facts, np.array(truths, dtype=object), allow_pickle=True)
        self.pictures = np.load(folder / "pictures.npy", mmap_mode="r")
        self.coverage = np.load(folder / "coverage.npy", mmap_mode="r")
        self.truths = [tuple(row) for row in np.load(facts, allow_pickle=True)]


def clips(data: Path) -> tuple[list[Path], list[Path]]:
    """The real clips that training sees, and those kept from it: in each folder, by name, every other one."""
    seen: list[Path] = []
    unseen: list[Path] = []
    for content in CONTENTS:
        found = sorted(f for f in (data / content).glob("*") if f.suffix in VIDEO)
        seen += found[0::2]
        unseen += found[1::2]
    return seen, unseen


class Real:
    """Frames of the clips that training sees, on disk: in the model's size uint8 (N, 280, 280, 3), and wide
    (N, 364, 364, 3), so that a window can slide; `clip` int (N,) says which clip a frame is from."""

    def __init__(self, folder: Path, files: list[Path], most: int = 160) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "clip.npy").exists():
            small, wide, clip = [], [], []
            for number, file in enumerate(files):
                frames = list(_every(file, most))
                small += [picture_of(f) for f in frames]
                wide += [picture_of(f, WIDE) for f in frames]
                clip += [number] * len(frames)
                print(f"real frames: {file.name} {len(frames)}", flush=True)
            np.save(folder / "small.npy", np.stack(small))
            np.save(folder / "wide.npy", np.stack(wide))
            np.save(folder / "clip.npy", np.array(clip))
        self.small = np.load(folder / "small.npy", mmap_mode="r")
        self.wide = np.load(folder / "wide.npy", mmap_mode="r")
        self.clip = np.load(folder / "clip.npy")

    def pair(self, rng: np.random.Generator) -> tuple[int, int]:
        """Two frames of one clip, near each other more often than far. Every clip is as likely."""
        number = int(rng.integers(self.clip.max() + 1))
        frames = np.flatnonzero(self.clip == number)
        i = int(rng.integers(len(frames)))
        gap = 1 + int(rng.exponential(4.0))
        j = i + gap if i + gap < len(frames) else i - gap
        return int(frames[i]), int(frames[min(max(j, 0), len(frames) - 1)])


def _every(file: Path, most: int) -> Iterator[np.ndarray]:
    """At most `most` frames of a clip, evenly spread but never more than 4 apart."""
    with open_source(str(file), source_id="clip", paced=False) as source:
        step = max(1, min(4, (source.info.frames or most) // most))
        for n in range(step * most):
            try:
                frame = source.read()
            except EndOfStream:
                return
            if n % step == 0:
                yield frame.image
