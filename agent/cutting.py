"""Where a clip cuts to another shot: `stillwatch cuts`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.capture import open_source
from agent.capture.frame import Frame
from agent.capture.source import FrameSource
from agent.coherence.cuts import CombinedCut, Cut, FeatureCut, Glance, HistogramCut, SceneCuts
from config.errors import EndOfStream
from engines.preprocess import shrink
from vpi_ops.choice import host_ops, host_shrink

DETECTORS = ("adaptive", "histogram", "features", "combined")
"""`adaptive` finds dissolves and fades as well and looks two frames ahead. The others hold two neighbours against a
limit, `features` and `combined` with the help of a model."""
MODEL_DETECTORS = ("features", "combined")

_GRID, _PATCH = (20, 20), 14


@dataclass(frozen=True, slots=True)
class TimedCut:
    """A cut and when its frame is shown, in seconds from the first frame."""

    cut: Cut
    time_s: float

    def __str__(self) -> str:
        minutes, seconds = divmod(self.time_s, 60)
        began = f", from frame {self.cut.start}" if self.cut.start != self.cut.frame else ""
        return f"{int(minutes)}:{seconds:06.3f}  frame {self.cut.frame}  {self.cut.kind}{began}"

    def as_json(self) -> dict[str, Any]:
        """One entry of `stillwatch cuts --json`."""
        cut = self.cut
        return {
            "frame": cut.frame,
            "start": cut.start,
            "time_s": round(self.time_s, 6),
            "kind": cut.kind,
            "score": round(float(cut.score), 4),
        }


def find_cuts(
    clip: str, *, detector: str = "adaptive", model: str | Path = "reference", frames: int | None = None
) -> Iterator[TimedCut]:
    """The cuts of a clip in order, each at most two frames after its own frame was read.

    clip: what `open_source` takes; a live one goes on until it is lost. model: for `features` and `combined`. frames:
    no more than so many. Raises ModelError, and what `open_source` and `FrameSource.read` raise.
    """
    judge, rest = _judge(detector, model)
    times: deque[tuple[int, float]] = deque(maxlen=1 + SceneCuts.lookahead)
    started_ns = 0
    with open_source(clip, source_id="cuts", paced=False) as source:
        for count, frame in enumerate(_frames(source)):
            started_ns = started_ns if count else frame.monotonic_ns
            elapsed_s = (frame.monotonic_ns - started_ns) / 1e9
            times.append((frame.index, elapsed_s if frame.media_s is None else frame.media_s))
            for cut in judge(frame):
                yield TimedCut(cut, dict(times)[cut.frame])
            if count + 1 == frames:
                break
    for cut in rest():
        yield TimedCut(cut, dict(times)[cut.frame])


def _frames(source: FrameSource) -> Iterator[Frame]:
    while True:
        try:
            yield source.read()
        except EndOfStream:
            return


class Looker:
    """Makes the glance of a picture of any size, as the pipeline with a stretching model of 20×20 patches makes it."""

    def __init__(self) -> None:
        self.ops = host_ops()
        self._pyramid = self.ops.pyramid(_GRID, _PATCH)
        self._picture = np.empty((_GRID[0] * _PATCH, _GRID[1] * _PATCH, 3), np.uint8)

    def look(self, image: NDArray[np.uint8]) -> Glance:
        """image: uint8 RGB (H, W, 3)."""
        shrink(image, self._picture)
        self.ops.fill(self._pyramid, self._picture)
        return Glance.take(self.ops, self._pyramid)


def _judge(detector: str, model: str | Path) -> tuple[Callable[[Frame], list[Cut]], Callable[[], list[Cut]]]:
    """What to do with each frame, and at the end."""
    looker = Looker()
    distance = looker.ops.histogram_distance

    if detector == "adaptive":
        shots = SceneCuts(distance)

        def adaptive(frame: Frame) -> list[Cut]:
            found = shots.process(frame.index, looker.look(frame.image)).found
            return [] if found is None else [found]

        return adaptive, shots.flush
    if detector == "histogram":
        colours = HistogramCut(distance)

        def histogram(frame: Frame) -> list[Cut]:
            score = colours.process(looker.look(frame.image).histogram)
            return _at(frame, score.cut, score.histogram)

        return histogram, list
    encode = _encoder(model)
    if detector == "features":
        meaning = FeatureCut()

        def features(frame: Frame) -> list[Cut]:
            score = meaning.process(encode(frame))
            return _at(frame, score.cut, None if score.features is None else 1 - score.features)

        return features, list
    both = CombinedCut(distance)
    before: list[NDArray[np.float32] | None] = [None]

    def combined(frame: Frame) -> list[Cut]:
        now = encode(frame)
        score = both.process(looker.look(frame.image).histogram, before[0], lambda: now)
        before[0] = now
        return _at(frame, score.cut, score.histogram)

    return combined, list


def _at(frame: Frame, cut: bool, score: float | None) -> list[Cut]:
    return [Cut(frame.index, frame.index, "cut", score)] if cut and score is not None else []


def _encoder(model: str | Path) -> Callable[[Frame], NDArray[np.float32]]:
    """A full encode of a frame by a model. Raises ModelError."""
    from engines.manifest import find_model, load_model
    from engines.onnx.encoder import OnnxEncoder
    from engines.onnx.runtime import OnnxRuntime
    from engines.preprocess import Preprocessor

    loaded = load_model(find_model(model))
    encoder, preprocessor = OnnxEncoder(OnnxRuntime(loaded, spin=False)), Preprocessor(loaded.manifest, host_shrink())
    return lambda frame: encoder.encode_full(preprocessor.picture(frame.image)).copy()
