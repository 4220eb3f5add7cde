"""How unusual each frame of a clip is: `stillwatch anomaly score`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agent.bench.clips import Clip
from agent.capture import open_source
from agent.capture.frame import Frame
from agent.coherence.costs import EncodeCosts
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.settings import PROFILES
from agent.insight.anomaly import AnomalyModel, Stream
from agent.insight.looking import cell_places, look_of
from agent.insight.movement import SHAPE
from agent.insight.surprise import CellPlaces, Look, Surprise
from config.errors import ConfigError
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from vpi_ops.choice import host_ops, host_shrink

Box = tuple[int, int, int, int]

_WARM_UP_S = 20.0
"""Without clips to learn from: the first so many seconds are taken for normal and score 0."""


@dataclass(frozen=True, slots=True)
class Scores:
    """frame_size: (width, height). scores: one a frame, 0 and up, on one scale throughout. regions: (x, y, w, h) source
    pixels around the highest place of each frame. streams: the same score of each stream alone, by its name."""

    fps: float
    frame_size: tuple[int, int]
    scores: tuple[float, ...]
    regions: tuple[Box, ...]
    streams: dict[str, tuple[float, ...]]

    def as_json(self) -> dict[str, Any]:
        return {
            "fps": round(self.fps, 3),
            "frame_size": list(self.frame_size),
            "scores": [round(score, 5) for score in self.scores],
            "regions": [list(box) for box in self.regions],
            "streams": {name: [round(score, 5) for score in scores] for name, scores in self.streams.items()},
        }


@dataclass(frozen=True, slots=True)
class _Scored:
    score: float
    box: Box
    streams: dict[str, float]


_NOTHING = _Scored(0.0, (0, 0, 0, 0), {})


class Scorer:
    """Scores clips of one camera by what was normal in others.

    Raises ModelError for a model that can't be used.
    """

    def __init__(self, model: str | Path = "reference", *, threads: int = 2) -> None:
        self._loaded = load_model(find_model(model))
        self._runtime = OnnxRuntime(self._loaded, threads=threads, spin=False)
        self._ops = host_ops(finest_scale=1)
        self._costs: EncodeCosts | None = None
        self._patch = self._loaded.manifest.patch_size
        self._frame_size: tuple[int, int] | None = None
        self._model = AnomalyModel(self._loaded.manifest.grid, self._loaded.manifest.dim)
        self._fitted = False
        self._at: CellPlaces
        self._fps = 0.0

    def fit(self, clip: str, progress: Callable[[int], None] = lambda done: None) -> None:
        """Learn what is normal from a clip, `CLIP` or `CLIP:FIRST-LAST`; several add up. Raises ConfigError for frames
        of another size, and what `open_source` and `FrameSource.read` raise."""
        self._model.begin_clip()
        for done, look in enumerate(self.looks(clip)):
            self._model.learn(look)
            self._fitted = True
            progress(done)

    def score(self, clip: str, progress: Callable[[int], None] = lambda done: None) -> Scores:
        """Score every frame of a clip by what was fitted; if nothing was, by what the clip itself has shown so far.
        Raises as `fit`."""
        model, found, learned_s = self._model, [], 0.0
        model.begin_clip()
        for done, look in enumerate(self.looks(clip)):
            if self._fitted:
                found.append(self._scored(model.examine(look)))
            elif learned_s < _WARM_UP_S:
                learned_s += look.seconds
                model.learn(look)
                found.append(_NOTHING)
            else:
                learned_s += look.seconds
                surprise = model.examine(look)
                found.append(self._scored(surprise))
                model.learn_if_usual(look, surprise, learned_s)
            progress(done)
        return self._scores(found)

    def looks(self, clip: str) -> Iterator[Look]:
        """What each frame of a clip shows."""
        wanted = Clip.of(clip)
        encoder = OnnxEncoder(self._runtime)
        self._costs = self._costs or EncodeCosts.measure(encoder)
        settings = replace(PROFILES["general"], flow_rest_frames=0, flow_deadline_ms=1e6)
        vlm = TemporalVLM(
            Preprocessor(self._loaded.manifest, host_shrink()), encoder, self._ops, settings, costs=self._costs
        )
        before_s: float | None = None
        # The codec's motion vectors are too coarse for this: they are not asked for.
        with open_source(wanted.uri, source_id="score", paced=False) as source, closing(vlm):
            self._fps = source.info.fps
            for frame in wanted.frames(source):
                self._enter(clip, frame)
                result = vlm.process(frame)
                now_s = frame.monotonic_ns / 1e9
                whole = before_s is None or result.cut or frame.discontinuity
                seconds = 0.0 if before_s is None or whole else max(0.0, now_s - before_s)
                before_s = now_s
                yield look_of(frame, result, self._at, seconds, whole=whole, ignored=~result.seen)

    def _enter(self, clip: str, frame: Frame) -> None:
        if self._frame_size is None:
            self._frame_size = frame.size
            self._at = cell_places(Preprocessor(self._loaded.manifest).placement(frame.size), self._patch)
        elif self._frame_size != frame.size:
            raise ConfigError(f"{clip}: frames are {frame.size}, expected {self._frame_size} as before: one camera")

    def _scored(self, surprise: Surprise) -> _Scored:
        dwell = surprise.parts[Stream.DWELL]
        stays = max(0.0, float(dwell.max()) - 1)  # beyond what is usual
        row, col = surprise.place if stays <= surprise.score else np.unravel_index(int(dwell.argmax()), SHAPE)
        width, height = self._frame_size or (0, 0)
        across, down = width / SHAPE[1], height / SHAPE[0]
        x0, x1 = max(0.0, (col - 1) * across), min(float(width), (col + 2) * across)
        y0, y1 = max(0.0, (row - 1) * down), min(float(height), (row + 2) * down)
        box = (round(x0), round(y0), round(x1) - round(x0), round(y1) - round(y0))
        return _Scored(
            surprise.score + stays, box, {name.value: float(part.max()) for name, part in surprise.parts.items()}
        )

    def _scores(self, found: Sequence[_Scored]) -> Scores:
        return Scores(
            fps=self._fps,
            frame_size=self._frame_size or (0, 0),
            scores=tuple(each.score for each in found),
            regions=tuple(each.box for each in found),
            streams={name.value: tuple(each.streams.get(name.value, 0.0) for each in found) for name in Stream},
        )
