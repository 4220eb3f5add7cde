"""What builds the worker of one camera: the coherent path on a shared model, insight, reporter, evidence, capture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.camera import Camera
from agent.capacity.turns import Turns
from agent.capture import open_source
from agent.capture.scene.language import DESCRIBE
from agent.capture.source import FrameSource
from agent.capture.tap import PacketTap
from agent.coherence import memory
from agent.coherence.costs import EncodeCosts
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.settings import AUTO, PROFILES, CoherenceSettings
from agent.describing import Describe, DescribingThread, Look
from agent.events.book import EventBook
from agent.evidence.archive import Archive
from agent.evidence.camera import CameraEvidence
from agent.evidence.recording import recorded
from agent.evidence.ring import ClipSpan, PacketRing
from agent.insight.anomaly import AnomalyModel, AnomalySettings
from agent.insight.change import ChangeSettings, SemanticChange
from agent.insight.stir import Stir
from agent.learning import Learned
from agent.metrics import Metrics
from agent.notify import extend_start
from agent.questions.moments import Moments
from agent.remembering import CameraMemory
from agent.reporting import CameraReporter
from agent.rules.asking import Asking
from agent.rules.attendant import Attendant, answers_of
from agent.rules.book import RuleBook
from agent.rules.camera import CameraRules
from agent.rules.telling import RuleTeller
from agent.runtimes import choose_decoder, choose_encoder
from agent.service.progress import Progress
from agent.vision import choose_vision
from agent.watching import CameraWatch
from config.settings import Camera as CameraSettings
from config.settings import Clips, Describer, Settings
from engines.decoder import Decoder
from engines.manifest import find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from engines.tensorrt.building import Watch
from engines.text.language import Language
from vpi_ops.choice import host_shrink

if TYPE_CHECKING:
    from agent.describer.server import VisionServer

log = structlog.get_logger()

_SERVER_GRACE_S = 5.0
"""The vision server keeps its time itself; this is for what stands around it."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where cameras hand in what they have to tell and to keep. on_available: called when frames of a camera begin and
    when they stop. on_motion: the same for what moves in them. retry: connect again to what was lost."""

    folder: Path
    book: EventBook
    archive: Archive
    metrics: Metrics
    learned: Learned
    remembered: CameraMemory
    on_available: Callable[[str, bool], None]
    on_motion: Callable[[str, bool], None]
    retry: bool
    anomaly: AnomalySettings
    change: ChangeSettings
    rules: RuleBook
    progress: Progress
    turns: Turns = field(default_factory=Turns)


class CameraBuilder:
    """A model, and a describer where there is one, shared by all the cameras it builds.

    Raises ConfigError and ModelError when it can't be made; nothing is left behind then. Close it after its cameras.
    """

    def __init__(self, settings: Settings, desk: Desk) -> None:
        self._desk = desk
        self._stack = ExitStack()
        self._costs: EncodeCosts | None = None
        self._crossover = 0
        self.server: VisionServer | None = None
        self.patience_s = 10.0
        """For words that are being made when every source has ended."""
        self.troubles: tuple[str, ...] = ()
        """Engines that were chosen and fail, a sentence each."""
        self._model = load_model(find_model(settings.model))
        self._describer = settings.describer
        self._spoken: Language | None = None
        self._stack.callback(self._hush)  # after those who speak with it have ended
        try:
            self.describing = self._open_describing(settings.describer, list(settings.cameras))
            self._runtime = OnnxRuntime(self._model, threads=min(4, os.cpu_count() or 1), spin=False)
            self._encoding = choose_encoder(self._model, watch=_building())
            log.info("encoder", used=self._encoding.used, not_taken=self._encoding.not_taken)
            if self._encoding.runtime is not None:
                desk.metrics.watch_gpu("encoder", self._encoding.runtime.memory.parts)
            self._vision = choose_vision()
            log.info("image operations", patches=self._vision.patches, flow=self._vision.flow)
            self._decoder = Decoder(self._model, language=self._language(), spin=False)
            self._asking = self._stack.enter_context(Asking(self._weigh, self._desk.progress.loop("rules")))
        except BaseException:
            self._stack.close()
            raise

    def _language(self) -> Language | None:
        """What the built-in words come from. Where a vision server gives them, the GPU's memory is left to others."""
        if self._describer is not None:
            return None
        speaking = choose_decoder(self._model, beside=self._encoding, watch=_building())
        log.info("decoder", used=speaking.used, not_taken=speaking.not_taken)
        if speaking.runtime is not None:
            self._desk.metrics.watch_gpu("decoder", speaking.runtime.memory.parts)
            self._spoken = speaking.language(self._runtime, self._degrade)
        return self._spoken

    def _hush(self) -> None:
        if self._spoken is not None:
            self._spoken.close()

    def _degrade(self, reason: str) -> None:
        """From whatever thread finds it out."""
        log.error("an engine is given up", reason=reason)
        self.troubles += (reason,)

    @property
    def backend(self) -> str:
        """What encodes, in a word."""
        return "cpu" if self._encoding.runtime is None else "tensorrt"

    @property
    def model_bytes(self) -> int:
        """Of the weights that all cameras share."""
        return memory.weights(self._model)

    def close(self) -> None:
        """Stop describing. A second call does nothing."""
        self._stack.close()

    def camera(self, name: str, settings: Settings) -> Camera:
        """The worker of a camera, not started. Raises ConfigError."""
        camera, manifest = settings.cameras[name], self._model.manifest
        ops, pictures = self._vision.camera(
            Preprocessor(manifest, host_shrink()), lambda reason: self._degrade(f"{name}: {reason}")
        )
        self._desk.metrics.watch_gpu(name, ops.held)
        encoder = self._encoding.encoder(lambda: OnnxEncoder(self._runtime), self._degrade)
        if self._costs is not None:
            encoder.crossover = self._crossover
        vlm = TemporalVLM(pictures, encoder, ops, _coherence(settings), costs=self._costs)
        self._costs, self._crossover = vlm.costs, encoder.crossover  # measured with the first camera
        clips = settings.events.clips
        ring = None if clips is None else PacketRing(pre_s=clips.pre_s)
        reporter = self._reporter(name, camera, _evidence(self._desk.archive, ring, clips, camera))
        attendant = self._attendant(name, camera, reporter)
        anomaly = AnomalyModel(manifest.grid, manifest.dim, self._desk.anomaly)
        watch = CameraWatch(
            vlm,
            Preprocessor(manifest, host_shrink()),
            manifest.patch_size,
            SemanticChange(manifest.grid, self._desk.change),
            anomaly,
            self._desk.learned.keeper(name, manifest),
            reporter,
            zones=camera.zones,
            ignore=camera.ignore,
            metrics=self._desk.metrics,
            auto=settings.profile == AUTO,
            followers=(*attendant.followers, Stir(partial(self._desk.on_motion, name))),
        )
        made = Camera(
            name,
            recorded(
                source_of(name, camera),
                camera.masks,
                ring,
                encode=clips is not None and clips.encode,
                camera=name,
                progress=self._desk.progress,
            ),
            watch,
            reporter,
            attendant=attendant,
            retry=self._desk.retry and _may_come_back(camera.source),
            packets=ring,
            on_available=self._desk.on_available,
            recall=partial(self._desk.learned.load, name, manifest, anomaly),
            progress=self._desk.progress,
            turns=self._desk.turns,
        )
        made.enabled = self._desk.remembered.of(name).enabled
        reporter.mute(self._desk.remembered.mute_left_s(name))
        return made

    def _open_describing(self, describer: Describer | None, cameras: Sequence[str]) -> DescribingThread:
        enter = self._stack.enter_context
        if describer is None:
            return enter(DescribingThread(loop=self._desk.progress.loop))
        from agent.describer.server import VisionServer

        self.server = server = enter(
            VisionServer(
                describer,
                cameras,
                state=self._desk.folder,
                observe=self._desk.metrics.describer_request,
                beat=self._desk.progress.loop("describer"),
            )
        )
        self.patience_s = max(self.patience_s, describer.timeout_s)
        log.info("pictures leave this machine to be described", server=server.name, model=describer.model)
        return enter(
            DescribingThread(
                parallel=describer.parallel,
                deadline_s=describer.timeout_s + _SERVER_GRACE_S,
                interrupt=server.close,
                loop=self._desk.progress.loop,
                quiet_s=describer.timeout_s,
            )
        )

    def _attendant(self, name: str, camera: CameraSettings, reporter: CameraReporter) -> Attendant:
        mute = self._muteness(camera)
        rules = self._desk.rules.of(name, camera.rules, camera.zones)
        if mute and rules:
            log.warning("the rules of this camera are not asked", camera=name, reason=mute)
        return Attendant(
            tuple(camera.rules),
            frozenset(camera.zones),
            mute,
            CameraRules(name, rules, self._asking, RuleTeller(reporter)),
            Moments(),
            *answers_of(self._decoder, name),
        )

    def _weigh(self, camera: str, features: NDArray[np.float32], questions: Sequence[str]) -> NDArray[np.float64]:
        return self._decoder.yes_no_many(features, questions, key=f"{camera} rules")

    def _muteness(self, camera: CameraSettings) -> str:
        """Why the words of this model mean nothing on this camera, empty when they do."""
        manifest = self._model.manifest
        return "" if _rendered(camera) or "rendered" not in manifest.domain else _mute(manifest.name)

    def _reporter(self, name: str, camera: CameraSettings, evidence: CameraEvidence) -> CameraReporter:
        describer, book = self._describer, self._desk.book
        words = _words(self._decoder, name)
        mute = self._muteness(camera)
        if describer is not None and self.server is not None:
            from agent.describer.request import reduced_jpeg

            return CameraReporter(
                name,
                book,
                self.describing,
                partial(self.server.describe, name),
                fallback=words if describer.fallback == "builtin" and not mute else None,
                picture=partial(reduced_jpeg, settings=describer.image),
                evidence=evidence,
            )
        if mute:
            log.warning(mute, camera=name)
        return CameraReporter(name, book, self.describing, None if mute else words, mute=mute, evidence=evidence)


def _coherence(settings: Settings) -> CoherenceSettings:
    coherence = PROFILES["general" if settings.profile == AUTO else settings.profile]
    if settings.fidelity_floor is None:
        return coherence
    return replace(coherence, fidelity_floor=settings.fidelity_floor)


def source_of(name: str, camera: CameraSettings) -> Callable[[PacketTap | None], FrameSource]:
    """Opens the source of a camera as it is configured. Raises ConfigError for credentials that can't be read."""
    credentials = None if camera.credentials is None else camera.credentials.read()

    def open_camera(tap: PacketTap | None) -> FrameSource:
        return open_source(
            camera.source,
            source_id=name,
            paced=_rendered(camera),
            fps=camera.fps,
            credentials=credentials,
            motion=True,
            tap=tap,
            apart=reads_apart(camera),
        )

    return open_camera


def reads_apart(camera: CameraSettings) -> bool:
    """Whether a process of its own reads it."""
    return camera.capture == "process"


def _evidence(archive: Archive, ring: PacketRing | None, clips: Clips | None, camera: CameraSettings) -> CameraEvidence:
    """Clips where there is a way to make them: from packets, or from frames where that is allowed."""
    if ring is None or clips is None or (camera.masks and not clips.encode):
        return CameraEvidence(archive, None, ClipSpan())
    return CameraEvidence(archive, ring, ClipSpan(clips.pre_s, clips.post_s))


def _words(decoder: Decoder, camera: str) -> Describe:
    """The built-in model's words about a look of this camera."""

    def describe(look: Look) -> Iterator[str]:
        return decoder.generate(look.features, DESCRIBE, key=camera, again=True)

    return describe


def _building() -> Watch:
    """Says in the log what is built at start, and to systemd that it takes longer."""

    def step(name: str, done: float | None) -> None:
        if done is None:
            log.info("preparing engines for TensorRT", step=name)

    return Watch(step, lambda: extend_start(60))


def _rendered(camera: CameraSettings) -> bool:
    return camera.source.startswith("scene:")


def _may_come_back(source: str) -> bool:
    """A stream or a device is worth another try; a file that is not there is a mistake."""
    return not source.startswith("file:") and (":" in source.partition("/")[0] or source.startswith("/dev/"))


def _mute(model: str) -> str:
    return (
        f"the model `{model}` knows rendered scenes only: anomaly and change work here; for descriptions of real "
        "scenes import a checkpoint or set a describer"
    )
