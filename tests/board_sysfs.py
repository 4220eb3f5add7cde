"""A sysfs tree as a Jetson Orin NX has it, in a folder: what tests of power and heat read."""

from __future__ import annotations

from pathlib import Path


class Board:
    """celsius, alert, oc2: written to the tree when set by the methods of the same name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for index, (name, millivolts, milliamps) in enumerate(
            [("VDD_IN", 19_000, 800), ("VDD_CPU_GPU_CV", 19_000, 200), ("NC", 0, 0), ("Sum of shunt voltages", 9, 9)], 1
        ):
            self.write(f"class/hwmon/hwmon1/in{index}_label", name)
            self.write(f"class/hwmon/hwmon1/in{index}_input", millivolts)
            self.write(f"class/hwmon/hwmon1/curr{index}_input", milliamps)
            self.write(f"class/hwmon/hwmon1/curr{index}_max", 4000)
            self.write(f"class/hwmon/hwmon1/curr{index}_crit_alarm", 0)
        self.write("class/hwmon/hwmon1/name", "ina3221")
        self.write("class/hwmon/hwmon0/name", "pwmfan")
        self.write("class/hwmon/hwmon3/name", "soctherm_oc")
        for cause in ("oc1", "oc2", "oc3"):
            self.over_current(cause, 0)
        for index, (name, celsius) in enumerate([("cpu-thermal", 51.0), ("tj-thermal", 52.5)]):
            self.write(f"class/thermal/thermal_zone{index}/type", name)
            self.celsius(index, celsius)
            for trip, (kind, at) in enumerate([("active", 60_000), ("passive", 99_000), ("critical", 104_500)]):
                self.write(f"class/thermal/thermal_zone{index}/trip_point_{trip}_type", kind)
                self.write(f"class/thermal/thermal_zone{index}/trip_point_{trip}_temp", at)
        (root / "class/thermal/thermal_zone2/temp").mkdir(parents=True)  # a zone that is off: reading it fails
        self.write("class/thermal/thermal_zone2/type", "cv0-thermal")
        for index, (name, state) in enumerate([("pwm-fan", 3), ("gpu-throttle-alert", 0)]):
            self.write(f"class/thermal/cooling_device{index}/type", name)
            self.write(f"class/thermal/cooling_device{index}/cur_state", state)

    def celsius(self, zone: int, celsius: float) -> None:
        self.write(f"class/thermal/thermal_zone{zone}/temp", round(celsius * 1000))

    def alert(self, state: int) -> None:
        self.write("class/thermal/cooling_device1/cur_state", state)

    def over_current(self, cause: str, count: int) -> None:
        self.write(f"class/hwmon/hwmon3/{cause}_event_cnt", count)

    def amps(self, amps: float) -> None:
        """Of the board's input rail."""
        self.write("class/hwmon/hwmon1/curr1_input", round(amps * 1000))

    def write(self, path: str, value: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
