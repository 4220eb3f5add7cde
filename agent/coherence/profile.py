"""Where time goes, frame after frame: a histogram of each stage that never grows.

Buckets are an eighth of a doubling apart, from a microsecond to two minutes, so a quantile is at most 5 % off whatever
the distribution. Keeping every duration, as profilers do that run for a minute, would take a camera at 30 frames a
second 60 MB a day; a reservoir would lose the rare slow frame, which is the one that is looked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rich.table import Table

WHOLE = "frame"
"""What reports call the sum of all stages."""

_PER_DOUBLING = 8
_FIRST, _LAST = -10, 17
"""Powers of two, in milliseconds, that the buckets lie between; what is shorter or longer counts in the outermost."""
_BUCKETS = (_LAST - _FIRST) * _PER_DOUBLING


@dataclass(frozen=True, slots=True)
class Times:
    """Durations of one stage. p50, p95: at most 5 % off."""

    count: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    max_ms: float


class Histogram:
    """Durations in milliseconds."""

    __slots__ = ("_counts", "_max", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._sum = self._max = 0.0

    def add(self, ms: float) -> None:
        bucket = int((math.log2(ms) - _FIRST) * _PER_DOUBLING) if ms > 0.001 else 0
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self._sum += ms
        if ms > self._max:
            self._max = ms

    @property
    def sum_ms(self) -> float:
        return self._sum

    def times(self) -> Times:
        counts = self._counts.copy()
        count = sum(counts)
        mean = self._sum / count if count else 0.0
        return Times(count, mean, self._quantile(counts, 0.5), self._quantile(counts, 0.95), self._max)

    def up_to(self, powers: range) -> list[int]:
        """How many durations lie below 2**power ms, for each of these powers."""
        counts = self._counts.copy()
        return [sum(counts[: max(0, (power - _FIRST) * _PER_DOUBLING)]) for power in powers]

    def _quantile(self, counts: list[int], share: float) -> float:
        """The middle of the bucket in which so many of the durations have come by."""
        left = share * sum(counts)
        for bucket, count in enumerate(counts):
            left -= count
            if count and left <= 0:
                return float(min(self._max, 2.0 ** ((bucket + 0.5) / _PER_DOUBLING + _FIRST)))
        return 0.0


class Profile:
    """Histograms of one camera: `frame` for all of it, and one a stage. One thread adds, any may read: what it reads is
    at most a frame behind."""

    def __init__(self) -> None:
        self.frame = Histogram()
        self._stages: dict[str, Histogram] = {}

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """Milliseconds by stage of one frame."""
        total = 0.0
        for stage, ms in stages_ms.items():
            histogram = self._stages.get(stage)
            if histogram is None:
                histogram = self._stages[stage] = Histogram()
            histogram.add(ms)
            total += ms
        self.frame.add(total)

    def histograms(self) -> dict[str, Histogram]:
        """By stage, in the order in which they first came."""
        return self._stages.copy()

    def report(self) -> dict[str, dict[str, float]]:
        """`Times` by stage and of the whole frame, for JSON."""
        return {stage: asdict(each.times()) for stage, each in [*self.histograms().items(), (WHOLE, self.frame)]}


def table(report: Mapping[str, Mapping[str, float]]) -> Table:
    """A `Profile.report` for people: a row a stage, the whole frame last."""
    made = Table("stage")
    for name in ("frames", "mean ms", "p50", "p95", "max", "share"):
        made.add_column(name, justify="right")
    whole_ms = _sum_ms(report[WHOLE]) or 1.0
    for stage, times in report.items():
        values = (f"{times[key]:.2f}" for key in ("mean_ms", "p50_ms", "p95_ms", "max_ms"))
        made.add_row(stage, f"{times['count']:.0f}", *values, f"{_sum_ms(times) / whole_ms:.0%}")
    return made


def _sum_ms(times: Mapping[str, float]) -> float:
    return times["mean_ms"] * times["count"]
