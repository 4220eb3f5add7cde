"""Runs rendered cameras with events at known times through the path of a running agent, as fast as it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from agent.capture.clock import SystemClock
from agent.capture.frame import Frame
from agent.capture.scene.drills import Drill, DrillTimeline
from agent.capture.scene.source import SceneSource
from agent.coherence.costs import EncodeCosts
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.settings import PROFILES
from agent.insight.anomaly import Alarm, AnomalyModel, AnomalySettings
from agent.insight.change import Change, SemanticChange
from agent.insight.described import DescribedStates
from agent.insight.tamper import Tampering
from agent.reporting import CameraReporter
from agent.watching import CameraWatch
from config.errors import EndOfStream
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from vpi_ops.choice import host_ops, host_shrink

_LATE_S = 10.0
"""An alarm so long after an event still belongs to it."""
_EARLY_S = 8.0
"""And so long before: somebody comes in to leave a box. Such an alarm is not false, but it has not found the event."""
_TOLERANCE_FRAMES = 2
"""An alarm may come so much before the onset: whoever comes in begins to be seen with a foot."""


@dataclass(slots=True)
class Outcome:
    """What came of one camera. latency_s: by event, None = missed. false_alarms: (seconds, streams) of alarms that
    belong to none. watched_s: time after learning. tampering: times it was said to be moved or covered."""

    drills: Sequence[Drill]
    latency_s: list[float | None]
    false_alarms: list[tuple[float, str]]
    watched_s: float
    tampering: int


@dataclass(slots=True)
class _Notes:
    """Stands where a camera's reporter stands, and notes."""

    camera: str = "drill"
    states: DescribedStates = field(default_factory=DescribedStates)
    alarms: list[tuple[float, str]] = field(default_factory=list)
    tampers: int = 0
    muted_until: None = None

    def first_look(self, frame: Frame, features: NDArray[np.float32]) -> None: ...

    def changed(
        self,
        change: Change,
        frame: Frame,
        boxes: Sequence[object],
        zones: Mapping[str, float],
        features: NDArray[np.float32],
    ) -> None: ...

    def interrupted(self, reason: str) -> None: ...

    def tampered(self, kind: Tampering | None, frame: Frame) -> None:
        self.tampers += kind is not None

    def anomaly(
        self,
        alarm: Alarm,
        frame: Frame,
        boxes: Sequence[object],
        zones: Sequence[str],
        features: NDArray[np.float32],
    ) -> str | None:
        if not (alarm.ended or alarm.again):
            self.alarms.append((frame.index, "+".join(stream.value for stream in alarm.streams)))
        return str(len(self.alarms))


def drill(
    uri: str, starts: Sequence[tuple[str, float]], *, quiet: bool, learn_s: float, per_day: float = 1.0
) -> Outcome:
    """Learn from the first `learn_s` seconds of a rendered camera, then watch its events. Raises ConfigError."""
    loaded = load_model(find_model("reference"))
    encoder = OnnxEncoder(OnnxRuntime(loaded, threads=1, spin=False))
    pictures = Preprocessor(loaded.manifest, host_shrink())
    settings = PROFILES["general"]
    vlm = TemporalVLM(pictures, encoder, host_ops(), settings, costs=EncodeCosts.measure(encoder))
    model = AnomalyModel(encoder.grid, encoder.dim, AnomalySettings(learn_s=learn_s, false_alarms_per_day=per_day))
    notes = _Notes()
    watch = CameraWatch(
        vlm,
        pictures,
        loaded.manifest.patch_size,
        SemanticChange(encoder.grid),
        model,
        lambda model, now_s: None,
        cast(CameraReporter, notes),
    )
    with SceneSource(uri, source_id="drill", paced=False, clock=SystemClock()) as source, closing(watch):
        scene, frames = source.scene, source.info.frames or 0
        timeline = DrillTimeline(
            scene.place, scene.seed, scene.width_units, starts, seconds=frames / scene.fps, quiet=quiet
        )
        scene.play(timeline)
        try:
            while True:
                watch.see(source.read())
        except EndOfStream:
            pass
        return _outcome(timeline.drills, notes, scene.fps, frames, learn_s)


def _outcome(drills: Sequence[Drill], notes: _Notes, fps: float, frames: int, learn_s: float) -> Outcome:
    alarms = [(index / fps, streams) for index, streams in notes.alarms]
    latency: list[float | None] = []
    belong = set[int]()
    for each in drills:
        near = [i for i, (at, _) in enumerate(alarms) if each.onset_s - _EARLY_S <= at <= each.end_s + _LATE_S]
        belong.update(near)
        told = [alarms[i][0] for i in near if each.onset_s - _TOLERANCE_FRAMES / fps <= alarms[i][0] <= each.end_s]
        latency.append(max(0.0, told[0] - each.onset_s) if told else None)
    false = [alarm for i, alarm in enumerate(alarms) if i not in belong]
    return Outcome(drills, latency, false, frames / fps - learn_s, notes.tampers)
