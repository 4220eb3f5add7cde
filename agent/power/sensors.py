"""Rails, temperatures and throttling as the kernel tells them in sysfs. No rights and no daemon are needed.

    class/hwmon/hwmon*  name ina3221: inN_label, inN_input (mV), currN_input, currN_max (mA), currN_crit_alarm;
                        powerN_input (µW) where a monitor computes it itself
                        ocN_event_cnt: over-current events, 1 undervoltage, 2 average, 3 momentary
    class/thermal/thermal_zone*    type, temp (m°C), trip_point_N_type and _temp; a zone that is off can't be read
    class/thermal/cooling_device*  type ending in `-alert`: cur_state is above 0 while firmware throttles

Sources: Linux hwmon and thermal sysfs ABI; Jetson Linux Developer Guide, «Platform Power and Performance». Which of
these a board has is looked up once; none of it has been read on a Jetson yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MONITORS = ("ina3221", "ina238", "ina226", "ina219")
_WHOLE_BOARD = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that feed all the others: where one is there, it is the total."""
_PLAUSIBLE_TRIP_C = (40.0, 130.0)
"""Trip points outside are placeholders of firmware that has switched them off."""
_INDEX = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Rail:
    """One supply. limit_ratio: current ÷ the current at which the monitor warns, None when it has no such limit.
    alarm: the monitor says that the current is critical."""

    name: str
    watts: float
    limit_ratio: float | None = None
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class Zone:
    """One temperature. limit_c: where the kernel begins to throttle, None when the zone has no such trip point."""

    name: str
    celsius: float
    limit_c: float | None = None

    @property
    def headroom_c(self) -> float | None:
        return None if self.limit_c is None else self.limit_c - self.celsius


@dataclass(frozen=True, slots=True)
class Reading:
    """What the board says at one moment. throttled: names of what firmware holds back now. over_current: events since
    power-on by cause (`oc1`, `oc2`, `oc3`)."""

    rails: tuple[Rail, ...] = ()
    zones: tuple[Zone, ...] = ()
    throttled: tuple[str, ...] = ()
    over_current: Mapping[str, int] = field(default_factory=dict)

    @property
    def watts(self) -> float | None:
        """Power of the whole board: its input rail, else the sum of all; None when nothing is measured."""
        for rail in self.rails:
            if rail.name in _WHOLE_BOARD:
                return rail.watts
        return sum(rail.watts for rail in self.rails) if self.rails else None

    @property
    def hottest(self) -> Zone | None:
        """The zone nearest to its limit, or the warmest where none has a limit."""
        limited = [zone for zone in self.zones if zone.limit_c is not None]
        if limited:
            return min(limited, key=lambda zone: zone.headroom_c or 0.0)
        return max(self.zones, key=lambda zone: zone.celsius, default=None)


class Sensors:
    """The sensors below a sysfs root. A value that can't be read is left out of that reading."""

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        self._rails = tuple(_find_rails(sysfs))
        self._zones = tuple(_find_zones(sysfs))
        self._alerts = tuple(_find_alerts(sysfs))
        self._over_current = tuple(_find_over_current(sysfs))

    @property
    def found(self) -> bool:
        """Whether this machine has anything to read."""
        return bool(self._rails or self._zones or self._alerts or self._over_current)

    @property
    def can_guard(self) -> bool:
        """Whether anything here says that the machine comes to a limit."""
        return bool(self._rails or self._alerts or self._over_current or any(limit for _, _, limit in self._zones))

    def __str__(self) -> str:
        rails, zones = [name for name, *_ in self._rails], [name for name, *_ in self._zones]
        parts = [f"{what} {', '.join(names)}" for what, names in (("rails", rails), ("zones", zones)) if names]
        counters = len(self._alerts) + len(self._over_current)
        return "; ".join([*parts, *([f"{counters} throttling signals"] if counters else [])]) or "none"

    def read(self) -> Reading:
        """Everything at this moment: some dozen small files, a few milliseconds."""
        rails = [_read_rail(name, folder, index) for name, folder, index in self._rails]
        zones = [
            Zone(name, milli / 1e3, limit)
            for name, folder, limit in self._zones
            if (milli := _number(folder / "temp")) is not None
        ]
        return Reading(
            tuple(rail for rail in rails if rail is not None),
            tuple(zones),
            tuple(name for name, path in self._alerts if (_number(path) or 0) > 0),
            {name: count for name, path in self._over_current if (count := _number(path)) is not None},
        )


def _find_rails(sysfs: Path) -> Iterator[tuple[str, Path, int]]:
    for folder in _sorted(sysfs / "class/hwmon", "hwmon*"):
        if _text(folder / "name") not in _MONITORS:
            continue
        for label in _sorted(folder, "in*_label"):
            name, index = _text(label), int(_INDEX.findall(label.name)[0])
            unconnected = name is None or name == "NC" or name.lower().startswith("sum of shunt")
            if not unconnected and name is not None:
                yield name, folder, index


def _find_zones(sysfs: Path) -> Iterator[tuple[str, Path, float | None]]:
    for folder in _sorted(sysfs / "class/thermal", "thermal_zone*"):
        name = _text(folder / "type")
        if name is not None:
            yield name, folder, _limit(folder)


def _limit(zone: Path) -> float | None:
    """The lowest temperature at which the kernel throttles; below the critical one where there is no such point."""
    limits = {"passive": 0.0, "hot": 2.0, "critical": 5.0}
    found = []
    for path in _sorted(zone, "trip_point_*_type"):
        kind, milli = _text(path), _number(path.with_name(path.name.replace("_type", "_temp")))
        if kind in limits and milli is not None and _PLAUSIBLE_TRIP_C[0] <= milli / 1e3 <= _PLAUSIBLE_TRIP_C[1]:
            found.append(milli / 1e3 - limits[kind])
    return min(found, default=None)


def _find_alerts(sysfs: Path) -> Iterator[tuple[str, Path]]:
    for folder in _sorted(sysfs / "class/thermal", "cooling_device*"):
        name = _text(folder / "type")
        if name is not None and name.endswith("-alert"):
            yield name, folder / "cur_state"


def _find_over_current(sysfs: Path) -> Iterator[tuple[str, Path]]:
    for folder in _sorted(sysfs / "class/hwmon", "hwmon*"):
        for path in _sorted(folder, "oc*_event_cnt"):
            yield path.name.removesuffix("_event_cnt"), path


def _read_rail(name: str, folder: Path, index: int) -> Rail | None:
    micro = _number(folder / f"power{index}_input")
    milliamps = _number(folder / f"curr{index}_input")
    millivolts = _number(folder / f"in{index}_input")
    if micro is not None:
        watts = micro / 1e6
    elif milliamps is not None and millivolts is not None:
        watts = milliamps * millivolts / 1e6
    else:
        return None
    limit = _number(folder / f"curr{index}_max")
    ratio = milliamps / limit if milliamps is not None and limit else None
    return Rail(name, watts, ratio, bool(_number(folder / f"curr{index}_crit_alarm")))


def _sorted(folder: Path, pattern: str) -> list[Path]:
    """By name, numbers in their order."""
    return sorted(folder.glob(pattern), key=lambda path: [int(number) for number in _INDEX.findall(path.name)])


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # gone, switched off (EAGAIN), not ours to read
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
