"""How things are, told about once a second: to the broker as retained states, to Prometheus as gauges."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from agent.camera import Camera
from agent.capture.worker import Phase
from agent.coherence import memory
from agent.coherence.quality import TextConsistency
from agent.events.book import EventBook
from agent.events.model import BoxStatus, CameraState, FrameTimes, new_id
from agent.events.outbox import Outbox
from agent.evidence.archive import Archive
from agent.metrics import Metrics
from agent.mqtt.client import MqttLink

if TYPE_CHECKING:
    from agent.describer.server import VisionServer
    from agent.power.guard import PowerGuard
    from agent.service.memory import MemoryGuard

_STATUS_EVERY_S = 30.0


class StateTeller:
    """notes: sentences for the box's `degraded`, read at each telling. link: None = no broker. server: where
    pictures go to be described, None = nowhere. model_bytes: of the weights that all cameras share. power: read just
    before each telling. backend: what encodes, in a word."""

    def __init__(
        self,
        device: str,
        version: str,
        cameras: Mapping[str, Camera],
        book: EventBook,
        outbox: Outbox,
        metrics: Metrics,
        link: MqttLink | None,
        *,
        notes: Callable[[], Sequence[str]] = tuple,
        server: VisionServer | None = None,
        model_bytes: int = 0,
        power: PowerGuard | None = None,
        archive: Archive | None = None,
        memory_guard: MemoryGuard | None = None,
        backend: Callable[[], str] = lambda: "cpu",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device, self._version, self._cameras = device, version, cameras
        self._book, self._outbox, self._metrics, self._link = book, outbox, metrics, link
        self._notes, self._backend = notes, backend
        self._server, self._power, self._archive, self._guard = server, power, archive, memory_guard
        self._monotonic = monotonic
        self._began = self._status_due = monotonic()
        self._degraded: tuple[str, ...] = ()
        self._boot_id = new_id()
        self._seq = 0
        self._model_bytes = model_bytes
        self._said: dict[str, TextConsistency] = {}
        metrics.watch_memory("", lambda: {"model": self._model_bytes})
        for camera in cameras.values():
            self.watch(camera)

    def use(self, link: MqttLink | None, server: VisionServer | None, model_bytes: int) -> None:
        """From now on; what the constructor says of them holds."""
        self._link, self._server, self._model_bytes = link, server, model_bytes
        self._status_due = self._monotonic()

    def watch(self, camera: Camera) -> None:
        """Measure this camera from now on, instead of an earlier one of its name."""
        said = self._said.setdefault(camera.name, TextConsistency())
        self._metrics.watch_stages(camera.name, camera.watch.times)
        self._metrics.watch_memory(camera.name, partial(_sizes, camera))
        self._metrics.watch_text(camera.name, said)

    def tell(self) -> None:
        """Tell everything that is due. Never waits."""
        for camera in self._cameras.values():
            self._tell_camera(camera)
        link = None if self._link is None else self._link.state
        self._metrics.broker(link is not None and link.connected, self._outbox.depth, link.connections if link else 0)
        if self._server is not None:
            self._metrics.describer_breaker(self._server.status.breaker != "closed")
        if self._link is not None:
            self._tell_box(self._link)

    def _tell_camera(self, camera: Camera) -> None:
        reading, fps = camera.watch.reading, camera.fps()
        up = camera.capture.phase is Phase.STREAMING
        self._metrics.state(camera.name, up, camera.dropped, reading.score)
        self._metrics.quality(camera.name, reading.fidelity, reading.coherence, camera.watch.ghosts, reading.flicker)
        if camera.reporter.text:
            self._said[camera.name].process(camera.reporter.text, self._monotonic())
        if self._link is None:
            return
        self._link.set_camera_state(
            CameraState(
                ts=datetime.now(timezone.utc),
                device=self._device,
                camera=camera.name,
                enabled=camera.enabled,
                motion=min(1.0, reading.motion),
                anomaly=reading.alarm,
                score=reading.score,
                learning=reading.score is None,
                text=camera.reporter.text,
                mode=reading.mode,
                fps=round(fps, 1),
                fidelity=None if reading.fidelity is None else round(reading.fidelity, 4),
                muted_until=camera.reporter.muted_until,
            )
        )

    def _tell_box(self, link: MqttLink) -> None:
        """Now and then, and at once when what is wrong has changed."""
        now = self._monotonic()
        told_by = (self._archive, self._server, self._power, self._guard)
        own = (self._book.trouble, *(part.trouble for part in told_by if part is not None))
        degraded = (*self._notes(), *(trouble for trouble in own if trouble), *link.state.trouble)
        if now < self._status_due and degraded == self._degraded:
            return
        self._status_due, self._degraded = now + _STATUS_EVERY_S, degraded
        link.set_status(
            BoxStatus(
                ts=datetime.now(timezone.utc),
                device=self._device,
                version=self._version,
                boot_id=self._boot_id,
                seq=self._seq,
                uptime_s=round(now - self._began, 1),
                backend=self._backend(),
                degraded=degraded,
                queue_depth=self._outbox.depth,
                dropped=self._outbox.dropped | self._book.dropped,
                describer=None if self._server is None else self._server.status,
                frame_ms={name: _frame_ms(camera) for name, camera in self._cameras.items()},
                memory=self._memory(),
                power=None if self._power is None else self._power.status,
            )
        )
        self._seq += 1

    def _memory(self) -> dict[str, int]:
        """Bytes by part, of all cameras together."""
        total = Counter({"resident": memory.resident(), "model": self._model_bytes})
        for camera in self._cameras.values():
            total.update(_sizes(camera))
        return dict(total)


def _sizes(camera: Camera) -> dict[str, int]:
    return memory.by_part(camera.holdings)


def _frame_ms(camera: Camera) -> FrameTimes:
    times = camera.watch.times.frame.times()
    return FrameTimes(p50=round(times.p50_ms, 2), p95=round(times.p95_ms, 2), max=round(times.max_ms, 2))
