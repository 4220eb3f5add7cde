"""Reads the sensors about once a second, and lets all cameras do as much as the board can bear."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from agent.events.model import PowerStatus
from agent.metrics import Metrics
from agent.power.policy import Decision, PowerPolicy, Rung
from agent.power.sensors import Reading, Sensors

log = structlog.get_logger()


class Relieved(Protocol):
    """What can do less; `agent.camera.Camera` is one."""

    def relieve(self, rung: Rung, reason: str) -> None: ...


class PowerGuard:
    """For one thread. Without sensors that tell of a limit it does nothing, and `status` is None. cameras: gone through
    anew at each step."""

    def __init__(
        self,
        sensors: Sensors,
        cameras: Iterable[Relieved],
        metrics: Metrics,
        *,
        policy: PowerPolicy | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sensors, self._cameras, self._metrics = sensors, cameras, metrics
        self._policy = policy or PowerPolicy()
        self._monotonic = monotonic
        self._decision = Decision()
        self._reading: Reading | None = None
        self._read_at = monotonic()

    @property
    def trouble(self) -> str | None:
        """That less is done and why, as a sentence that stays the same while it is so; None when all is done."""
        step = self._decision.step
        return f"does less, {self._decision.rung}: {self._decision.reason}" if step else None

    @property
    def status(self) -> PowerStatus | None:
        """What the sensors said last, None before the first `tick` and on a machine without any."""
        reading = self._reading
        if reading is None:
            return None
        hottest = reading.hottest
        return PowerStatus(
            step=self._decision.step,
            reason=self._decision.reason,
            watts=None if reading.watts is None else round(reading.watts, 2),
            hottest=None if hottest is None else hottest.name,
            celsius=None if hottest is None else round(hottest.celsius, 1),
            throttled=reading.throttled,
        )

    def relieve(self, camera: Relieved) -> None:
        """Let a camera that has just been made do as little as the others."""
        camera.relieve(self._decision.rung, self._decision.reason)

    def tick(self) -> None:
        """Read, decide, and tell cameras and metrics. A few milliseconds; raises nothing."""
        if not self._sensors.found:
            return
        now = self._monotonic()
        self._reading = reading = self._sensors.read()
        before = self._decision
        self._decision = decision = self._policy.process(reading, now)
        self._metrics.power(reading, decision.step, now - self._read_at)
        self._read_at = now
        if decision.step == before.step:
            return
        for camera in self._cameras:
            camera.relieve(decision.rung, decision.reason)
        if decision.step > before.step:
            log.warning("does less to stay within power and heat", reason=decision.reason, now=str(decision.rung))
        else:
            log.info("power and heat allow more again", now=str(decision.rung))
