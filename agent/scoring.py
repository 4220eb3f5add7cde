"""How unusual each frame of a clip is: `stillwatch anomaly score`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.bench.clips import Clip
from agent.capture import open_source
from agent.capture.frame import Frame
from agent.coherence.costs import EncodeCosts
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.result import FrameResult
from agent.coherence.settings import PROFILES
from agent.insight.baseline import project, random_signs
from agent.insight.movement import CELL_PX, cells_of_flow
from agent.insight.surprise import CellPlaces, Judge, Look, Sense, Surprise, calibrate, learn
from config.errors import ConfigError
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Placement, Preprocessor
from vpi_ops.choice import host_ops, host_shrink
from vpi_ops.interface import FlowField

Box = tuple[int, int, int, int]

_SEED = 0
_WARM_UP_S = 20.0
"""Without clips to learn from: the first so many seconds are taken for normal and score 0."""
_USUAL = 1.5
"""Score up to which a frame is learned on line."""


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
        self._grid = self._loaded.manifest.grid
        self._patch = self._loaded.manifest.patch_size
        self._frame_size: tuple[int, int] | None = None
        self._looks: list[Look] = []
        self._at: CellPlaces
        self._shape: tuple[int, int]
        self._fps = 0.0

    def fit(self, clip: str, progress: Callable[[int], None] = lambda done: None) -> None:
        """Learn what is normal from a clip, `CLIP` or `CLIP:FIRST-LAST`; several add up. Raises ConfigError for frames
        of another size, and what `open_source` and `FrameSource.read` raise."""
        for done, (_, look) in enumerate(self.looks(clip)):
            self._looks.append(look)
            progress(done)

    def score(self, clip: str, progress: Callable[[int], None] = lambda done: None) -> Scores:
        """Score every frame of a clip by what was fitted; if nothing was, by what the clip itself has shown so far.
        Raises as `fit`."""
        if not self._looks:
            return self._score_online(clip, progress)
        judge, found = self._judge(), []
        for done, (_, look) in enumerate(self.looks(clip)):
            found.append(self._scored(judge.process(look)))
            progress(done)
        return self._scores(found)

    def _score_online(self, clip: str, progress: Callable[[int], None]) -> Scores:
        judge: Judge | None = None
        found, learned_s = [], 0.0
        for done, (_, look) in enumerate(self.looks(clip)):
            learned_s += look.seconds
            if judge is None:
                self._looks.append(look)
                found.append(_NOTHING)
                if learned_s >= _WARM_UP_S:
                    judge = self._judge()
            else:
                surprise = judge.process(look)
                found.append(self._scored(surprise))
                if surprise.score <= _USUAL:
                    judge.normal.learn(look)
            progress(done)
        return self._scores(found)

    def looks(self, clip: str) -> Iterator[tuple[Frame, Look]]:
        """What each frame of a clip shows."""
        wanted = Clip.of(clip)
        encoder = OnnxEncoder(self._runtime)
        self._costs = self._costs or EncodeCosts.measure(encoder)
        settings = replace(PROFILES["general"], flow_rest_frames=0, flow_deadline_ms=1e6)
        vlm = TemporalVLM(
            Preprocessor(self._loaded.manifest, host_shrink()), encoder, self._ops, settings, costs=self._costs
        )
        signs = random_signs(encoder.dim, _SEED)
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
                points = project(result.tokens.features, signs)
                yield frame, Look(points, _fresh(result, whole), self._cells(result.flow), seconds)

    def _enter(self, clip: str, frame: Frame) -> None:
        if self._frame_size is None:
            self._frame_size = frame.size
            height, width = self._ops.analysis(frame.image).shape
            self._shape = (max(1, height // CELL_PX), max(1, width // CELL_PX))
            placement = Preprocessor(self._loaded.manifest).placement(frame.size)
            self._at = cell_places(placement, self._shape, self._patch)
        elif self._frame_size != frame.size:
            raise ConfigError(f"{clip}: frames are {frame.size}, expected {self._frame_size} as before: one camera")

    def _cells(self, flow: FlowField | None) -> NDArray[np.float32]:
        return np.zeros((*self._shape, 3), np.float32) if flow is None else cells_of_flow(flow)

    def _judge(self) -> Judge:
        scale = calibrate(self._looks, self._at, self._grid)
        return Judge(learn(self._looks, self._at, self._grid), self._at, self._grid, scale)

    def _scored(self, surprise: Surprise) -> _Scored:
        row, col = surprise.place
        width, height = self._frame_size or (0, 0)
        across, down = width / self._shape[1], height / self._shape[0]
        x0, x1 = max(0.0, (col - 1) * across), min(float(width), (col + 2) * across)
        y0, y1 = max(0.0, (row - 1) * down), min(float(height), (row + 2) * down)
        box = (round(x0), round(y0), round(x1) - round(x0), round(y1) - round(y0))
        return _Scored(surprise.score, box, {sense.value: float(part.max()) for sense, part in surprise.parts.items()})

    def _scores(self, found: Sequence[_Scored]) -> Scores:
        return Scores(
            fps=self._fps,
            frame_size=self._frame_size or (0, 0),
            scores=tuple(each.score for each in found),
            regions=tuple(each.box for each in found),
            streams={sense.value: tuple(each.streams.get(sense.value, 0.0) for each in found) for sense in Sense},
        )


def cell_places(placement: Placement, shape: tuple[int, int], patch: int) -> CellPlaces:
    """Where the cells (h, w) of a whole frame lie on the token grid."""
    width, height = placement.frame_size
    x = ((np.arange(shape[1]) + 0.5) * width / shape[1] * placement.scale[0] + placement.offset[0]) / patch - 0.5
    y = ((np.arange(shape[0]) + 0.5) * height / shape[0] * placement.scale[1] + placement.offset[1]) / patch - 0.5
    return np.dstack(np.meshgrid(x, y)).astype(np.float32)


def _fresh(result: FrameResult, whole: bool) -> NDArray[np.bool_]:
    """bool (T,): tokens to judge anew. A token that was encoded to refresh it is judged too: that is nearly free."""
    if whole or result.dirty is None:
        return result.seen
    fresh = result.moving | result.changed
    fresh[result.dirty] = True
    return fresh & result.seen
