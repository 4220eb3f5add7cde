"""The one place that wires the parts together, runs them, and ends them in order.

    camera ─▶ ring ─▶ frame loop (coherent path, change, anomaly) ─▶ book of events ─▶ outbox ─▶ MQTT, NDJSON
                                         └─▶ describing ─▶ the same events, completed
                                                 └─▶ a vision server, where one is configured

Threads: capture and frames per camera, describing, describer, events, mqtt, metrics. The thread that calls `run` keeps
states fresh and writes what the anomaly models have learned. What a camera consists of is built in `agent.building`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from pydantic import JsonValue

from agent import __version__, notify, remembering
from agent.applying.checking import Size
from agent.applying.engine import ApplyEngine, Patience
from agent.applying.following import FileWatch
from agent.applying.journal import Journal
from agent.applying.proving import Health
from agent.applying.starting import start
from agent.building import Desk
from agent.camera import Camera
from agent.capacity.costs import crowding
from agent.capture.worker import Phase
from agent.coherence import memory
from agent.commanding import CameraCommands
from agent.events.book import EventBook
from agent.events.lock import StateLock
from agent.events.model import AnyEvent, EventType
from agent.events.outbox import Outbox
from agent.events.sinks import NdjsonSink, Sink
from agent.evidence.archive import Archive
from agent.fleet import Fleet
from agent.homeassistant import announcing
from agent.homeassistant.announcing import RetainedTopics
from agent.insight.anomaly import AnomalySettings
from agent.insight.change import ChangeSettings
from agent.learning import Learned
from agent.metrics import Metrics
from agent.mqtt.address import BrokerAddress
from agent.mqtt.client import MqttLink
from agent.mqtt.commands import Command, CommandError
from agent.mqtt.topics import ALERT_IMAGE, ASKED_IMAGE, Topics
from agent.power.guard import PowerGuard
from agent.power.sensors import Sensors
from agent.presence import Presence
from agent.remembering import CameraMemory
from agent.remote.desk import RemoteConfig
from agent.remote.joining import attach, open_desk
from agent.remote.keys import key_troubles
from agent.rules.attending import Attending
from agent.rules.book import RuleBook
from agent.service import rescue, stateformat
from agent.service.progress import Progress
from agent.service.supervisor import Supervisor
from agent.states import StateTeller
from config.errors import ConfigError
from config.identity import device_id
from config.layers import Layers
from config.settings import Mqtt, Settings
from engines.manifest import find_model

log = structlog.get_logger()

_TICK_S = 1.0
_BROKER_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is told besides its settings.

    events_to: file or `-` for NDJSON. seconds: end after so long. retry: try lost cameras and brokers for ever;
    without, the first failure ends the run. sinks: where events go besides. sysfs: where power and heat are read.
    patience: with a configuration that crashed.
    """

    events_to: str | None = None
    seconds: float | None = None
    retry: bool = True
    sinks: Sequence[Sink] = ()
    sysfs: Path = Path("/sys")
    anomaly: AnomalySettings = field(default_factory=AnomalySettings)
    change: ChangeSettings = field(default_factory=ChangeSettings)
    patience: Patience = field(default_factory=Patience)


class Daemon:
    """A whole agent. `run` it once; `close` gives everything back and is safe at any time.

    layers: where the settings come from, so that a changed file can be applied while it runs.

    Raises ConfigError and ModelError when it can't be built; nothing is left behind then.
    """

    def __init__(self, settings: Settings, options: RunOptions | None = None, layers: Layers | None = None) -> None:
        self._options = options or RunOptions()
        self._layers = layers or Layers.of(settings)
        self._folder = settings.events.dir
        self._stack = ExitStack()
        self._notes: list[str] = []
        self._closing = threading.Event()
        self._file = FileWatch(self._layers.file)
        self._reload_wanted = False
        self.link: MqttLink | None = None
        self._presence: Presence | None = None
        self._moving: dict[str, bool] = {}
        self._linked: Mqtt | None = None
        self.unsent = 0
        """After the end: events that wait in the outbox for the next run."""
        try:
            self._build(settings)
        except BaseException:
            self._stack.close()
            raise

    def _build(self, settings: Settings) -> None:
        enter = self._stack.enter_context
        find_model(settings.model)  # before anything is made
        enter(StateLock(self._folder))
        stateformat.prepare(self._folder)
        journal = Journal(self._folder / "config")
        began = start(journal, self._layers)
        for trouble in began.troubles.values():
            log.error(trouble)
        settings = began.settings
        self.device = device_id(settings.device.id, self._folder)
        self.topics = Topics(settings.mqtt.root if settings.mqtt else "stillwatch", self.device)
        for name in settings.cameras:
            self.topics.state(name)  # refuses what can't be a level of a topic
        self.metrics = Metrics(__version__)
        self.progress = Progress()
        rescued = rescue.recover(self._folder)
        if rescued:
            log.warning("events of the run before, which hung, are told now", count=rescued)
        self.outbox = enter(Outbox(self._folder / "events.db"))
        if self.outbox.damaged:
            self._notes.append(self.outbox.damaged)
        self._book = self._open_book(settings)
        self._archive = self._open_archive(settings)
        self._learned = Learned(self._folder / "baselines", self._notes)
        self._remembered = CameraMemory(self._folder / remembering.FILE)
        self._retained = RetainedTopics(self._folder / announcing.FILE)
        self._rules = RuleBook(self._folder)
        if self._rules.trouble is not None:
            self._notes.append(self._rules.trouble)
        self._desk = Desk(
            self._folder,
            self._book,
            self._archive,
            self.metrics,
            self._learned,
            self._remembered,
            self._set_available,
            self._set_motion,
            self._options.retry,
            self._alarms(settings),
            self._options.change,
            self._rules,
            self.progress,
        )
        self._fleet = Fleet(self._desk, made=self._camera_made, gone=self._camera_gone, closing=self._closing)
        self.cameras = self._fleet.cameras
        self._stack.callback(self._fleet.close)
        if not began.safe:
            self._fleet.build(settings)
        self._crowded = _crowded(settings)
        self.applier = ApplyEngine(
            self,
            journal,
            self._layers,
            began,
            closing=self._closing,
            beat=self.progress.loop("apply"),
            patience=self._options.patience,
        )
        self._remote: RemoteConfig | None = None
        if settings.remote is not None:
            beat = self.progress.loop("remote configuration")
            self._remote = open_desk(settings.remote, self.applier, self.topics, self._folder, lambda: self.link, beat)
        self._book.end_interrupted()
        self._attending = Attending(self.cameras, self._rules, self.topics)
        self._stack.callback(self._close_link)
        self._open_link(settings)
        self.supervisor = enter(
            Supervisor(
                self._folder,
                self.progress,
                self.cameras,
                self._book,
                self.outbox,
                self.metrics,
                lambda: self.link,
                port=settings.metrics.port,
                memory_mb=settings.limits.memory_mb,
            )
        )
        self.metrics.watch_config(lambda: self.applier.version, lambda: self.applier.rollbacks)
        self.power = PowerGuard(Sensors(self._options.sysfs), self.cameras.values(), self.metrics)
        self._teller = StateTeller(
            self.device,
            __version__,
            self.cameras,
            self._book,
            self.outbox,
            self.metrics,
            self.link,
            notes=lambda: (
                *self._notes,
                *self._fleet.troubles,
                *self.applier.troubles,
                *self._crowded,
                *key_troubles(settings.remote),
            ),
            server=self._fleet.server,
            model_bytes=self._fleet.model_bytes,
            power=self.power,
            archive=self._archive,
            memory_guard=self.supervisor.memory,
            backend=lambda: self._fleet.backend,
        )

    def _open_link(self, settings: Settings) -> None:
        """Raises ConfigError."""
        if settings.mqtt is not None:
            commands = CameraCommands(
                self.cameras,
                self._book,
                self._archive,
                self._folder,
                self._learned.snapshots,
                on_mute=self._remembered.mute,
                on_picture=partial(self._show, ASKED_IMAGE),
            )
            handlers = {**commands.handlers, **self._attending.handlers, "analysis": self._set_analysis}
            self.link = MqttLink(
                BrokerAddress.of(settings.mqtt),
                self.topics,
                self.outbox,
                handlers=handlers,
                retracted=self._retained.forgotten,
                loop=self.progress.loop,
            )
            if self._remote is not None:
                attach(self._remote, self.link, self.topics)
        self._announce(settings)
        self._linked = settings.mqtt

    def _announce(self, settings: Settings) -> None:
        """Show the broker what there is now."""
        if self.link is not None and settings.mqtt is not None:
            self._presence = Presence(self.link, self.topics, settings.mqtt, settings.device.name, self._retained)
            self._presence.announce(list(settings.cameras))

    def _close_link(self) -> None:
        link, self.link, self._presence = self.link, None, None
        if link is not None:
            link.close()

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
            beat=self.progress.loop("events"),
        )
        return self._stack.enter_context(book)

    def _open_archive(self, settings: Settings) -> Archive:
        kept = settings.events.retention
        beat = self.progress.loop("evidence")
        archive = Archive(
            self._folder, self._book.update, days=kept.days, max_bytes=kept.bytes, show=self._show_alert, beat=beat
        )
        return self._stack.enter_context(archive)

    def _alarms(self, settings: Settings) -> AnomalySettings:
        """As this run was told; what is configured comes first."""
        told = self._options.anomaly
        if "anomaly" not in settings.model_fields_set:
            return told
        return replace(told, false_alarms_per_day=settings.anomaly.false_alarms_per_day)

    def run(self, stop: threading.Event, tick: Callable[[], None] = lambda: None) -> None:
        """Watch until `stop` is set, the time is over, or every source has ended; then end cleanly.

        tick: called about once a second from this thread. Raises what ended the run: SourceError and BrokerError
        without retry, CorruptInput, ConfigError.
        """
        if self.link is not None and not self._options.retry:
            self.link.wait_connected(_BROKER_WITHIN_S)
        for camera in self.cameras.values():
            self._tell_switches(camera)
            camera.start()
        if self._remote is not None:
            self._remote.start()
        self.supervisor.started()
        until = time.monotonic() + (self._options.seconds or float("inf"))
        while not self._over() and not stop.wait(min(_TICK_S, max(0.0, until - time.monotonic()))):
            self.supervisor.tick()
            self.power.tick()
            self._teller.tell()
            if self.link is not None:
                self._attending.tell(self.link)
            self._learned.write()
            self._follow_file()
            self.applier.tick()
            tick()
            if time.monotonic() >= until:
                break
        self.close(hurry=stop.is_set())
        if self.supervisor.end is not None:
            raise self.supervisor.end
        for camera in self.cameras.values():
            if camera.error is not None:
                raise camera.error

    def close(self, *, hurry: bool = True) -> None:
        """End everything in the order in which news flows, so that nothing is left on the way.

        In a hurry within 3 s; else words that are being made are waited for, and what is due is sent. A second call
        does nothing.
        """
        self.supervisor.stopping()
        self._closing.set()
        self.applier.close(1.0)
        if self._remote is not None:
            self._remote.close()
        patience_s = 0.8 if hurry else 10.0
        stoppers = [threading.Thread(target=camera.stop, args=(patience_s,)) for camera in self.cameras.values()]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()
        if (builder := self._fleet.builder) is not None:
            builder.describing.finish(0.2 if hurry else builder.patience_s)
            builder.describing.close(0.3)
        self._archive.close(0.5 if hurry else 5.0)
        self._book.settle("the agent has stopped")
        if not self._book.close(0.8 if hurry else 5.0):
            log.error("the disk did not take all events in time")
        if self.link is not None:
            self.link.notify()
            self.link.close(1.2 if hurry else 5.0)
        self._learned.write()
        self.unsent = self.outbox.depth
        self._stack.close()

    def _over(self) -> bool:
        """All sources have ended, one can never be opened as it is configured, or the agent has to start anew."""
        if self.supervisor.end is not None:
            return True
        if self.applier.busy or not self.cameras:
            return False
        cameras = self.cameras.values()
        return all(camera.done for camera in cameras) or any(isinstance(c.error, ConfigError) for c in cameras)

    def reload(self) -> None:
        """Have the configuration file read again, changed or not; from a signal handler or any thread."""
        self._reload_wanted = True

    def _follow_file(self) -> None:
        asked = self._reload_wanted
        if self._file.changed():
            self._reload_wanted = True
        if not self._reload_wanted or self.applier.busy:
            return
        self._reload_wanted = False  # whoever asks from here on gets a reload of his own
        if asked:
            notify.reloading()
        if not self.applier.reload(notify.ready if asked else lambda: None):
            self._reload_wanted = True

    def sizes(self) -> Mapping[str, Size]:
        return self._fleet.sizes()

    def health(self) -> Health:
        connected = None if self.link is None else self.link.state.connected
        return Health(self._fleet.health(), connected, memory.resident(), self.power.trouble)

    def change(self, settings: Settings, *, strict: bool) -> None:
        """Run these cameras on this broker from now on; on the applier's thread. Raises StillwatchError."""
        self._fleet.change(settings, strict=strict)
        self._crowded = _crowded(settings)
        if settings.mqtt != self._linked:
            self._close_link()
            self._open_link(settings)
            for name, camera in self.cameras.items():
                self._set_available(name, camera.capture.phase is Phase.STREAMING)
                self._tell_switches(camera)
        else:
            self._announce(settings)
        self._teller.use(self.link, self._fleet.server, self._fleet.model_bytes)

    def _camera_made(self, camera: Camera) -> None:
        self._teller.watch(camera)
        self.power.relieve(camera)
        self._tell_switches(camera)

    def _camera_gone(self, name: str) -> None:
        self.metrics.forget(name)
        if self.link is not None:
            self.link.forget_camera(name)

    def _tell_switches(self, camera: Camera) -> None:
        if self.link is not None:
            self.link.set_analysis(camera.name, camera.enabled)
            self.link.set_motion(camera.name, self._moving.get(camera.name, False))

    def _stored(self, event: AnyEvent) -> None:
        """On the book's thread, after the outbox has taken an event."""
        if self.link is not None:
            self.link.notify()
        if event.type is EventType.NEW and event.kind in ("anomaly", "rule", "health"):
            log.info("alert", kind=event.kind, camera=event.camera, event_id=event.id, severity=event.severity.value)
        seen = event.frame_ts if event.type is EventType.NEW else None
        latency_s = None if seen is None else (event.ts - seen).total_seconds()
        self.metrics.event(event.camera, event.kind, event.type.value, latency_s)

    def _set_available(self, camera: str, available: bool) -> None:
        if self.link is not None:
            self.link.set_camera_available(camera, available)

    def _set_motion(self, camera: str, moving: bool) -> None:
        """On the camera's thread."""
        self._moving[camera] = moving
        if self.link is not None:
            self.link.set_motion(camera, moving)

    def _show_alert(self, event_id: str, image: NDArray[np.uint8]) -> None:
        """On the archive's thread: the picture of any event, of which alerts are shown."""
        event = self._book.recall(event_id)
        if event is not None and event.kind in ("anomaly", "rule"):
            self._show(ALERT_IMAGE, event.camera, image)

    def _show(self, name: str, camera: str, image: NDArray[np.uint8]) -> None:
        presence = self._presence
        if presence is not None:
            presence.show(camera, name, image)

    def _set_analysis(self, command: Command) -> Mapping[str, JsonValue]:
        name, enabled = command.text("camera"), bool(command.arguments["enabled"])
        camera = self.cameras.get(name)
        if camera is None or self.link is None:
            raise CommandError(f"analysis: no camera {name!r:.80}; known: {', '.join(self.cameras)}")
        camera.enabled = enabled
        self._remembered.enable(name, enabled)
        self.link.set_analysis(name, enabled)
        return {"camera": name, "enabled": enabled}


def _crowded(settings: Settings) -> tuple[str, ...]:
    """What the cameras can't all have, told once here and in the status from now on."""
    sentence = crowding(settings)
    if sentence is None:
        return ()
    log.warning("the cameras get fewer frames than they are to have", reason=sentence)
    return (sentence,)
