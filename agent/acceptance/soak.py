"""The whole agent on rendered cameras for some minutes, as it chooses its parts itself: what grows, fails or heats."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.coherence import memory
from agent.daemon import Daemon, RunOptions
from agent.power.sensors import Sensors
from config.settings import Camera, Events, Settings

CAMERAS = {
    "street": "scene:street?seed=11&width=1280&height=720&fps=15",
    "pan": "scene:yard?seed=5&width=640&height=360&fps=15&camera=pan",
}
_WARM_UP = 0.4
"""Share of the run until caches and allocators have their size."""
_LEAST_S = 120.0
"""Shorter runs say nothing about growth."""
_MB_PER_MINUTE = 2.0
_DESCRIPTORS = 4

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    resident_mb: float
    descriptors: int
    threads: int
    frames: int
    watts: float | None
    celsius: float | None
    step: int


@dataclass(frozen=True, slots=True)
class SoakResult:
    """seconds: how long it really ran. mb_per_minute: growth of resident memory after the warm-up, None for a run that
    is too short to tell. failures: what did not hold, a sentence each."""

    seconds: float
    frames: dict[str, int]
    frames_per_s: float
    modes: dict[str, int]
    dropped: int
    frame_ms: dict[str, dict[str, float]]
    events: int
    resident_mb: float
    mb_per_minute: float | None
    descriptors_grown: int
    threads_grown: int
    watts: float | None
    hottest_c: float | None
    power_step: int
    failures: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "failures": list(self.failures)}


class _Counter:
    """A sink that counts."""

    def __init__(self) -> None:
        self.count = 0

    def append(self, _topic: str, _event: object) -> None:
        self.count += 1

    def close(self) -> None: ...


def soak(model: str, seconds: float, *, sysfs: Path, progress: Progress = lambda _: None) -> SoakResult:
    """Run the agent for so long with a state folder of its own that is gone afterwards. Raises what `Daemon` raises."""
    events, samples, sensors = _Counter(), list[_Sample](), Sensors(sysfs)
    with tempfile.TemporaryDirectory(prefix="stillwatch-soak-") as folder:
        settings = Settings(
            model=model,
            events=Events(dir=Path(folder)),
            cameras={name: Camera(source=source) for name, source in CAMERAS.items()},
        )
        daemon = Daemon(settings, RunOptions(seconds=seconds, sinks=[events], sysfs=sysfs))
        began = time.monotonic()

        def tick() -> None:
            reading = sensors.read()
            hottest, status = reading.hottest, daemon.power.status
            samples.append(
                _Sample(
                    time.monotonic() - began,
                    memory.resident() / 1e6,
                    len(list(Path("/proc/self/fd").iterdir())),
                    threading.active_count(),
                    sum(camera.watch.frames for camera in daemon.cameras.values()),
                    reading.watts,
                    None if hottest is None else hottest.celsius,
                    0 if status is None else status.step,
                )
            )
            progress(f"soak: {samples[-1].at_s:.0f} of {seconds:.0f} s")

        try:
            daemon.run(threading.Event(), tick)
        finally:
            daemon.close()
    return _result(daemon, samples, events.count, seconds)


def _result(daemon: Daemon, samples: list[_Sample], events: int, seconds: float) -> SoakResult:
    warm = [sample for sample in samples if sample.at_s >= _WARM_UP * seconds] or samples
    first, last = warm[0], warm[-1]
    growth = growth_mb_per_minute([(sample.at_s, sample.resident_mb) for sample in warm], seconds)
    modes: dict[str, int] = {}
    for camera in daemon.cameras.values():
        for mode, count in camera.watch.modes.items():
            modes[mode] = modes.get(mode, 0) + count
    watts = [sample.watts for sample in warm if sample.watts is not None]
    heat = [sample.celsius for sample in samples if sample.celsius is not None]
    frames = {name: camera.watch.frames for name, camera in daemon.cameras.items()}
    descriptors = last.descriptors - first.descriptors
    return SoakResult(
        seconds=round(last.at_s, 1),
        frames=frames,
        frames_per_s=round(last.frames / max(last.at_s, 1e-3), 1),
        modes=modes,
        dropped=sum(camera.dropped for camera in daemon.cameras.values()),
        frame_ms={name: _times(daemon, name) for name in daemon.cameras},
        events=events,
        resident_mb=round(last.resident_mb, 1),
        mb_per_minute=growth,
        descriptors_grown=descriptors,
        threads_grown=last.threads - first.threads,
        watts=round(float(np.mean(watts)), 2) if watts else None,
        hottest_c=max(heat, default=None),
        power_step=max(sample.step for sample in samples),
        failures=failures(frames, modes.get("error", 0), growth, descriptors),
    )


def growth_mb_per_minute(samples: Sequence[tuple[float, float]], seconds: float) -> float | None:
    """Slope of resident memory over (seconds, MB), by least squares; None for a run too short to tell."""
    if seconds < _LEAST_S or len(samples) < 3:
        return None
    at_s, resident = np.array(samples).T
    return round(60 * float(np.polyfit(at_s, resident, 1)[0]), 3)


def failures(frames: Mapping[str, int], failed: int, growth: float | None, descriptors: int) -> tuple[str, ...]:
    """What did not hold, a sentence each. frames: handled, by camera; failed: frames that ended in an error."""
    found = [f"{name}: no frame was handled" for name, count in frames.items() if not count]
    if failed:
        found.append(f"{failed} frames failed")
    if growth is not None and growth > _MB_PER_MINUTE:
        found.append(f"memory grew by {growth:.1f} MB a minute, expected {_MB_PER_MINUTE:g} or less")
    if descriptors > _DESCRIPTORS:
        found.append(f"{descriptors} more file descriptors at the end, expected {_DESCRIPTORS} or fewer")
    return tuple(found)


def _times(daemon: Daemon, camera: str) -> dict[str, float]:
    times = daemon.cameras[camera].watch.times.frame.times()
    return {"p50": round(times.p50_ms, 2), "p95": round(times.p95_ms, 2), "max": round(times.max_ms, 2)}
