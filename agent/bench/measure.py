"""Every side handles the same frame, one after the other, so that whatever else the machine does hits all of them.

The full encode and the coherent path stand next to each other and take turns in being first. Preprocessing counts on
all sides, decoding of the video on none. Truth is the full encode of the picture that our tokens are of: the frame's
own, which is the full side's result, or where the coherent path slid its crop, that crop's, which nobody pays for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.bench.bound import Bound
from agent.bench.clips import Clip
from agent.bench.every_n import NAME as EVERY_N
from agent.bench.every_n import EveryN
from agent.bench.news import News, reader, timing
from agent.bench.rivals import FULL, rivals_of
from agent.bench.side import Side, spread
from agent.bench.tally import Tally
from agent.bench.verdict import speedup_at
from agent.bench.words import Agreement
from agent.capture.frame import Frame
from agent.capture.scene.source import SceneSource
from agent.capture.scene.truth import SceneTruth
from agent.coherence.costs import EncodeCosts
from agent.coherence.memory import by_part, weights
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.settings import CoherenceSettings
from engines.decoder import Decoder
from engines.manifest import Manifest
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime, fastest
from engines.preprocess import Preprocessor
from engines.random_tower import model_or_tower
from vpi_ops.choice import host_ops, host_shrink

Floats = NDArray[np.float32]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure besides the coherent path. against: names of rivals. pan: (dx, dy) px a frame by which a window
    slides over the clip. sample: encode at least so many frames of a clip in full, in pairs of neighbours; all when
    None. frames: no more than so many of a clip. ask_every: compare what is said about every so many-th frame; None =
    say nothing."""

    against: tuple[str, ...] = ()
    pan: tuple[float, float] | None = None
    sample: int | None = None
    frames: int | None = None
    ask_every: int | None = None


def bench(
    clips: Sequence[str],
    *,
    model: str | Path = "reference",
    settings: CoherenceSettings | None = None,
    wanted: Wanted | None = None,
    threads: int = 2,
    spin: bool | None = None,
    clock: Clock = time.perf_counter,
    done: Callable[[dict[str, Any]], None] = lambda report: None,
) -> list[dict[str, Any]]:
    """One report a clip, with the keys of `stillwatch bench --json`.

    clips: whatever `open_source` takes, with `:FIRST-LAST` for some of its frames. model: a name, a folder, or a random
    tower of `engines.random_tower`. threads, spin: of ONNX Runtime; None = as `fastest` finds.
    done: gets each report when its clip is over. Raises ModelError, ConfigError, SourceError, CorruptInput.
    """
    wanted, settings = wanted or Wanted(), settings or CoherenceSettings()
    reports = []
    with model_or_tower(model) as loaded:
        runtime = fastest(loaded, threads) if spin is None else OnnxRuntime(loaded, threads=threads, spin=spin)
        costs = EncodeCosts.measure(OnnxEncoder(runtime))
        for clip in clips:
            reports.append(_Run(Clip.of(clip, wanted.frames), runtime, costs, settings, wanted, clock).process())
            done(reports[-1])
    return reports


class _Run:
    """One clip."""

    def __init__(
        self,
        clip: Clip,
        runtime: OnnxRuntime,
        costs: EncodeCosts,
        settings: CoherenceSettings,
        wanted: Wanted,
        clock: Clock,
    ) -> None:
        self._clip, self._settings, self._wanted, self._clock = clip, settings, wanted, clock
        self._runtime = runtime
        self._manifest = manifest = runtime.model.manifest
        self._preprocessor, self._encoder = Preprocessor(manifest, host_shrink()), OnnxEncoder(runtime)
        self._vlm = TemporalVLM(
            self._preprocessor,
            OnnxEncoder(runtime),
            host_ops(threads=runtime.threads),
            settings,
            costs=costs,
            clock=clock,
        )
        self._tally, self._full = Tally(settings.fidelity_floor), Side(FULL)
        self._rivals = [(rival, Side(rival.name, rival.setting)) for rival in rivals_of(wanted.against, runtime, costs)]
        self._every_n: EveryN | None = None
        decoder = Decoder(runtime.model, threads=runtime.threads, spin=runtime.spin) if _speaks(manifest) else None
        self._agreement = Agreement(decoder, wanted.ask_every) if decoder and wanted.ask_every else None
        self._news = News(manifest.grid, reader(decoder, manifest.visual_tokens))
        self._full_news = News(manifest.grid, lambda features: 0)
        self._before: Floats | None = None
        self._step = 1

    def process(self) -> dict[str, Any]:
        """Measure it. Raises SourceError, CorruptInput, EndOfStream, ConfigError."""
        with self._clip.open(self._wanted.pan) as source, closing(self._vlm):
            length, sample = self._clip.length(source), self._wanted.sample
            self._step = max(1, 2 * length // sample) if length and sample else 1
            if EVERY_N in self._wanted.against:
                self._every_n = EveryN(sampled=self._step > 1)
            for index, frame in enumerate(self._clip.frames(source)):
                if index == 0:
                    self._seen = self._preprocessor.placement(frame.size).valid(self._manifest.patch_size)
                    self._bound = Bound(self._manifest.grid, self._manifest.patch_size, self._seen)
                scene = source.truth(frame.index) if isinstance(source, SceneSource) else None
                self._take(index, frame, index / source.info.fps, scene)
            return self._report(source.info.fps)

    def _take(self, index: int, frame: Frame, now_s: float, scene: SceneTruth | None) -> None:
        compared = self._compared(index)
        in_full = compared or (self._every_n is not None and self._every_n.wants(index, self._compared))
        picture = self._preprocessor.picture(frame.image)
        if in_full and self._rivals:
            # Rivals push the weights out of the processor's cache. Whoever goes first is not to pay for that.
            self._encoder.encode_full(picture)
        full = self._in_full(frame) if in_full and index % 2 == 0 else None
        start = self._clock()
        result = self._vlm.process(frame)
        self._tally.count(result, 1e3 * (self._clock() - start))
        if in_full and full is None:
            full = self._in_full(frame)
        self._bound.process(picture)
        self._news.process(result.accumulated, now_s, cut=result.cut, ignored=~result.seen)
        if full is not None:
            if self._step == 1:
                self._full_news.process(full, now_s, cut=result.cut, ignored=~self._seen)
            if compared:
                ours = picture if result.picture is None else result.picture
                truth = full if np.array_equal(ours, picture) else self._encoder.encode_full(ours)
                self._tally.compare(result, truth, full, self._before)
                if self._agreement is not None and index % self._agreement.every == 0:
                    self._agreement.compare(result.accumulated, truth, scene, frame.size[0])
        self._rival(index, frame, full, compared)
        self._before = full

    def _rival(self, index: int, frame: Frame, full: Floats | None, compared: bool) -> None:
        if self._every_n is not None and full is not None:
            self._every_n.take(index, full)
            if compared:
                self._every_n.compare(index, full, self._seen)
        if compared and full is not None:
            self._full.compare(full, full, self._seen)
        for rival, side in self._rivals:
            start = self._clock()
            features = rival.process(frame)
            side.ms.append(1e3 * (self._clock() - start))
            if compared and full is not None:
                side.compare(features, full, self._seen)

    def _compared(self, index: int) -> bool:
        return self._step == 1 or index % self._step < 2

    def _in_full(self, frame: Frame) -> Floats:
        start = self._clock()
        features = self._encoder.encode_full(self._preprocessor.picture(frame.image))
        self._full.ms.append(1e3 * (self._clock() - start))
        return features

    def _report(self, fps: float) -> dict[str, Any]:
        tally, frames = self._tally, self._tally.frames
        seconds, seen = frames / fps, int(self._seen.sum())
        speedup = float(np.mean(self._full.ms) / np.mean(tally.ours.ms))
        bound, fidelity = self._bound.speedup, tally.ours.fidelity
        return {
            "clip": self._clip.name,
            "content": self._clip.content,
            "pan": self._wanted.pan,
            "model": self._manifest.name,
            "frames": frames,
            "fps": fps,
            "fidelity_floor": self._settings.fidelity_floor,
            "spin": self._runtime.spin,
            "full_ms": spread(self._full.ms),
            "temporal_ms": spread(tally.ours.ms),
            "speedup": speedup,
            "bound": bound,
            "efficiency": None if bound is None else speedup / bound,
            "fidelity": fidelity,
            "fidelity_ema": tally.fidelity_ema(),
            "skill": tally.skill,
            "skill_where_stale": tally.skill_where_stale,
            "copy_last_fidelity": float(np.mean(tally.copied.means)) if tally.copied.means else None,
            "tokens": {
                "full_per_s": seen * fps,
                "encoded_per_s": tally.encoded / seconds,
                "decoder_per_s": self._news.read / seconds,
                "reduction": frames * self._manifest.visual_tokens / self._news.read if self._news.read else None,
            },
            "modes": tally.modes,
            "stages_ms": tally.stages_ms,
            "profile": self._vlm.profile.report(),
            "memory": {**by_part(self._vlm.holdings), "model": weights(self._runtime.model)},
            "rivals": self._rival_reports(speedup),
            "ours_at_equal_fidelity": self._at_equal_fidelity(speedup, fidelity),
            "events": timing(self._news.told_s, self._full_news.told_s) if self._step == 1 else None,
            "text": self._agreement.report() if self._agreement else None,
        }

    def _rival_reports(self, speedup: float) -> list[dict[str, Any]]:
        found = [self._full.report(1.0)] if FULL in self._wanted.against else []
        if self._every_n is not None:
            found += self._every_n.reports(self._tally.frames, speedup)
        return found + [side.report(self._faster(side)) for _, side in self._rivals]

    def _at_equal_fidelity(self, ours: float, fidelity: Mapping[str, float]) -> dict[str, dict[str, dict[str, float]]]:
        """By rival, at our mean fidelity and at our p5: the speed-up that it reaches there, and ours in units of it."""
        sides: dict[str, list[tuple[Side, float]]] = {}
        curve = self._every_n.curve(self._tally.frames) if self._every_n is not None else []
        for side, faster in [*curve, *((side, self._faster(side)) for _, side in self._rivals)]:
            sides.setdefault(side.name, []).append((side, faster))
        found: dict[str, dict[str, dict[str, float]]] = {}
        for name, same in sides.items():
            for key in ("mean", "p5"):
                theirs = speedup_at(fidelity[key], [(side.fidelity[key], faster) for side, faster in same])
                found.setdefault(name, {})[key] = {"speedup": theirs, "ratio": ours / theirs}
        return found

    def _faster(self, side: Side) -> float:
        return float(np.mean(self._full.ms) / np.mean(side.ms))


def _speaks(manifest: Manifest) -> bool:
    """A bare vision tower has no language model."""
    return "prefill" in manifest.graphs
