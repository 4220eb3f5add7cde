"""A long run holds its memory and its file descriptors. Minutes long: `scripts/test --all`."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from agent.daemon import Daemon, RunOptions
from agent.insight.anomaly import AnomalySettings
from config.settings import Camera, Events, Settings

FRAMES = 20_000
FPS = 20
WARM_UP = 5_000
"""Frames until caches, allocator and the anomaly history have their size."""
_SLOPE_MB = 12.0
"""Growth over the rest of the run that is still noise of the allocator; a leak of one frame in ten would be 100 MB."""


def pictures() -> Iterator[NDArray[np.uint8]]:
    """A dark yard in which a bright thing moves at times, and which is another place every 2,500 frames."""
    for index in range(FRAMES):
        picture = np.full((72, 96, 3), 40 + 30 * (index // 2500 % 3), np.uint8)
        picture[::6] += 25
        if index // 200 % 2:
            x = index % 80
            cv2.rectangle(picture, (x, 30), (x + 14, 50), (200, 60, 30), -1)
        yield picture


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("soak") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for picture in pictures():
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        container.mux(list(stream.encode()))
    return path


def watched(clip: Path, folder: Path) -> tuple[int, int, list[tuple[int, float, int]]]:
    """Frames seen, frames that failed, and (frames, resident MB, descriptors) about once a second of a whole run."""
    process = psutil.Process()
    settings = Settings(
        events=Events(dir=folder / "state"),
        cameras={"yard": Camera(source=str(clip), zones={"z": [(0, 0), (50, 0), (50, 50)]})},
    )
    options = RunOptions(events_to=str(folder / "events.ndjson"), anomaly=AnomalySettings(learn_s=60.0))
    daemon = Daemon(settings, options)
    watch = daemon.cameras["yard"].watch
    samples: list[tuple[int, float, int]] = []
    daemon.run(
        threading.Event(), lambda: samples.append((watch.frames, process.memory_info().rss / 1e6, process.num_fds()))
    )
    return watch.frames, watch.modes["error"], samples


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_thousand_frames_hold_memory_and_descriptors(clip: Path, tmp_path: Path) -> None:
    """In a process of its own: what other tests have left in this one's allocator would count."""
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        seen, failed, samples = alone.apply(watched, (clip, tmp_path))
    assert (seen, failed) == (FRAMES, 0)
    events = (tmp_path / "events.ndjson").read_text().splitlines()
    assert len(events) > 10
    frames, rss_mb, fds = np.array([sample for sample in samples if sample[0] > WARM_UP]).T
    assert len(frames) >= 10
    growth_mb = float(np.polyfit(frames, rss_mb, 1)[0] * (FRAMES - WARM_UP))
    assert growth_mb < _SLOPE_MB, f"{growth_mb:.1f} MB more at the end; resident {rss_mb[:: len(rss_mb) // 10]}"
    # A file that is being written when a sample is taken is no leak, so the fewest of each end count.
    quarter = len(fds) // 4
    first, last = fds[:quarter].min(), fds[-quarter:].min()
    assert last - first <= 2, f"descriptors {first:.0f} to {last:.0f}"
