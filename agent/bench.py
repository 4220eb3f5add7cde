"""What coherence is worth on given clips: a full encode of every frame against the whole coherent path.

Both sides handle the same frame one after the other, in turns first, so that whatever else the machine does hits both.
Preprocessing counts on both sides, decoding of the video on neither. The full encodes are also the truth that fidelity
is measured against.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from agent.capture import open_source
from agent.capture.frame import Frame
from agent.capture.source import FrameSource
from agent.coherence.costs import EncodeCosts
from agent.coherence.cuts import token_cosines
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.result import FrameResult
from agent.coherence.settings import CoherenceSettings
from agent.insight.change import SemanticChange
from config.errors import EndOfStream
from config.redact import redact
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import Mode
from engines.preprocess import Preprocessor
from vpi_ops.host import HostOps

Floats = NDArray[np.float32]
Clock = Callable[[], float]

_BOUND_LEVELS = 10.0
"""Grey levels by which a patch must differ to count as changed in the bound."""


def bench(
    clips: Sequence[str],
    *,
    model: str | Path = "reference",
    settings: CoherenceSettings | None = None,
    sample: int | None = None,
    frames: int | None = None,
    threads: int = 2,
    spin: bool = False,
    clock: Clock = time.perf_counter,
) -> list[dict[str, Any]]:
    """One report a clip, with the keys of `stillwatch bench --json`.

    clips: whatever `open_source` takes. sample: encode at least so many frames of a clip in full, in pairs of
    neighbours; all when None. frames: stop a clip after so many. threads, spin: of ONNX Runtime. Raises ModelError,
    ConfigError, SourceError, CorruptInput.
    """
    runtime = OnnxRuntime(load_model(find_model(model)), threads=threads, spin=spin)
    costs = EncodeCosts.measure(OnnxEncoder(runtime))
    reports = []
    for clip in clips:
        with open_source(clip, source_id="bench", paced=False) as source:
            reports.append(_bench_clip(clip, source, runtime, costs, settings, sample, frames, clock))
    return reports


def render(reports: Sequence[dict[str, Any]]) -> Table:
    """The reports as a table for people."""
    table = Table("clip", "frames", "full ms", "ours ms", "speed-up", "of bound", "fidelity", "p5", "skill", "modes")
    for report in reports:
        modes = " ".join(f"{name} {count}" for name, count in report["modes"].items())
        table.add_row(
            Path(report["clip"]).name,
            str(report["frames"]),
            f"{report['full_ms']['mean']:.1f}",
            f"{report['temporal_ms']['mean']:.1f}",
            f"{report['speedup']:.2f}×",
            "–" if report["efficiency"] is None else f"{report['efficiency']:.0%}",
            f"{report['fidelity']['mean']:.4f}",
            f"{report['fidelity']['p5']:.4f}",
            "–" if report["skill"] is None else f"{report['skill']:.2f}",
            modes,
        )
    return table


class Bound:
    """The most that re-encoding in place could save on a clip: a patch is changed when the mean of its highest 20 % of
    grey differences from the pixels it was last changed to exceeds ten levels (both smoothed 3×3)."""

    def __init__(self, grid: tuple[int, int], patch: int, seen: NDArray[np.bool_]) -> None:
        self._shape = (grid[0], patch, grid[1], patch)
        self._seen = seen
        self._kept = max(1, round(0.2 * patch * patch))
        self._reference: NDArray[np.int16] | None = None
        self._shares: list[float] = []

    def process(self, picture: NDArray[np.uint8]) -> None:
        """picture: uint8 (S, S, 3), of each frame in turn."""
        smooth = np.asarray(cv2.blur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (3, 3))).astype(np.int16)
        tiles = smooth.reshape(self._shape).swapaxes(1, 2).reshape(len(self._seen), -1)
        if self._reference is None:
            self._reference = tiles.copy()
            return
        difference = np.sort(np.abs(tiles - self._reference), axis=1)[:, -self._kept :]
        changed = self._seen & (difference.mean(axis=1) > _BOUND_LEVELS)
        self._reference[changed] = tiles[changed]
        self._shares.append(float(changed.sum() / self._seen.sum()))

    @property
    def speedup(self) -> float | None:
        """None when nothing has changed."""
        share = float(np.mean(self._shares)) if self._shares else 0.0
        return 1 / share if share else None


class _Tally:
    """What is counted over one clip."""

    def __init__(self) -> None:
        self.full_ms: list[float] = []
        self.temporal_ms: list[float] = []
        self.fidelity: list[float] = []
        self.fidelity_ema: list[float] = []
        self.token_fidelity: list[Floats] = []
        self.copy_last: list[float] = []
        self.error = self.anchor_error = 0.0
        self.modes: Counter[str] = Counter()
        self.stages_ms: defaultdict[str, float] = defaultdict(float)
        self.encoded = self.described = 0
        self._anchor: Floats | None = None

    def count(self, result: FrameResult) -> None:
        """A frame of the coherent path."""
        self.temporal_ms.append(sum(result.stages_ms.values()))
        self.modes[result.mode.value] += 1
        self.encoded += result.tokens_encoded
        for stage, ms in result.stages_ms.items():
            self.stages_ms[stage] += ms

    def compare(self, result: FrameResult, truth: Floats, before: Floats | None) -> None:
        """The same frame against its full encode, and against that of the frame before."""
        seen = result.seen
        cosines = token_cosines(result.tokens.features, truth)[seen]
        self.token_fidelity.append(cosines)
        self.fidelity.append(float(cosines.mean()))
        self.fidelity_ema.append(float(token_cosines(result.accumulated, truth)[seen].mean()))
        if before is not None:
            self.copy_last.append(float(token_cosines(before, truth)[seen].mean()))
        if self._anchor is not None:
            self.error += float(np.square(result.tokens.features[seen] - truth[seen]).sum())
            self.anchor_error += float(np.square(self._anchor[seen] - truth[seen]).sum())
        if result.dirty is None:
            self._anchor = truth


def _bench_clip(
    clip: str,
    source: FrameSource,
    runtime: OnnxRuntime,
    costs: EncodeCosts,
    settings: CoherenceSettings | None,
    sample: int | None,
    limit: int | None,
    clock: Clock,
) -> dict[str, Any]:
    manifest = runtime.model.manifest
    preprocessor, rival = Preprocessor(manifest), OnnxEncoder(runtime)
    vlm = TemporalVLM(preprocessor, OnnxEncoder(runtime), HostOps(), settings, costs=costs, clock=clock)
    change = SemanticChange(manifest.grid)
    tally = _Tally()
    bound: Bound | None = None
    before: Floats | None = None
    expected = source.info.frames if limit is None else min(limit, source.info.frames or limit)
    every = 1 if sample is None or not expected else max(1, 2 * expected // sample)

    def encode_in_full(frame: Frame) -> Floats:
        start = clock()
        features = rival.encode_full(preprocessor.picture(frame.image))
        tally.full_ms.append(1e3 * (clock() - start))
        return features

    count = 0
    fps = source.info.fps
    for count, frame in enumerate(_frames(source, limit), start=1):
        sampled = every == 1 or (count - 1) % every < 2
        truth = encode_in_full(frame) if sampled and count % 2 else None
        result = vlm.process(frame)
        tally.count(result)
        if sampled and truth is None:
            truth = encode_in_full(frame)
        if bound is None:
            bound = Bound(manifest.grid, manifest.patch_size, result.seen)
        bound.process(preprocessor.picture(frame.image))
        if truth is not None:
            tally.compare(result, truth, before)
        before = truth
        if change.update(result.accumulated, count / fps, cut=result.cut, ignored=~result.seen) is not None:
            change.described(result.accumulated)
            tally.described += 1
        tokens = int(result.seen.sum())
    vlm.close()
    if bound is None:
        raise EndOfStream(f"{redact(clip)}: no frames")
    ceiling = bound.speedup
    speedup = float(np.mean(tally.full_ms) / np.mean(tally.temporal_ms))
    seconds = count / fps
    return {
        "clip": redact(clip),
        "content": "scene" if clip.startswith("scene:") else Path(clip).resolve().parent.name,
        "model": manifest.name,
        "frames": count,
        "fps": fps,
        "full_ms": _spread(tally.full_ms),
        "temporal_ms": _spread(tally.temporal_ms),
        "speedup": speedup,
        "bound": ceiling,
        "efficiency": None if ceiling is None else speedup / ceiling,
        "fidelity": {
            "mean": float(np.mean(tally.fidelity)),
            "p5": float(np.percentile(tally.fidelity, 5)),
            "min": float(np.min(tally.fidelity)),
            "token_p5": float(np.percentile(np.concatenate(tally.token_fidelity), 5)),
        },
        "fidelity_ema": {
            "mean": float(np.mean(tally.fidelity_ema)),
            "p5": float(np.percentile(tally.fidelity_ema, 5)),
        },
        "skill": 1 - tally.error / tally.anchor_error if tally.anchor_error else None,
        "copy_last_fidelity": float(np.mean(tally.copy_last)) if tally.copy_last else None,
        "tokens": {
            "full_per_s": tokens * fps,
            "encoded_per_s": tally.encoded / seconds,
            "decoder_per_s": tally.described * manifest.visual_tokens / seconds,
            "reduction": count / tally.described if tally.described else None,
        },
        "modes": {mode.value: tally.modes[mode.value] for mode in Mode if tally.modes[mode.value]},
        "stages_ms": {stage: ms / count for stage, ms in tally.stages_ms.items()},
        "rivals": [],
    }


def _frames(source: FrameSource, limit: int | None) -> Iterator[Frame]:
    """Frames until the source ends or `limit` is reached."""
    read = 0
    while limit is None or read < limit:
        try:
            yield source.read()
        except EndOfStream:
            return
        read += 1


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "p50": float(np.percentile(values, 50)),
        "p95": float(np.percentile(values, 95)),
    }
