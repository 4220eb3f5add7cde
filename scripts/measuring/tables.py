"""Reports of the benchmark as tables in Markdown; no lines where nothing was measured."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.bench import NAMES
from agent.bench.show import geometric_mean

Report = Mapping[str, Any]
Rows = Mapping[str, Sequence[Report]]
"""Reports by the name of their row. A report also says whether it is `scored`, and whether training has `seen` the
clip."""


def machine(threads: int) -> list[str]:
    """What it was measured on."""
    names = re.findall(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return [f"{names[0] if names else platform.processor()}, {threads} threads, Python {platform.python_version()}."]


def contents(rows: Rows) -> list[str]:
    """A line for each kind of content."""
    table = _Table("content", "floor", "clips", "speed-up", "not trained on", "slowest clip", "bound", "efficiency")
    table.add_columns("fidelity, p5", "skill", "where the anchor is stale", "decoder tokens reduced")
    for name, reports in rows.items():
        same = _scored(reports)
        fidelities = [r["fidelity"] for r in same]
        table.add(
            name,
            f"{same[0]['fidelity_floor']:g}",
            str(len(same)),
            _ratio([r["speedup"] for r in same]),
            _ratio([r["speedup"] for r in same if not r["seen"]]),
            f"{min(r['speedup'] for r in same):.2f}×",
            _ratio([r["bound"] for r in same]),
            _ratio([r["efficiency"] for r in same]).removesuffix("×"),
            ", ".join(f"{np.mean([f[key] for f in fidelities]):.4f}" for key in ("mean", "p5")),
            _mean([r["skill"] for r in same]),
            _mean([r["skill_where_stale"] for r in same]),
            _ratio([r["tokens"]["reduction"] for r in same]),
        )
    return table.lines


def rivals(rows: Rows) -> list[str]:
    """Speed-ups at our mean fidelity and at our p5."""
    names = [name for name in NAMES if name != "full"]
    table = _Table("content", "Stillwatch", *names)
    for content, reports in rows.items():
        same = _scored(reports)
        at_equal = {name: [r["ours_at_equal_fidelity"][name] for r in same] for name in names}
        theirs = [
            ", ".join(_ratio([point[key]["speedup"] for point in points]) for key in ("mean", "p5"))
            for points in at_equal.values()
        ]
        table.add(content, _ratio([r["speedup"] for r in same]), *theirs)
    return table.lines


def clips(rows: Rows) -> list[str]:
    """A line for each clip."""
    table = _Table("clip", "pan", "trained on", "frames", "speed-up", "bound", "fidelity, p5, lowest", "p5 of tokens")
    table.add_columns("blended", "skill", "where stale", "copy of the last frame", "decoder tokens reduced")
    for r in (r for reports in rows.values() for r in reports):
        table.add(
            _name(r) + ("" if r["scored"] else " (not scored)"),
            "" if r["pan"] is None else "{:g},{:g}".format(*r["pan"]),
            "yes" if r["seen"] else "no",
            str(r["frames"]),
            _ratio([r["speedup"]]),
            _ratio([r["bound"]]),
            ", ".join(f"{r['fidelity'][key]:.4f}" for key in ("mean", "p5", "min")),
            f"{r['fidelity']['token_p5']:.4f}",
            f"{r['fidelity_ema']['mean']:.4f}",
            _mean([r["skill"]]),
            _mean([r["skill_where_stale"]]),
            _mean([r["copy_last_fidelity"]], 4),
            _ratio([r["tokens"]["reduction"]]),
        )
    return table.lines


def floors(rows: Rows) -> list[str]:
    """Whether a floor holds by itself, over all clips."""
    table = _Table("floor", "clips", "speed-up", "mean of all", "lowest clip", "clips more than 0.005 below")
    for floor, reports in rows.items():
        means = [r["fidelity"]["mean"] for r in reports]
        lowest = int(np.argmin(means))
        table.add(
            floor,
            str(len(means)),
            _ratio([r["speedup"] for r in reports]),
            f"{np.mean(means):.4f}",
            f"{means[lowest]:.4f} {_name(reports[lowest])}",
            str(sum(mean < float(floor) - 0.005 for mean in means)),
        )
    return table.lines


def ablations(rows: Rows) -> list[str]:
    """What the means over the same clips become without a part."""
    table = _Table("", "speed-up", "tokens a frame", "fidelity", "p5", "blended", "skill")
    for name, reports in rows.items():
        fidelities = [r["fidelity"] for r in reports]
        table.add(
            name,
            _ratio([r["speedup"] for r in reports]),
            f"{np.mean([r['tokens']['encoded_per_s'] / r['fps'] for r in reports]):.1f}",
            *(f"{np.mean([f[key] for f in fidelities]):.4f}" for key in ("mean", "p5")),
            f"{np.mean([r['fidelity_ema']['mean'] for r in reports]):.4f}",
            _mean([r["skill"] for r in reports]),
        )
    return table.lines


def words(reports: Sequence[Report]) -> list[str]:
    """What is said, and when."""
    table = _Table("scene", "same description", "right: full, ours", "answers flipped", "right: full, ours")
    table.add_columns("events: full, ours, both", "later by: mean, most")
    for r in reports:
        told, events = r["text"], r["events"]
        table.add(
            _name(r),
            f"{told['exact_match']:.1%} of {told['frames']}",
            ", ".join(f"{right:.1%}" for right in told["captions_right"].values()),
            f"{told['flipped']:.1%} of {told['answers']}",
            ", ".join(f"{right:.1%}" for right in told["answers_right"].values()),
            f"{events['full']}, {events['ours']}, {events['matched']}",
            "–" if events["late_s"] is None else f"{events['late_s']:+.2f} s, {events['largest_s']:.2f} s",
        )
    return table.lines


class _Table:
    def __init__(self, *columns: str) -> None:
        self._columns, self._rows = list(columns), list[tuple[str, ...]]()

    def add_columns(self, *columns: str) -> None:
        self._columns += columns

    def add(self, *cells: str) -> None:
        self._rows.append(cells)

    @property
    def lines(self) -> list[str]:
        rows = [self._columns, ["---"] * len(self._columns), *self._rows] if self._rows else []
        return ["| " + " | ".join(cells) + " |" for cells in rows]


def _scored(reports: Sequence[Report]) -> list[Report]:
    return [r for r in reports if r["scored"]]


def _name(report: Report) -> str:
    return f"`{report['clip'].rpartition('/')[2]}`"


def _ratio(values: Sequence[float | None]) -> str:
    """Geometric mean."""
    known = [value for value in values if value is not None]
    return f"{geometric_mean(known):.2f}×" if known else "–"


def _mean(values: Sequence[float | None], digits: int = 2) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.{digits}f}" if known else "–"
