"""When to do less, and how much less: one rung of a ladder at a time, down again only after a quiet time.

A rung is climbed when a zone is within `near_c` of where the kernel throttles, when firmware throttles already, or when
a rail is over its limit, and this has held for `up_after_s` since the last step: what was done then must show first.
It is left when every zone is `far_c` away and nothing else is wrong for `down_after_s`. Momentary over-current (`oc3`)
is counted and told, but no reason to do less: boards report it under any load that begins suddenly.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.power.sensors import Reading
from config.errors import ConfigError

_LASTING = ("oc1", "oc2")
"""Over-current that a lasting load causes: undervoltage and average current."""
_RELAXED_RATIO = 0.9


@dataclass(frozen=True, slots=True)
class Rung:
    """What a camera may use. frames: share of the frames that are looked at. detail: share of the grid that a frame may
    encode, None = as the planner likes. words_every_s: least time between descriptions of a camera."""

    frames: float = 1.0
    detail: float | None = None
    words_every_s: float = 0.0

    def __str__(self) -> str:
        parts = [
            f"{self.frames:.0%} of the frames" if self.frames < 1 else "",
            f"detail of at most {self.detail:.0%} of the grid" if self.detail is not None else "",
            f"words at most every {self.words_every_s:g} s" if self.words_every_s else "",
        ]
        return ", ".join(part for part in parts if part) or "everything"


LADDER = (
    Rung(),
    Rung(frames=0.5),
    Rung(frames=0.5, detail=0.25),
    Rung(frames=0.5, detail=0.25, words_every_s=60.0),
    Rung(frames=0.25, detail=0.25, words_every_s=300.0),
)
"""Frame rate first: it costs least of what people see. Then level of detail, then words."""


@dataclass(frozen=True, slots=True)
class Limits:
    """near_c, far_c: headroom in kelvin at which less, and again more, is done. up_after_s, down_after_s: how long that
    must have been so. Raises ConfigError when the two would chase each other."""

    near_c: float = 5.0
    far_c: float = 10.0
    up_after_s: float = 10.0
    down_after_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.near_c < self.far_c:
            raise ConfigError(f"power.far_c: found {self.far_c:g}, expected more than near_c ({self.near_c:g})")
        if not 0 < self.up_after_s <= self.down_after_s:
            raise ConfigError(
                f"power.down_after_s: found {self.down_after_s:g}, expected up_after_s ({self.up_after_s:g}) or more"
            )


@dataclass(frozen=True, slots=True)
class Decision:
    """step: index into `LADDER`. reason: what made it climb last, in words; empty on the ground."""

    step: int = 0
    reason: str = ""

    @property
    def rung(self) -> Rung:
        return LADDER[self.step]


class PowerPolicy:
    """Readings in, a decision out; no clock and no files of its own."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._decision = Decision()
        self._pressed_since: float | None = None
        self._relaxed_since: float | None = None
        self._counts: dict[str, int] = {}

    def process(self, reading: Reading, now_s: float) -> Decision:
        """One reading at a time that only rises; call it about once a second."""
        pressure, relaxed = self._judge(reading)
        self._pressed_since = _since(self._pressed_since, bool(pressure), now_s)
        self._relaxed_since = _since(self._relaxed_since, relaxed, now_s)
        step, limits = self._decision.step, self._limits
        if self._pressed_since is not None and now_s - self._pressed_since >= (limits.up_after_s if step else 0.0):
            self._step(min(step + 1, len(LADDER) - 1), pressure, now_s)
        elif self._relaxed_since is not None and step and now_s - self._relaxed_since >= limits.down_after_s:
            self._step(step - 1, self._decision.reason, now_s)
        return self._decision

    def _step(self, step: int, reason: str, now_s: float) -> None:
        self._decision = Decision(step, reason if step else "")
        self._pressed_since = _since(None, self._pressed_since is not None, now_s)
        self._relaxed_since = _since(None, self._relaxed_since is not None, now_s)

    def _judge(self, reading: Reading) -> tuple[str, bool]:
        """Why less must be done, empty for no reason; and whether more could be."""
        limits, reasons = self._limits, []
        hottest = reading.hottest
        headroom = None if hottest is None else hottest.headroom_c
        if hottest is not None and headroom is not None and headroom < limits.near_c:
            reasons.append(f"{hottest.name} at {hottest.celsius:.0f} °C, throttled from {hottest.limit_c:.0f} °C")
        if reading.throttled:
            reasons.append(f"firmware throttles: {', '.join(reading.throttled)}")
        lasting = {name: reading.over_current[name] for name in _LASTING if name in reading.over_current}
        risen = [name for name, count in lasting.items() if count > self._counts.get(name, count)]
        self._counts = lasting
        if risen:
            reasons.append(f"the supply is overloaded ({', '.join(risen)})")
        for rail in reading.rails:
            if rail.alarm or (rail.limit_ratio or 0.0) > 1:
                reasons.append(f"rail {rail.name} is over its current limit at {rail.watts:.1f} W")
        cool = headroom is None or headroom >= limits.far_c
        calm = all((rail.limit_ratio or 0.0) <= _RELAXED_RATIO for rail in reading.rails)
        return "; ".join(reasons), cool and calm and not reasons


def _since(before: float | None, holds: bool, now_s: float) -> float | None:
    return None if not holds else now_s if before is None else before
