"""A clip through the coherent path, and its debug pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from agent.bench.clips import Clip
from agent.capture.frame import Frame
from agent.coherence import memory
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.quality import Coherence, FeatureConsistency
from agent.coherence.settings import CoherenceSettings
from agent.inspecting.drawing import Picture, captioned, sheet
from agent.inspecting.moments import EvenlySpaced, Moment, Worst
from agent.inspecting.painter import LAG_WHITE, OLDEST, RESIDUAL_WHITE, Ages, View, annotated, tile_size
from agent.inspecting.timeline import chart
from agent.inspecting.video import VideoFile
from config.errors import ConfigError, StorageError
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from vpi_ops.choice import host_ops, host_shrink

VIDEO = "inspect.mp4"
SHEETS = ("encoded", "residual", "flow", "age", "ghosting", "cuts", "modes")
_SHOWN, _LAGGING, _CUTS = 12, 8, 24
"""Frames on the sheets of residual, flow, encoded tokens and age; on that of ghosting; cuts."""
_APART = 15
Progress = Callable[[int, int | None], None]


def inspect_clip(
    clip: Clip,
    out: Path,
    *,
    model: str | Path = "reference",
    settings: CoherenceSettings | None = None,
    progress: Progress = lambda _done, _all: None,
) -> dict[str, Any]:
    """Write `inspect.mp4` and the sheets `encoded.png`, `residual.png`, `flow.png`, `age.png`, `ghosting.png`,
    `cuts.png`, `modes.png` into the folder `out`, made if need be; what has these names there is replaced. Returns what
    was measured, for JSON. progress: told frames done and frames in all, None where no one knows.

    Where the clip breaks off, the pictures show what came before. Raises SourceError, CorruptInput, ModelError,
    ConfigError, StorageError.
    """
    loaded = load_model(find_model(model))
    settings = settings or CoherenceSettings()
    with ExitStack() as stack:
        source = stack.enter_context(clip.open())
        _make(out)
        encoder = OnnxEncoder(OnnxRuntime(loaded, spin=False))
        vlm = stack.enter_context(
            closing(TemporalVLM(Preprocessor(loaded.manifest, host_shrink()), encoder, host_ops(), settings))
        )
        sheets = _Sheets(clip.name, settings.fidelity_floor)
        stack.callback(sheets.write, out)
        ages, consistency = Ages(loaded.manifest.tokens), FeatureConsistency()
        video: VideoFile | None = None
        frames = clip.length(source)
        tile = (0, 0)
        for done, frame in enumerate(clip.frames(source), start=1):
            result = vlm.process(frame)
            if video is None:
                tile = tile_size(frame.size)
            view = View(frame, result, ages.process(result), encoder.patch_size, tile)
            sheets.take(frame, view)
            if result.cut or frame.discontinuity:
                consistency.reset()
            consistency.process(result.accumulated, result.moving, view.moment.time_s)
            picture = annotated(view, sheets.moments, sheets.ghosts)
            if video is None:
                size = (picture.shape[1], picture.shape[0])
                video = stack.enter_context(VideoFile(out / VIDEO, size, source.info.fps))
            video.append(picture)
            progress(done, frames)
        return {
            **sheets.summary(),
            "files": [VIDEO, *(f"{name}.png" for name in SHEETS)],
            "flicker": _flicker(result.quality.flicker),
            "consistency": asdict(consistency.report),
            "profile": vlm.profile.report(),
            "memory": {**memory.by_part(vlm.holdings), "model": memory.weights(loaded)},
        }


class _Sheets:
    """Collects what the sheets show while the clip goes by; a few dozen small pictures whatever its length."""

    def __init__(self, clip: str, floor: float) -> None:
        self._clip, self._floor = clip, floor
        self.moments: list[Moment] = []
        self.ghosts = 0
        self._shown: EvenlySpaced[dict[str, Picture]] = EvenlySpaced(_SHOWN)
        self._flows: EvenlySpaced[Picture] = EvenlySpaced(_SHOWN)
        self._lagging: Worst[Picture] = Worst(_LAGGING, _APART)
        self._cuts: list[list[Picture]] = []
        self._cut_frames: list[int] = []
        self._before: Picture | None = None
        self._size: tuple[int, int] | None = None

    def take(self, frame: Frame, view: View) -> None:
        moment = view.moment
        self.moments.append(moment)
        self.ghosts += moment.ghosts
        self._size = frame.size
        self._shown.offer(lambda: _views(view))
        if view.has_flow:
            self._flows.offer(lambda: captioned(view.flow, view.title, view.flow_caption))
        lag = float(np.percentile(view.lags, 95))
        self._lagging.offer(moment.ghosts + lag, len(self.moments), lambda: _lag(view, lag))
        after_cut = bool(self._cut_frames) and len(self.moments) == self._cut_frames[-1] + 2
        picture = captioned(view.picture, view.title, f"{moment.mode.value}, C(t) {_or_dash(moment.coherence)}")
        if moment.cut:
            if len(self._cuts) < _CUTS and self._before is not None:
                self._cuts.append([self._before, picture])
            self._cut_frames.append(len(self.moments) - 1)
        elif after_cut and self._cuts and len(self._cuts[-1]) == 2:
            self._cuts[-1].append(picture)
        self._before = picture

    def write(self, out: Path) -> None:
        if not self.moments:
            return
        count = f"{self._clip}, {len(self.moments)} frames"
        titles = {
            "encoded": "tokens encoded; orange: changed, blue: refreshed, violet: coarse, green: fetched",
            "residual": f"residual against what each token was made from; white: {RESIDUAL_WHITE:g} grey levels",
            "age": f"age of each token; logarithmic, white: {OLDEST} frames",
        }
        for name, title in titles.items():
            tiles = [views[name] for views in self._shown.kept]
            _save(out / f"{name}.png", sheet(tiles, 3, f"{title}: {count}"))
        flows = "optical flow where there was some; the wheel says whereto"
        _save(out / "flow.png", sheet(self._flows.kept, 3, f"{flows}: {count}"))
        found = f"{self.ghosts} ghosts, outlined and mended" if self.ghosts else "no ghosts; where it lagged most"
        lagging = f"blended features against current ones, white: cosine {1 - LAG_WHITE:g}; {found}: {count}"
        _save(out / "ghosting.png", sheet(self._lagging.kept, 2, lagging))
        cuts = [tile for row in self._cuts for tile in (*row, *[np.zeros_like(row[0])] * (3 - len(row)))]
        cut_count = f"{len(self._cut_frames)} cut{'s' * (len(self._cut_frames) != 1)}"
        more = f", the first {_CUTS} shown" if len(self._cut_frames) > _CUTS else ""
        _save(
            out / "cuts.png", sheet(cuts, 3, f"{cut_count}{more}; last frame before, first and second after: {count}")
        )
        _save(out / "modes.png", chart(self.moments, count, self._floor))

    def summary(self) -> dict[str, Any]:
        known = [moment.coherence for moment in self.moments if moment.coherence is not None]
        classes = Counter(Coherence.of(value).value for value in known)
        return {
            "clip": self._clip,
            "frames": len(self.moments),
            "frame_size": self._size,
            "modes": dict(Counter(moment.mode.value for moment in self.moments)),
            "cuts": [self.moments[place].index for place in self._cut_frames],
            "ghosts": self.ghosts,
            "coherence": {"mean": float(np.mean(known)) if known else None, "classes": dict(classes)},
        }


def _views(view: View) -> dict[str, Picture]:
    moment = view.moment
    return {
        "encoded": captioned(view.encoded, view.title, f"{moment.mode.value}: {moment.encoded:.1%} encoded"),
        "residual": captioned(view.residual, view.title, f"{moment.changed:.1%} changed"),
        "age": captioned(view.age, view.title, moment.mode.value),
    }


def _lag(view: View, lag: float) -> Picture:
    pair = np.concatenate([view.picture, view.lag], axis=1)
    return captioned(pair, view.title, f"{view.moment.ghosts} ghosts, 95 % of tokens lag less than {lag:.3f}")


def _flicker(found: Any) -> dict[str, float | None] | None:
    return None if found is None else {"share": found.share, "median_hz": found.median_hz, "seconds": found.seconds}


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: can't be made a folder: {error.strerror}") from None


def _save(path: Path, picture: Picture) -> None:
    _, content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    try:
        path.write_bytes(content.tobytes())
    except OSError as error:
        raise StorageError(f"{path}: can't be written: {error.strerror}") from None
