"""The ceiling on memory that the agent keeps before the kernel does: shed what can be missed, then start anew.

    step 1   above 85 %   packets for clips: a quarter of what they may take
    step 2   above 95 %   no packets, no clips
    end      above 100 %  for half a minute though all is shed: an ordered end, and systemd starts the agent again

Below 75 % for a minute one step is taken back. Without systemd nobody would start it again: then it sheds and says so,
and goes on.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from agent.coherence.memory import resident
from agent.metrics import Metrics
from config.errors import StillwatchError

log = structlog.get_logger()

_M_ARENA_MAX = -8
"""Of mallopt, as malloc.h has it."""
SHARES = (1.0, 0.25, 0.0)
"""Share of their packets that cameras may keep, by step."""
_LIMITS = (0.85, 0.95)
_RELAXED, _RELAXED_S = 0.75, 60.0
_SETTLE_S = 5.0
"""What was let go takes a moment to be seen."""
_OVER_S = 30.0


class Shedding(Protocol):
    """What can hold less; `agent.camera.Camera` is one."""

    def shed(self, share: float) -> None: ...


@dataclass(slots=True)
class Ladder:
    """Which step to be on. Times are monotonic seconds."""

    step: int = 0
    over: bool = False
    """All is shed, and it has not helped."""
    _changed_s: float = float("-inf")
    _calm_s: float | None = None
    _over_s: float | None = None

    def process(self, ratio: float, now_s: float) -> int:
        """ratio: of the limit that is taken."""
        self._calm_s = None if ratio >= _RELAXED else now_s if self._calm_s is None else self._calm_s
        self._over_s = (
            None if ratio <= 1 or self.step < len(_LIMITS) else now_s if self._over_s is None else self._over_s
        )
        self.over = self._over_s is not None and now_s - self._over_s >= _OVER_S
        if now_s - self._changed_s < _SETTLE_S:
            return self.step
        if self.step < len(_LIMITS) and ratio > _LIMITS[self.step]:
            self.step, self._changed_s = self.step + 1, now_s
        elif self.step and self._calm_s is not None and now_s - self._calm_s >= _RELAXED_S:
            self.step, self._changed_s, self._calm_s = self.step - 1, now_s, None
        return self.step


class MemoryGuard:
    """For one thread. limit: bytes, None = no ceiling. cameras: gone through anew at each `tick`. supervised: somebody
    starts the agent again when it ends."""

    def __init__(
        self,
        limit: int | None,
        cameras: Iterable[Shedding],
        metrics: Metrics,
        *,
        supervised: bool,
        taken: Callable[[], int] = resident,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._cameras, self._metrics = limit, cameras, metrics
        self._supervised, self._taken, self._monotonic = supervised, taken, monotonic
        self._ladder = Ladder()
        self.end: StillwatchError | None = None
        """Why the agent has to end and start anew."""
        metrics.memory(limit, 0)

    @property
    def trouble(self) -> str | None:
        """What is shed, as a sentence; None when nothing is."""
        if not self._ladder.step or self._limit is None:
            return None
        what = "clips show less of what was before" if SHARES[self._ladder.step] else "no clips are made"
        return f"memory is short (limit {self._limit // 10**6} MB): {what}"

    def tick(self) -> None:
        """Look, and shed or take back. Microseconds when there is nothing to do."""
        if self._limit is None:
            return
        taken = self._taken()
        before, step = self._ladder.step, self._ladder.process(taken / self._limit, self._monotonic())
        if step or before:
            for camera in self._cameras:
                camera.shed(SHARES[step])
        self._metrics.memory(self._limit, step)
        if step > before:
            give_back()
            log.warning(self.trouble, step=step, taken_mb=taken // 10**6)
        elif step < before:
            log.info("memory allows more again", step=step, taken_mb=taken // 10**6)
        if self._ladder.over and self._supervised and self.end is None:
            self.end = StillwatchError(
                f"the agent takes {taken // 10**6} MB, its limit is {self._limit // 10**6} MB (limits.memory_mb), and "
                "shedding has not helped: it starts anew"
            )


def take_from_few_pools() -> None:
    """Have the C library serve all threads from two pools, not from eight for each processor: threads of cameras that
    come and go leave holes in all of them, a hundred megabytes after eight changes of two cameras. Call before threads
    are started; elsewhere than with glibc nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def give_back() -> None:
    """Give the system what is freed and still kept by the C library, where it can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def cgroup_limit(root: Path = Path("/")) -> int | None:
    """MemoryHigh of the control group that we run in, None where there is none."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
        ours = next(line.removeprefix("0::/") for line in groups if line.startswith("0::/"))
        text = (root / "sys/fs/cgroup" / ours / "memory.high").read_text(encoding="ascii").strip()
    except (OSError, StopIteration):
        return None
    return int(text) if text.isdecimal() else None
