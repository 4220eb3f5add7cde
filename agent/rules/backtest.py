"""What rules would have done on a clip: `stillwatch rules test`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from agent.areas import Areas, token_cells
from agent.bench.clips import Clip
from agent.capture import open_source
from agent.capture.frame import Frame
from agent.capture.scene.source import parse_scene
from agent.capture.source import FrameSource
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.result import FrameResult
from agent.coherence.settings import PROFILES
from agent.insight.regions import cells_to_source, large_components, merge_close
from agent.insight.sight import Sight
from agent.masks import MaskedSource
from agent.rules.asking import Answered
from agent.rules.camera import LOOK_EVERY_S, CameraRules, Moment, RuleState
from agent.rules.firing import Fired
from agent.rules.truth import Agreement, best_threshold, gap_threshold, scene_answer
from config.errors import ConfigError
from config.settings import Camera, Rule
from engines.decoder import Decoder
from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from vpi_ops.choice import host_ops, host_shrink

Truth = Mapping[str, Sequence[tuple[float, float]]]
"""By a rule's name: the times [from, to) in seconds of the clip in which its answer is yes."""
_TRUTH: TypeAdapter[dict[str, list[tuple[float, float]]]] = TypeAdapter(dict[str, list[tuple[float, float]]])


@dataclass
class RuleReport:
    """One rule on one clip; times in seconds of the clip.

    answers: (when, probability of yes, what is true or None), one for each time that the rule was due, asked anew or
    not. asked: how often the model was asked. alerts: (from, to, highest probability)."""

    rule: Rule
    answers: list[tuple[float, float, bool | None]] = field(default_factory=list)
    alerts: list[tuple[float, float, float]] = field(default_factory=list)
    asked: int = 0

    @property
    def known(self) -> list[tuple[float, bool]]:
        """The answers of which the truth is known."""
        return [(probability, true) for _, probability, true in self.answers if true is not None]

    @property
    def spans(self) -> list[tuple[float, float]]:
        """When its answer was yes in truth, from the first to the last look of each stretch."""
        found: list[tuple[float, float]] = []
        going_on = False
        for at_s, _, true in self.answers:
            if true is None:  # coming into view, or going out of it: part of the stretch, if there is one
                continue
            if true:
                found = [*found[:-1], (found[-1][0], at_s)] if going_on else [*found, (at_s, at_s)]
            going_on = true
        return found

    @property
    def episodes(self) -> tuple[int, int, int] | None:
        """Stretches of yes with an alert, those without, and alerts where nothing was so; None without truth.

        A stretch counts as missed only if it was long enough for K of N and `for_s`, and began outside the cooldown of
        another alert."""
        if not self.known:
            return None
        rule = self.rule
        right = missed = 0
        for start, end in self.spans:
            if any(began <= end + rule.clear_s and start <= until for began, until, _ in self.alerts):
                right += 1
            elif end - start >= rule.for_s + rule.k_of_n[1] * LOOK_EVERY_S and not any(
                began <= end and start <= until + rule.clear_s + rule.cooldown_s for began, until, _ in self.alerts
            ):
                missed += 1
        return right, missed, sum(self._wrong(began, until) for began, until, _ in self.alerts)

    def _wrong(self, began: float, until: float) -> bool:
        """An alert at a time when it is known that nothing was so."""
        denied = any(true is False and began <= at_s <= until for at_s, _, true in self.answers)
        return denied and not any(start <= until and began <= end for start, end in self.spans)

    def agreement(self, threshold: float | None = None) -> Agreement | None:
        """With what is true, at the rule's own threshold or another; None where no truth is known."""
        known = self.known
        return Agreement.of(known, self.rule.threshold if threshold is None else threshold) if known else None

    @property
    def proposed(self) -> float | None:
        """The threshold that would have been best; by the widest gap between the answers where no truth is known."""
        known = self.known
        return best_threshold(known) if known else gap_threshold([probability for _, probability, _ in self.answers])

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.rule.name,
            "ask": self.rule.ask,
            "threshold": self.rule.threshold,
            "looks": len(self.answers),
            "asked": self.asked,
            "alerts": [
                {"start_s": round(start, 3), "end_s": round(end, 3), "probability": round(highest, 4)}
                for start, end, highest in self.alerts
            ],
            "episodes": self.episodes and dict(zip(("right", "missed", "false"), self.episodes, strict=True)),
            "agreement": _shares(self.agreement()),
            "proposed_threshold": self.proposed,
            "proposed_agreement": None if self.proposed is None else _shares(self.agreement(self.proposed)),
            "answers": [[round(at_s, 3), round(probability, 4), true] for at_s, probability, true in self.answers],
        }


class BackTest:
    """Runs a camera's rules over a clip, each question answered before the next frame. Schedules don't count: a clip
    has no time of day. Raises ModelError for a model that can't be used."""

    def __init__(self, model: Model, camera: Camera, *, threads: int = 2) -> None:
        self._model, self._camera = model, camera
        self._runtime = OnnxRuntime(model, threads=threads, spin=False)
        self._decoder = Decoder(model, threads=threads, spin=False)

    def run(
        self, clip: str, truth: Truth | None = None, progress: Callable[[int], None] = lambda done: None
    ) -> list[RuleReport]:
        """One report for each rule. truth: without it, what a rendered scene knows of itself. Raises what `open_source`
        and `FrameSource.read` raise, EngineFault, and ConfigError for a clip that never ends."""
        wanted = Clip.of(clip)
        encoder = OnnxEncoder(self._runtime)
        settings = replace(PROFILES["general"], flow_deadline_ms=1e6)  # a busy machine gives the same answers
        vlm = TemporalVLM(Preprocessor(self._model.manifest, host_shrink()), encoder, host_ops(), settings)
        reports = {rule.name: RuleReport(rule) for rule in self._camera.rules}
        log = _Log(reports, _known(wanted.uri, truth))
        rules = CameraRules("test", self._camera.rules, self, log, always=True, observe=log.answered)
        with closing(self._open(wanted)) as source, closing(vlm):
            for done, frame in enumerate(wanted.frames(source)):
                log.frame = frame
                rules.see(self._sight(frame, vlm.process(frame)))
                progress(done)
        rules.interrupted("the clip ended")
        return list(reports.values())

    def ask(self, camera: str, features: NDArray[np.float32], questions: Sequence[str], answered: Answered) -> None:
        """At once, as `CameraRules` has it asked here."""
        answered([float(p) for p in self._decoder.yes_no_many(features, questions, key=camera)])

    def _open(self, clip: Clip) -> FrameSource:
        source = open_source(clip.uri, source_id="rules", paced=False, fps=self._camera.fps, motion=True)
        return MaskedSource(source, list(self._camera.masks.values())) if self._camera.masks else source

    def _sight(self, frame: Frame, result: FrameResult) -> Sight:
        manifest = self._model.manifest
        placement = result.placement or Preprocessor(manifest).placement(frame.size)
        cells = token_cells(placement, manifest.grid, manifest.patch_size)
        ignored = Areas(self._camera.ignore, frame.size).tokens(cells)
        zones = {name: Areas({name: area}, frame.size).tokens(cells) for name, area in self._camera.zones.items()}

        def boxes(tokens: NDArray[np.bool_]) -> tuple[tuple[int, int, int, int], ...]:
            _, found = large_components(tokens.reshape(manifest.grid))
            return tuple(cells_to_source(box, placement, manifest.patch_size) for box in merge_close(found))

        broken = result.cut or frame.discontinuity or result.reframed or result.slid is not None
        return Sight(frame, result.accumulated, broken, result.seen & ~ignored, zones, boxes)


class _Log:
    """A `RuleSink` that writes down what would have been told."""

    def __init__(self, reports: Mapping[str, RuleReport], truth: Callable[[Rule, Frame], bool | None]) -> None:
        self._reports, self._truth = reports, truth
        self._starts: dict[str, float] = {}
        self.frame: Frame

    def _at(self, now_s: float) -> float:
        """Seconds of the clip."""
        frame = self.frame
        return (frame.media_s or 0.0) + now_s - frame.monotonic_ns / 1e9

    def answered(self, state: RuleState, now_s: float) -> None:
        report = self._reports[state.rule.name]
        assert state.probability is not None
        report.answers.append((self._at(now_s), state.probability, self._truth(state.rule, self.frame)))
        report.asked = state.asked

    def began(self, rule: Rule, fired: Fired, moment: Moment) -> None:
        self._starts[rule.name] = self._at(moment.sight.now_s)

    def ended(self, rule: Rule, fired: Fired | None, reason: str | None) -> None:
        report = self._reports[rule.name]
        start_s = self._starts.pop(rule.name)
        end_s = self._at(self.frame.monotonic_ns / 1e9 if fired is None else fired.last_s)
        highest = max(probability for at_s, probability, _ in report.answers if at_s <= end_s)
        report.alerts.append((start_s, end_s, highest if fired is None else fired.highest))


def _known(uri: str, truth: Truth | None) -> Callable[[Rule, Frame], bool | None]:
    """What is true of a rule in a frame, as far as that is known."""
    if truth is not None:

        def told(rule: Rule, frame: Frame) -> bool | None:
            spans = truth.get(rule.name)
            at_s = frame.media_s or 0.0
            return None if spans is None else any(start <= at_s < end for start, end in spans)

        return told
    if not uri.startswith("scene:"):
        return lambda _rule, _frame: None
    scene, _ = parse_scene(uri)
    return lambda rule, frame: scene_answer(rule.ask, scene.truth(frame.index), frame.size[0])


def _shares(agreement: Agreement | None) -> dict[str, float | None] | None:
    if agreement is None:
        return None
    shares = {"precision": agreement.precision, "recall": agreement.recall}
    return {name: None if share is None else round(share, 4) for name, share in shares.items()}


def read_truth(path: Path, rules: Sequence[Rule]) -> Truth:
    """From a JSON file. Raises ConfigError that says what is wrong."""
    try:
        truth = _TRUTH.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise ConfigError(f'{path}: {place}: expected {{"RULE": [[from, to], …]}}: {first["msg"]}') from None
    names = [rule.name for rule in rules]
    if unknown := sorted(truth.keys() - set(names)):
        raise ConfigError(f"{path}: no rule {unknown[0]!r:.80}; known: {', '.join(names)}")
    return truth
