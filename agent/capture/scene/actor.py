"""An individual with its life: a chain of legs, so that its pose at any time is found without the times before."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sin

from agent.capture.scene.outline import Look, Pose
from agent.capture.scene.stage import VEHICLES, size_at

# Travel in sizes per cycle of the gait, or per turn of a wheel.
CYCLE = {
    "person": 0.78,
    "dog": 0.9,
    "cat": 0.8,
    "bird": 0.5,
    "car": 0.5,
    "truck": 0.43,
    "bus": 0.37,
    "bicycle": 1.22,
    "motorbike": 1.1,
    "bag": 1.0,
    "box": 1.0,
    "chair": 1.0,
}


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of an actor's life: straight from (x0, y0) to (x1, y1), `tilt` and `low` (as in Pose) from
    first to second; `ease` −1 starts gently, +1 stops gently."""

    start_s: float
    end_s: float
    x0: float
    y0: float
    x1: float
    y1: float
    action: str
    facing: int
    phase: float = 0.0
    ease: int = 0
    tilt: tuple[float, float] = (0.0, 0.0)
    low: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Actor:
    """An individual with its life: legs follow each other without a gap."""

    id: int
    look: Look
    bulk: float
    legs: tuple[Leg, ...]

    @property
    def start_s(self) -> float:
        return self.legs[0].start_s

    @property
    def end_s(self) -> float:
        return self.legs[-1].end_s

    def at(self, t: float) -> tuple[Pose, str] | None:
        """Pose in units and action at a time; None before and after its life."""
        if not self.start_s <= t < self.end_s:
            return None
        leg = next(leg for leg in self.legs if t < leg.end_s)
        share = (t - leg.start_s) / (leg.end_s - leg.start_s)
        way = share * share if leg.ease < 0 else share * (2 - share) if leg.ease > 0 else share
        x, y = leg.x0 + (leg.x1 - leg.x0) * way, leg.y0 + (leg.y1 - leg.y0) * way
        kind = self.look.kind
        size = size_at(kind, y) * self.bulk
        turns = abs(x - leg.x0) / (size_at(kind, leg.y0) * self.bulk * CYCLE[kind])
        tilt = leg.tilt[0] + (leg.tilt[1] - leg.tilt[0]) * share * share
        stride = min(1.0, (t - leg.start_s) / 0.3, (leg.end_s - t) / 0.3) if leg.action == "walking" else 0.0
        pose = Pose(
            x,
            y,
            size,
            leg.facing,
            phase=leg.phase + (-1 if kind in VEHICLES else 1) * 2 * pi * turns,
            stride=stride if not tilt else 0.3 * sin(min(1.0, tilt)),
            tilt=tilt,
            moving=leg.action in ("driving", "riding", "flying"),
            low=leg.low[0] + (leg.low[1] - leg.low[0]) * share,
        )
        action = leg.action
        if action in ("falling", "rising"):  # what it looks like decides at both ends of the movement
            midway = "falling" if action == "falling" else "lying" if tilt > 0.9 else "standing"
            action = "standing" if tilt < 0.3 else "lying" if tilt > 1.35 else midway
        return pose, action
