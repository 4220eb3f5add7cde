"""What watches over a running agent: heartbeats and watchdog, health, the endpoint, the ceiling on memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import structlog

from agent import notify
from agent.events.book import EventBook
from agent.events.outbox import Outbox
from agent.metrics import Metrics
from agent.service import rescue
from agent.service.endpoint import Endpoint
from agent.service.health import Health
from agent.service.memory import MemoryGuard, cgroup_limit
from agent.service.progress import Late, Progress
from agent.service.watchdog import Watchdog
from config.errors import StillwatchError

if TYPE_CHECKING:
    from agent.camera import Camera
    from agent.mqtt.client import MqttLink

log = structlog.get_logger()


class Supervisor:
    """Made with everything else, `started` when the cameras are, then a `tick` about once a second from the main loop.

    link: the broker's link as it is now. port: of the endpoint, None = no endpoint. memory_mb: what the agent may take,
    None = as the control group says. Raises ConfigError when the port can't be had.
    """

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        cameras: Mapping[str, Camera],
        book: EventBook,
        outbox: Outbox,
        metrics: Metrics,
        link: Callable[[], MqttLink | None],
        *,
        port: int | None = None,
        memory_mb: int | None = None,
    ) -> None:
        self._folder, self._book = folder, book
        self._saved = 0
        self._stack = ExitStack()
        self._beat = progress.loop("main")
        self.health = Health(progress, cameras, outbox, link)
        period_s = notify.watchdog_s()
        watchdog = Watchdog(progress, status=self.health.status, rescue=self._rescue, period_s=period_s)
        self._watchdog = self._stack.enter_context(watchdog)
        limit = cgroup_limit() if memory_mb is None else memory_mb * 10**6
        self.memory = MemoryGuard(limit, cameras.values(), metrics, supervised=notify.supervised())
        metrics.watch_loops(lambda: {name: silent_s > progress.limit_s for name, silent_s in progress.loops.items()})
        metrics.watch_outbox(outbox.oldest, lambda: {**outbox.dropped, **book.dropped})
        if port is not None:
            self._stack.enter_context(Endpoint(port, metrics.registry, self.health, progress.loop("metrics")))

    @property
    def end(self) -> StillwatchError | None:
        """Why the agent has to end and start anew, None for as long as it need not."""
        return self.memory.end

    def started(self) -> None:
        """Cameras have started: from here on systemd counts us as running, and watches."""
        self._beat.beat()
        notify.ready()
        notify.status(self.health.status())
        self._watchdog.start()

    def tick(self, ahead_s: float = 0.0) -> None:
        """The main loop goes on. ahead_s: what it does next is known to take so long."""
        self._beat.beat(ahead_s)
        self.memory.tick()

    def stopping(self) -> None:
        """An ordered end has begun; what is late in it is systemd's TimeoutStopSec."""
        self._beat.idle()
        notify.stopping()

    def close(self) -> None:
        """A second call does nothing."""
        self._stack.close()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rescue(self, late: Sequence[Late]) -> None:
        """On the watchdog's thread: what a writer that hangs still holds must live on without it."""
        if not any(one.loop == self._book.loop for one in late):
            if self._saved:
                self._saved = 0
                rescue.discard(self._folder)
            return
        unwritten = self._book.unwritten()
        if len(unwritten) != self._saved:
            rescue.save(self._folder, unwritten)
            self._saved = len(unwritten)
            log.warning("events that can't be written are saved", count=self._saved)
