"""Whether a new configuration works as the old one did: cameras, latency, memory, heat, broker, all against before.

A camera that gave no frames before is no reason to go back, one that gave frames and gives none is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """made: which worker this is, another number for another one. age_s: since its newest frame, None before the first.
    ended: its source came to its end, which is no fault. failed: why it never comes back. frame_ms: median of what
    frames took, None with too few."""

    made: int
    age_s: float | None
    ended: bool
    failed: str | None
    frame_ms: float | None


@dataclass(frozen=True, slots=True)
class Health:
    """connected: to the broker; None = there is none. resident: bytes. hot: that power or heat make the agent do less,
    and why; None = all is done."""

    cameras: Mapping[str, CameraHealth]
    connected: bool | None
    resident: int
    hot: str | None


@dataclass(frozen=True, slots=True)
class Limits:
    """fresh_s: a camera gives frames when the newest is no older. slower: a camera's median frame may take so many
    times what it took, and `slower_ms` on top. grow, grow_bytes: so it is with memory. broker_s: the broker may be away
    for so long at a time."""

    fresh_s: float = 10.0
    slower: float = 3.0
    slower_ms: float = 50.0
    grow: float = 1.5
    grow_bytes: int = 200 * 2**20
    broker_s: float = 10.0


def prove(
    before: Health,
    health: Callable[[], Health],
    probation_s: float,
    closing: threading.Event,
    limits: Limits,
    monotonic: Callable[[], float] = time.monotonic,
) -> str | None:
    """Look for so long at how it is, 0 = once; why it is worse than before, None when it isn't."""
    until, lost_s = monotonic() + probation_s, None
    while True:
        now_s, now = monotonic(), health()
        if (found := fault(before, now, limits)) is not None:
            return found
        away = before.connected and not now.connected
        lost_s = (lost_s if lost_s is not None else now_s) if away else None
        if lost_s is not None and now_s - lost_s > limits.broker_s:
            return "the broker was lost"
        if now_s >= until:
            found = verdict(before, now, limits) if probation_s else None
            if found is None or now_s >= until + limits.fresh_s:  # what has just begun may need a moment
                return found
        if closing.wait(_LOOK_EVERY_S):
            return "the agent was stopped before it was committed"


def fault(before: Health, now: Health, limits: Limits) -> str | None:
    """What is worse now than before and can't become better by waiting; None when nothing is."""
    for name, camera in now.cameras.items():
        was = before.cameras.get(name)
        if camera.failed is not None and (was is None or was.failed is None):
            return f"camera {name} failed: {camera.failed}"
    if now.resident > before.resident * limits.grow + limits.grow_bytes:
        return f"memory grew from {before.resident >> 20} to {now.resident >> 20} MiB"
    if now.hot is not None and before.hot is None:
        return f"the box {now.hot}"
    return None


def verdict(before: Health, now: Health, limits: Limits) -> str | None:
    """What is worse at the end of the time in which it must prove itself; None when nothing is."""
    if (found := fault(before, now, limits)) is not None:
        return found
    for name, camera in now.cameras.items():
        was = before.cameras.get(name)
        if was is None or not _gives(was, limits) or camera.ended:
            continue
        if not _gives(camera, limits):
            return f"camera {name} gave frames before and gives none now"
        if was.frame_ms is not None and camera.frame_ms is not None and camera.made != was.made:
            most_ms = was.frame_ms * limits.slower + limits.slower_ms
            if camera.frame_ms > most_ms:
                return f"frames of camera {name} take {camera.frame_ms:.0f} ms, {was.frame_ms:.0f} ms before"
    if before.connected and not now.connected:
        return "the broker was lost"
    return None


def _gives(camera: CameraHealth, limits: Limits) -> bool:
    return camera.age_s is not None and camera.age_s <= limits.fresh_s
