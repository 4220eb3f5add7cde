"""The one place that wires the parts together, runs them, and ends them in order.

    camera ─▶ ring ─▶ frame loop (coherent path, change, anomaly) ─▶ book of events ─▶ outbox ─▶ MQTT, NDJSON
                                         └─▶ describing ─▶ the same events, completed
                                                 └─▶ a vision server, where one is configured

Threads: capture and frames per camera, describing, describer, events, mqtt, metrics. The thread that calls `run` keeps
states fresh and writes what the anomaly models have learned.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from numpy.typing import NDArray
from pydantic import JsonValue

from agent import __version__
from agent.camera import Camera
from agent.capture import open_source
from agent.capture.scene.language import DESCRIBE
from agent.capture.source import FrameSource
from agent.capture.tap import PacketTap
from agent.coherence import memory
from agent.coherence.costs import EncodeCosts
from agent.coherence.pipeline import TemporalVLM
from agent.coherence.settings import AUTO, PROFILES
from agent.commanding import CameraCommands, Snapshot
from agent.describing import Describe, DescribingThread, Look
from agent.events.book import EventBook
from agent.events.lock import StateLock
from agent.events.model import AnyEvent, EventType
from agent.events.outbox import Outbox
from agent.events.sinks import NdjsonSink, Sink
from agent.evidence.archive import Archive
from agent.evidence.camera import CameraEvidence
from agent.evidence.recording import recorded
from agent.evidence.ring import ClipSpan, PacketRing
from agent.insight import baseline_file
from agent.insight.anomaly import AnomalyModel, AnomalySettings
from agent.insight.change import ChangeSettings, SemanticChange
from agent.metrics import Metrics, MetricsServer
from agent.mqtt.address import BrokerAddress
from agent.mqtt.client import MqttLink
from agent.mqtt.commands import Command, CommandError
from agent.mqtt.topics import Topics
from agent.notify import extend_start
from agent.power.guard import PowerGuard
from agent.power.sensors import Sensors
from agent.reporting import CameraReporter
from agent.runtimes import choose_encoder
from agent.states import StateTeller
from agent.vision import choose_vision
from agent.watching import CameraWatch
from config.errors import ConfigError
from config.identity import device_id
from config.settings import Camera as CameraSettings
from config.settings import Clips, Describer, Mqtt, Settings
from engines.decoder import Decoder
from engines.manifest import Manifest, find_model, load_model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.preprocess import Preprocessor
from engines.tensorrt.building import Watch
from vpi_ops.choice import host_shrink

if TYPE_CHECKING:
    from agent.describer.server import VisionServer

log = structlog.get_logger()

_TICK_S = 1.0
_BROKER_WITHIN_S = 5.0
_SERVER_GRACE_S = 5.0
"""The vision server keeps its time itself; this is for what stands around it."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is told besides its settings.

    events_to: file or `-` for NDJSON. seconds: end after so long. retry: try lost cameras and brokers for ever;
    without, the first failure ends the run. sinks: where events go besides. sysfs: where power and heat are read.
    """

    events_to: str | None = None
    seconds: float | None = None
    retry: bool = True
    sinks: Sequence[Sink] = ()
    sysfs: Path = Path("/sys")
    anomaly: AnomalySettings = field(default_factory=AnomalySettings)
    change: ChangeSettings = field(default_factory=ChangeSettings)


class Daemon:
    """A whole agent. `run` it once; `close` gives everything back and is safe at any time.

    Raises ConfigError and ModelError when it can't be built; nothing is left behind then.
    """

    def __init__(self, settings: Settings, options: RunOptions | None = None) -> None:
        self._options = options or RunOptions()
        self._folder = settings.events.dir
        self._stack = ExitStack()
        self._baselines: dict[Path, dict[str, NDArray[Any]]] = {}
        self._snapshots: dict[str, Snapshot] = {}
        self._notes: list[str] = []
        self._server: VisionServer | None = None
        self._patience_s = 10.0  # for words that are being made when every source has ended
        self.cameras: dict[str, Camera] = {}
        self.link: MqttLink | None = None
        self.unsent = 0
        """After the end: events that wait in the outbox for the next run."""
        try:
            self._build(settings)
        except BaseException:
            self._stack.close()
            raise

    def _build(self, settings: Settings) -> None:
        enter = self._stack.enter_context
        model = load_model(find_model(settings.model))
        enter(StateLock(self._folder))
        self.device = device_id(settings.device.id, self._folder)
        self.topics = Topics(settings.mqtt.root if settings.mqtt else "stillwatch", self.device)
        for name in settings.cameras:
            self.topics.state(name)  # refuses what can't be a level of a topic
        self.metrics = Metrics(__version__)
        if settings.metrics.port is not None:
            enter(MetricsServer(self.metrics, settings.metrics.port))
        self.outbox = enter(Outbox(self._folder / "events.db"))
        if self.outbox.damaged:
            self._notes.append(self.outbox.damaged)
        self._book = self._open_book(settings)
        self._archive = self._open_archive(settings)
        self._clips = settings.events.clips
        self._describing = self._open_describing(settings.describer, list(settings.cameras))
        runtime = OnnxRuntime(model, threads=min(4, os.cpu_count() or 1), spin=False)
        encoding = choose_encoder(model, watch=_building())
        log.info("encoder", used=encoding.used, not_taken=encoding.not_taken)
        vision = choose_vision()
        log.info("image operations", patches=vision.patches, flow=vision.flow)
        decoder = Decoder(model, spin=False)
        costs: EncodeCosts | None = None
        auto = settings.profile == AUTO
        coherence = PROFILES["general" if auto else settings.profile]
        if settings.fidelity_floor is not None:
            coherence = replace(coherence, fidelity_floor=settings.fidelity_floor)
        for name, camera in settings.cameras.items():
            ops, pictures = vision.camera(Preprocessor(model.manifest, host_shrink()))
            encoder = encoding.encoder(lambda: OnnxEncoder(runtime))
            vlm = TemporalVLM(pictures, encoder, ops, coherence, costs=costs)
            costs = vlm.costs
            self.cameras[name] = self._camera(
                name, camera, settings.describer, model.manifest, vlm, _words(decoder, name), auto
            )
        self._book.end_interrupted()
        if settings.mqtt is not None:
            commands = CameraCommands(self.cameras, self._book, self._archive, self._folder, self._snapshots)
            address, handlers = broker_address(settings.mqtt), {**commands.handlers, "analysis": self._set_analysis}
            self.link = enter(MqttLink(address, self.topics, self.outbox, handlers=handlers))
        self.power = PowerGuard(Sensors(self._options.sysfs), self.cameras.values(), self.metrics)
        self._teller = StateTeller(
            self.device,
            __version__,
            self.cameras,
            self._book,
            self.outbox,
            self.metrics,
            self.link,
            notes=self._notes,
            server=self._server,
            model_bytes=memory.weights(model),
            power=self.power,
            archive=self._archive,
        )

    def _open_describing(self, describer: Describer | None, cameras: Sequence[str]) -> DescribingThread:
        enter = self._stack.enter_context
        if describer is None:
            return enter(DescribingThread())
        from agent.describer.server import VisionServer

        self._server = server = enter(
            VisionServer(describer, cameras, state=self._folder, observe=self.metrics.describer_request)
        )
        self._patience_s = max(self._patience_s, describer.timeout_s)
        log.info("pictures leave this machine to be described", server=server.name, model=describer.model)
        return enter(
            DescribingThread(
                parallel=describer.parallel,
                deadline_s=describer.timeout_s + _SERVER_GRACE_S,
                interrupt=server.close,
            )
        )

    def _open_book(self, settings: Settings) -> EventBook:
        sinks = list(self._options.sinks)
        if self._options.events_to is not None:
            sinks.append(self._stack.enter_context(NdjsonSink(self._options.events_to)))
        book = EventBook(
            self.device,
            self.outbox,
            topic_of=self.topics.event,
            sinks=sinks,
            stored=self._stored,
            days=settings.events.retention.days,
        )
        return self._stack.enter_context(book)

    def _open_archive(self, settings: Settings) -> Archive:
        kept = settings.events.retention
        archive = Archive(self._folder, self._book.update, days=kept.days, max_bytes=kept.bytes)
        return self._stack.enter_context(archive)

    def _camera(
        self,
        name: str,
        camera: CameraSettings,
        describer: Describer | None,
        manifest: Manifest,
        vlm: TemporalVLM,
        words: Describe,
        auto: bool,
    ) -> Camera:
        rendered = camera.source.startswith("scene:")
        ring = None if self._clips is None else PacketRing(pre_s=self._clips.pre_s)
        evidence = _evidence(self._archive, ring, self._clips, camera)
        mute = "" if rendered or "rendered" not in manifest.domain else _mute(manifest.name)
        if describer is not None and self._server is not None:
            from agent.describer.request import reduced_jpeg

            reporter = CameraReporter(
                name,
                self._book,
                self._describing,
                partial(self._server.describe, name),
                fallback=words if describer.fallback == "builtin" and not mute else None,
                picture=partial(reduced_jpeg, settings=describer.image),
                evidence=evidence,
            )
        else:
            if mute:
                log.warning(mute, camera=name)
            reporter = CameraReporter(
                name, self._book, self._describing, None if mute else words, mute=mute, evidence=evidence
            )
        watch = CameraWatch(
            vlm,
            Preprocessor(manifest, host_shrink()),
            manifest.patch_size,
            SemanticChange(manifest.grid, self._options.change),
            *self._anomaly(name, manifest),
            reporter,
            zones=camera.zones,
            ignore=camera.ignore,
            metrics=self.metrics,
            auto=auto,
        )
        credentials = None if camera.credentials is None else camera.credentials.read()

        def open_camera(tap: PacketTap | None) -> FrameSource:
            return open_source(
                camera.source,
                source_id=name,
                paced=rendered,
                fps=camera.fps,
                credentials=credentials,
                motion=True,
                tap=tap,
            )

        return Camera(
            name,
            recorded(open_camera, camera.masks, ring, encode=self._clips is not None and self._clips.encode),
            watch,
            reporter,
            retry=self._options.retry and _may_come_back(camera.source),
            packets=ring,
            on_available=self._set_available,
        )

    def _anomaly(self, name: str, manifest: Manifest) -> tuple[AnomalyModel, Callable[[AnomalyModel, float], None]]:
        """The anomaly model of a camera with what it learned in earlier runs, and the way to keep what it learns."""
        path = self._folder / "baselines" / f"{name}.npz"
        identity = f"{manifest.name} {next(iter(manifest.weights.values()))[:12]}"
        anomaly = AnomalyModel(manifest.grid, manifest.dim, self._options.anomaly)
        note = baseline_file.load_or_relearn(path, anomaly, identity, time.monotonic())
        if note is not None:
            log.warning(note, camera=name)
            self._notes.append(note)

        def snapshot(model: AnomalyModel, now_s: float) -> dict[str, NDArray[Any]]:
            return baseline_file.snapshot(model, identity, now_s)

        def keep(model: AnomalyModel, now_s: float) -> None:
            self._baselines[path] = snapshot(model, now_s)

        self._snapshots[name] = snapshot

        return anomaly, keep

    def run(self, stop: threading.Event, tick: Callable[[], None] = lambda: None) -> None:
        """Watch until `stop` is set, the time is over, or every source has ended; then end cleanly.

        tick: called about once a second from this thread. Raises what ended the run: SourceError and BrokerError
        without retry, CorruptInput, ConfigError.
        """
        if self.link is not None and not self._options.retry:
            self.link.wait_connected(_BROKER_WITHIN_S)
        for name, camera in self.cameras.items():
            if self.link is not None:
                self.link.set_analysis(name, True)
            camera.start()
        until = time.monotonic() + (self._options.seconds or float("inf"))
        while not self._over() and not stop.wait(min(_TICK_S, max(0.0, until - time.monotonic()))):
            self.power.tick()
            self._teller.tell()
            self._write_baselines()
            tick()
            if time.monotonic() >= until:
                break
        self.close(hurry=stop.is_set())
        for camera in self.cameras.values():
            if camera.error is not None:
                raise camera.error

    def close(self, *, hurry: bool = True) -> None:
        """End everything in the order in which news flows, so that nothing is left on the way.

        In a hurry within 3 s; else words that are being made are waited for, and what is due is sent. A second call
        does nothing.
        """
        patience_s = 0.8 if hurry else 10.0
        stoppers = [threading.Thread(target=camera.stop, args=(patience_s,)) for camera in self.cameras.values()]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()
        self._describing.finish(0.2 if hurry else self._patience_s)
        self._describing.close(0.3)
        self._archive.close(0.5 if hurry else 5.0)
        self._book.settle("the agent has stopped")
        if not self._book.close(0.8 if hurry else 5.0):
            log.error("the disk did not take all events in time")
        if self.link is not None:
            self.link.notify()
            self.link.close(1.2 if hurry else 5.0)
        self._write_baselines()
        self.unsent = self.outbox.depth
        self._stack.close()

    def _over(self) -> bool:
        """All sources have ended, or one can never be opened as it is configured."""
        cameras = self.cameras.values()
        return all(camera.done for camera in cameras) or any(isinstance(c.error, ConfigError) for c in cameras)

    def _stored(self, event: AnyEvent) -> None:
        """On the book's thread, after the outbox has taken an event."""
        if self.link is not None:
            self.link.notify()
        seen = event.frame_ts if event.type is EventType.NEW else None
        latency_s = None if seen is None else (event.ts - seen).total_seconds()
        self.metrics.event(event.camera, event.kind, event.type.value, latency_s)

    def _set_available(self, camera: str, available: bool) -> None:
        if self.link is not None:
            self.link.set_camera_available(camera, available)

    def _set_analysis(self, command: Command) -> Mapping[str, JsonValue]:
        name, enabled = command.text("camera"), bool(command.arguments["enabled"])
        camera = self.cameras.get(name)
        if camera is None or self.link is None:
            raise CommandError(f"analysis: no camera {name!r:.80}; known: {', '.join(self.cameras)}")
        camera.enabled = enabled
        self.link.set_analysis(name, enabled)
        return {"camera": name, "enabled": enabled}

    def _write_baselines(self) -> None:
        while self._baselines:
            path, arrays = self._baselines.popitem()
            try:
                baseline_file.write(path, arrays)
            except OSError as error:
                log.warning("what was learned can't be kept", file=str(path), reason=error.strerror)


def _evidence(archive: Archive, ring: PacketRing | None, clips: Clips | None, camera: CameraSettings) -> CameraEvidence:
    """Clips where there is a way to make them: from packets, or from frames where that is allowed."""
    if ring is None or clips is None or (camera.masks and not clips.encode):
        return CameraEvidence(archive, None, ClipSpan())
    return CameraEvidence(archive, ring, ClipSpan(clips.pre_s, clips.post_s))


def _words(decoder: Decoder, camera: str) -> Describe:
    """The built-in model's words about a look of this camera."""

    def describe(look: Look) -> Iterator[str]:
        return decoder.generate(look.features, DESCRIBE, key=camera)

    return describe


def _building() -> Watch:
    """Says in the log what is built at start, and to systemd that it takes longer."""

    def step(name: str, done: float | None) -> None:
        if done is None:
            log.info("preparing the encoder for TensorRT", step=name)

    return Watch(step, lambda: extend_start(60))


def broker_address(mqtt: Mqtt) -> BrokerAddress:
    """The broker of a configuration, with its password read. Raises ConfigError."""
    password = None if mqtt.password is None else mqtt.password.read()
    return BrokerAddress.parse(mqtt.url, user=mqtt.user, password=password, ca_file=mqtt.ca, protocol=mqtt.protocol)


def _may_come_back(source: str) -> bool:
    """A stream or a device is worth another try; a file that is not there is a mistake."""
    return not source.startswith("file:") and (":" in source.partition("/")[0] or source.startswith("/dev/"))


def _mute(model: str) -> str:
    return (
        f"the model `{model}` knows rendered scenes only: anomaly and change work here; for descriptions of real "
        "scenes import a checkpoint or set a describer"
    )
