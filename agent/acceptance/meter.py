"""What a call costs: milliseconds, and the power of the board while it is repeated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from agent.power.sensors import Sensors

_WARM_UP = 2
_LEAST_CALLS = 5
_SAMPLE_S = 0.1


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call. watts: mean power of the whole board during the calls, None where nothing measures it."""

    calls: int
    ms: float
    p95_ms: float
    watts: float | None


class Meter:
    """Repeats calls for `seconds` each, at least five times after a warm-up."""

    def __init__(self, sensors: Sensors, seconds: float = 1.0) -> None:
        self._sensors, self._seconds = sensors, seconds
        self.measures_power = sensors.read().watts is not None

    def cost(self, call: Callable[[], object]) -> Cost:
        """Raises what `call` raises."""
        for _ in range(_WARM_UP):
            call()
        spent: list[float] = []
        with self.sampling() as watts:
            end = time.perf_counter() + self._seconds
            while len(spent) < _LEAST_CALLS or time.perf_counter() < end:
                start = time.perf_counter()
                call()
                spent.append(1e3 * (time.perf_counter() - start))
        median, p95 = np.percentile(spent, (50, 95))
        return Cost(len(spent), round(float(median), 3), round(float(p95), 3), self.mean(watts))

    def idle_watts(self) -> float | None:
        """Power while we do nothing."""
        with self.sampling() as watts:
            time.sleep(self._seconds)
        return self.mean(watts)

    @contextmanager
    def sampling(self) -> Iterator[list[float]]:
        """The power of the board in watts, ten times a second while inside; nothing where nothing measures it."""
        watts: list[float] = []
        if not self.measures_power:
            yield watts
            return
        done = threading.Event()

        def sample() -> None:
            while True:
                now = self._sensors.read().watts
                if now is not None:
                    watts.append(now)
                if done.wait(_SAMPLE_S):
                    return

        thread = threading.Thread(target=sample, name="watts", daemon=True)
        thread.start()
        try:
            yield watts
        finally:
            done.set()
            thread.join()

    @staticmethod
    def mean(watts: list[float]) -> float | None:
        return round(fmean(watts), 2) if watts else None
