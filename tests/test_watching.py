"""A rendered yard, watched as a running agent does, and what is told when watching is broken off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from coherence_reference import COST_MS
from coherence_standin import SteadyCosts
from test_reporting import Desk

from agent.capture.clock import SystemClock
from agent.capture.scene.drills import DrillTimeline
from agent.capture.scene.source import SceneSource
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.settings import PROFILES
from agent.events.model import AnyEvent, EventType
from agent.insight.anomaly import AnomalyModel, AnomalySettings
from agent.insight.change import SemanticChange
from agent.reporting import CameraReporter
from agent.watching import CameraWatch
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from vpi_ops.choice import host_ops, host_shrink

LEARN_S = 60


class Yard:
    """Nothing happens in it until somebody comes and stands about."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk(folder)
        self.reporter: CameraReporter = self.desk.reporter(None)
        loaded = load_model(find_model("reference"))
        encoder = OnnxEncoder(OnnxRuntime(loaded, threads=1, spin=False))
        pictures = Preprocessor(loaded.manifest, host_shrink())
        patient = replace(PROFILES["general"], flow_deadline_ms=1e6)  # a busy machine gives the same answer
        self.watch = CameraWatch(
            TemporalVLM(pictures, encoder, host_ops(), patient, costs=SteadyCosts.of(COST_MS)),
            pictures,
            loaded.manifest.patch_size,
            SemanticChange(encoder.grid),
            AnomalyModel(encoder.grid, encoder.dim, AnomalySettings(learn_s=LEARN_S)),
            lambda model, now_s: None,
            self.reporter,
        )
        uri = "scene:yard?seed=5&width=320&height=180&fps=5&light=day&weather=clear&seconds=180"
        self.source = SceneSource(uri, source_id="yard", paced=False, clock=SystemClock())
        scene = self.source.scene
        starts = [("loitering", LEARN_S + 10.0)]
        scene.play(DrillTimeline(scene.place, scene.seed, scene.width_units, starts, seconds=180, quiet=True))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 5)):
            self.watch.see(self.source.read())

    def told(self) -> list[tuple[str, tuple[str, ...]]]:
        """How each alert begins and ends, and what was said beside."""
        return [(event.type.value, event.degraded) for event in self.alerts()]

    def alerts(self) -> list[AnyEvent]:
        told = self.desk.settle()
        return [event for event in told if event.kind == "anomaly" and event.type is not EventType.UPDATE]

    def close(self) -> None:
        self.watch.close()
        self.source.close()
        self.desk.close()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.close()


def test_an_alarm_that_a_pause_breaks_off_is_told_anew_if_it_goes_on_and_ends(yard: Yard) -> None:
    yard.run(LEARN_S + 16)
    assert [kind for kind, _ in yard.told()] == ["new"] and yard.watch.reading.alarm
    yard.watch.pause()
    assert yard.told()[1:] == [("end", ("analysis was switched off",))]
    yard.run(4)
    assert [kind for kind, _ in yard.told()] == ["new", "end", "new"] and yard.watch.reading.alarm
    first, _, second = (event.id for event in yard.alerts())
    assert first != second


def test_an_alarm_that_began_while_muted_is_told_when_the_mute_is_over(yard: Yard) -> None:
    yard.reporter.mute(3600.0)
    yard.run(LEARN_S + 16)
    assert yard.told() == [] and yard.watch.reading.alarm
    yard.reporter.mute(0.0)
    yard.run(1)
    assert [kind for kind, _ in yard.told()] == ["new"]
    (event,) = yard.alerts()
    assert event.evidence["seen_for_s"] > 2  # type: ignore[operator]
