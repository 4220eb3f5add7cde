"""A camera that is pushed by a few pixels, at once or slowly: that is no alarm, and nobody says that it was moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from test_reporting import Desk

from agent.capture.frame import Frame
from agent.capture.scene import Scene
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.settings import PROFILES
from agent.insight.anomaly import AnomalyModel, AnomalySettings
from agent.insight.change import SemanticChange
from agent.watching import CameraWatch
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from vpi_ops.choice import host_ops, host_shrink

Image = NDArray[np.uint8]

FPS, WIDTH, HEIGHT = 5, 480, 270
LEARN_S, PUSHED_S, END_S = 20, 28, 38
UTC = datetime(2026, 3, 14, 12, tzinfo=timezone.utc)


@lru_cache(maxsize=1)
def world() -> Image:
    return Scene("street", 4, width=960, height=540, light="day", noise=0, max_objects=0).render(0)


def look(right: float, down: float, noise: np.random.Generator) -> Image:
    to_world = np.array([[1, 0, 150.0 + right], [0, 1, 120.0 + down]])
    image = cv2.warpAffine(world(), to_world, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(np.clip(image + noise.normal(0, 1, image.shape), 0, 255), np.uint8)


@dataclass
class Street:
    desk: Desk
    watch: CameraWatch

    def run(self, right: float, down: float, within_s: float) -> list[str]:
        """Push the camera by so many pixels; what was told as an alarm, or of its health."""
        noise = np.random.default_rng(3)
        for index in range(END_S * FPS):
            now_s = index / FPS
            pushed = float(np.clip((now_s - PUSHED_S) / within_s, 0, 1))
            image = look(right * pushed, down * pushed, noise)
            self.watch.see(Frame(image, "street", index, int(now_s * 1e9) + 10**9, UTC + timedelta(seconds=now_s)))
        return [event.kind for event in self.desk.settle() if event.kind != "semantic_change"]


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    desk = Desk(tmp_path)
    loaded = load_model(find_model("reference"))
    encoder = OnnxEncoder(OnnxRuntime(loaded, threads=1, spin=False))
    pictures = Preprocessor(loaded.manifest, host_shrink())
    watch = CameraWatch(
        TemporalVLM(pictures, encoder, host_ops(), PROFILES["general"]),
        pictures,
        loaded.manifest.patch_size,
        SemanticChange(encoder.grid),
        AnomalyModel(encoder.grid, encoder.dim, AnomalySettings(learn_s=LEARN_S)),
        lambda _model, _now_s: None,
        desk.reporter(None),
    )
    yield Street(desk, watch)
    watch.close()
    desk.close()


@pytest.mark.parametrize("right,down,within_s", [(3.0, 1.0, 0.2), (8.0, 4.0, 0.2), (20.0, 10.0, 1.6)])
def test_a_push_is_no_alarm(street: Street, right: float, down: float, within_s: float) -> None:
    assert street.run(right, down, within_s) == []
    assert street.watch.learned == 1.0
