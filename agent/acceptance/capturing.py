"""Capture: a clip that we write, decoded by jetson-utils where it works, and by libav on the CPU."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from agent.acceptance.meter import Meter
from agent.acceptance.stages import SCENE
from agent.capture import open_source
from agent.capture.jetson_choice import missing
from agent.capture.scene.source import parse_scene
from config.errors import EndOfStream

_FRAMES, _STEP, _FPS = 30, 6, 30
"""Of the clip: every sixth frame of the scene, so that neighbours can be told apart."""
_SIZE = (160, 90)
_TOLERANCE = 8.0
"""Mean difference in grey levels: the two convert YUV by other matrices, and round otherwise."""


@dataclass(frozen=True, slots=True)
class CaptureResult:
    """own: libav captures here. frames: how many of the clip's came; jetson-utils may skip some. difference: of the
    worst frame from the one of libav's that it is nearest to, mean over pixels in grey levels. ms: for a frame."""

    runs_on: str
    own: bool
    frames: int
    clip_frames: int
    difference: float | None
    in_order: bool | None
    passed: bool
    ms: float | None
    watts: float | None
    host_ms: float | None
    why: str | None = None
    fault: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def capture_result(meter: Meter) -> CaptureResult:
    """Raises nothing that a backend raises: it is the result."""
    with tempfile.TemporaryDirectory(prefix="stillwatch-clip-") as folder:
        clip = Path(folder) / "clip.mp4"
        _write(clip)
        host, host_ms, host_watts = _read(str(clip), meter)
        if (why := missing()) is not None:
            whole = len(host) == _FRAMES
            name = "libav on the CPU"
            return CaptureResult(name, True, len(host), _FRAMES, None, None, whole, host_ms, host_watts, None, why)
        name = "jetson-utils in a process of its own"
        try:
            found, ms, watts = _read(f"{clip}#capture=process", meter)
        except Exception as error:  # see `agent.acceptance.stages.run_stage`
            fault = f"{type(error).__name__}: {error}"
            return CaptureResult(name, False, 0, _FRAMES, None, None, False, None, None, host_ms, fault=fault)
    if not found:
        return CaptureResult(
            name, False, 0, _FRAMES, None, None, False, None, watts, host_ms, fault="no frame came before the end"
        )
    every = np.stack(host).astype(np.float32)
    distances = np.stack([np.abs(every - frame).mean(axis=(1, 2, 3)) for frame in found])
    nearest = distances.argmin(axis=1)
    difference, in_order = float(distances.min(axis=1).max()), bool((np.diff(nearest) > 0).all())
    passed = difference <= _TOLERANCE and in_order
    return CaptureResult(name, False, len(found), _FRAMES, round(difference, 2), in_order, passed, ms, watts, host_ms)


def _write(clip: Path) -> None:
    scene, _ = parse_scene(SCENE)
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=_FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height = scene.size
        stream.pix_fmt = "yuv420p"
        for index in range(_FRAMES):
            picture = av.VideoFrame.from_ndarray(scene.render(_STEP * index), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _read(uri: str, meter: Meter) -> tuple[list[NDArray[np.uint8]], float | None, float | None]:
    """All frames, made small; milliseconds a frame from the second on, and watts."""
    frames: list[NDArray[np.uint8]] = []
    spent_s = began_s = 0.0
    with meter.sampling() as watts, closing(open_source(uri, source_id="acceptance", paced=False)) as source:
        while True:
            try:
                image = source.read(10.0).image
            except EndOfStream:
                break
            now_s = time.perf_counter()
            began_s = began_s or now_s
            spent_s = now_s - began_s
            frames.append(np.asarray(cv2.resize(image, _SIZE, interpolation=cv2.INTER_AREA), np.uint8))
    ms = round(1e3 * spent_s / (len(frames) - 1), 3) if len(frames) > 1 else None
    return frames, ms, meter.mean(watts)
