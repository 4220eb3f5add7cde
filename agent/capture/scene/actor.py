"""An individual with its life: a chain of legs, so that its pose at any time is found without the times before."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sin
from typing import NamedTuple

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


_BEATS_HZ = {"flying": 2.5, "waving": 0.9}  # what moves by itself, not by the way it goes
_RUNNING = 1.9  # a runner's stride is this much longer than a walker's


class Held(NamedTuple):
    """What a body can hold or change while it does something, as in Pose."""

    tilt: float = 0.0
    low: float = 0.0
    height: float = 0.0
    sit: float = 0.0
    crouch: float = 0.0
    wave: float = 0.0
    carry: float = 0.0
    run: float = 0.0


UPRIGHT = Held()


@dataclass(frozen=True, slots=True)
class Leg:
    """A stretch of an actor's life: straight from (x0, y0) to (x1, y1), its body going from `first` to `last`; `ease`
    −1 starts gently, +1 stops gently."""

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
    first: Held = UPRIGHT
    last: Held = UPRIGHT

    def share(self, t: float) -> float:
        """How far through the leg a time is, 0–1."""
        return (t - self.start_s) / (self.end_s - self.start_s)

    def way(self, t: float) -> float:
        """How far along its line, 0–1."""
        share = self.share(t)
        return share * share if self.ease < 0 else share * (2 - share) if self.ease > 0 else share

    def phase_at(self, t: float, kind: str, bulk: float) -> float:
        """Phase of the gait, the wheels, the wings or the waving arm, in radians."""
        if self.action in _BEATS_HZ:
            return self.phase + 2 * pi * _BEATS_HZ[self.action] * (t - self.start_s)
        stride = CYCLE[kind] * (_RUNNING if self.action == "running" else 1.0)
        turns = abs(self.x1 - self.x0) * self.way(t) / (size_at(kind, self.y0) * bulk * stride)
        return self.phase + (-1 if kind in VEHICLES else 1) * 2 * pi * turns

    def held(self, t: float) -> Held:
        """What the body does at a time; it tilts as what falls does, ever faster."""
        share = self.share(t)
        now = Held(*(a + (b - a) * share for a, b in zip(self.first, self.last, strict=True)))
        return now._replace(tilt=self.first.tilt + (self.last.tilt - self.first.tilt) * share * share)


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
        way, held, kind = leg.way(t), leg.held(t), self.look.kind
        x, y = leg.x0 + (leg.x1 - leg.x0) * way, leg.y0 + (leg.y1 - leg.y0) * way
        steps = leg.x0 != leg.x1 and leg.action in ("walking", "running", "carrying")
        stride = min(1.0, (t - leg.start_s) / 0.3, (leg.end_s - t) / 0.3) if steps else 0.0
        pose = Pose(
            x,
            y,
            size_at(kind, y) * self.bulk,
            leg.facing,
            phase=leg.phase_at(t, kind, self.bulk),
            stride=0.3 * sin(min(1.0, held.tilt)) if held.tilt else stride,
            moving=leg.action in ("driving", "riding"),
            **held._asdict(),
        )
        action = leg.action
        if action in ("falling", "rising"):  # what it looks like decides at both ends of the movement
            midway = "falling" if action == "falling" else "lying" if held.tilt > 0.9 else "standing"
            action = "standing" if held.tilt < 0.3 else "lying" if held.tilt > 1.35 else midway
        return pose, action
