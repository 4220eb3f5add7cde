"""What `scripts/isolation` does: count the frames of cameras while one of them crashes in a loop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from agent.capacity.running import Running

KEPT = 0.95
"""Of its frames, what a camera must keep."""
STATUS = {"kept": 0, "lost": 1, "too slow": 3}
_STARTED_WITHIN_S = 180.0
_PLACES = ("street", "office", "yard", "walkway")


@dataclass(frozen=True, slots=True)
class Isolation:
    """Frames a second of each camera that did not crash, before, while the other did, and after. crashes: how often."""

    fps: float
    before: Mapping[str, float]
    during: Mapping[str, float]
    after: Mapping[str, float]
    crashes: int

    @property
    def kept(self) -> float:
        """The least that any camera kept of what it had before and after, 1 = all."""
        had = {name: min(self.before[name], self.after[name]) for name in self.before}
        return min(self.during[name] / max(1e-6, rate) for name, rate in had.items())

    @property
    def verdict(self) -> str:
        if min(*self.before.values(), *self.after.values()) < KEPT * self.fps:
            return "too slow"
        return "kept" if self.kept >= KEPT else "lost"


def isolation(cameras: int, fps: float, seconds: float, *, capture: str = "process") -> Isolation:
    """Raises StillwatchError when the agent does not run."""
    names = [f"cam{number}" for number in range(1, cameras + 1)]
    sections = {
        name: {
            "source": f"scene:{_PLACES[place % len(_PLACES)]}?seed={place}&fps={fps:g}&width=320&height=180",
            "capture": capture,
        }
        for place, name in enumerate(names)
    }
    victim = names[0]
    with Running(sections) as agent:
        agent.wait(round(4 * fps), _STARTED_WITHIN_S)
        before = _others(agent.rates(seconds), victim)
        crashing = Crashing(agent, victim)
        during = _others(agent.rates(seconds), victim)
        crashing.stop()
        after = _others(agent.rates(seconds), victim)
    return Isolation(fps, before, during, after, crashing.crashes)


class Crashing:
    """Has the capture process of one camera crash whenever it is there."""

    def __init__(self, agent: Running, camera: str) -> None:
        self._agent, self._camera = agent, camera
        self.crashes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crashing", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        last = None
        while not self._over.wait(0.1):
            pid = self._agent.processes().get(self._camera)
            if pid is not None and pid != last:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSEGV)
                    last, self.crashes = pid, self.crashes + 1


def _others(rates: Mapping[str, float], victim: str) -> dict[str, float]:
    return {name: rate for name, rate in rates.items() if name != victim}
