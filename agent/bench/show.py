"""Reports as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

Report = Mapping[str, Any]

LEAST_FRAMES = 30
"""A clip with fewer is shown, and left out of the means."""


def render(reports: Sequence[Report]) -> RenderableType:
    """A row a clip, a mean for each content, and where there are rivals, who is faster at equal fidelity."""
    tables = [_clips(reports)]
    if any(report["ours_at_equal_fidelity"] for report in reports):
        tables.append(_rivals(reports))
    if any(report["text"] for report in reports):
        tables.append(_words(reports))
    return Group(*tables) if len(tables) > 1 else tables[0]


def by_content(reports: Sequence[Report]) -> dict[str, list[Report]]:
    """Reports of clips that are long enough to be scored, by content; pans apart."""
    found: dict[str, list[Report]] = {}
    for report in reports:
        if report["frames"] >= LEAST_FRAMES:
            found.setdefault(report["content"] + (", panned" if report["pan"] else ""), []).append(report)
    return found


def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _clips(reports: Sequence[Report]) -> Table:
    table = Table("clip", "frames", "full ms", "ours ms", "speed-up", "of bound", "fidelity", "p5", "skill", "decoder")
    table.add_column("modes")
    for report in reports:
        table.add_row(
            Path(report["clip"]).name,
            str(report["frames"]),
            f"{report['full_ms']['mean']:.1f}",
            f"{report['temporal_ms']['mean']:.1f}",
            *_scores([report]),
            " ".join(f"{name} {count}" for name, count in report["modes"].items()),
        )
    for content, same in by_content(reports).items():
        if len(same) > 1:
            table.add_row(f"{content}, mean", str(sum(r["frames"] for r in same)), "", "", *_scores(same), "")
    return table


def _scores(reports: Sequence[Report]) -> Iterator[str]:
    """Speed-up, efficiency, fidelity, p5, skill and token reduction: means over clips, geometric where they are
    ratios."""
    yield f"{geometric_mean([r['speedup'] for r in reports]):.2f}×"
    bounds = [r["efficiency"] for r in reports if r["efficiency"] is not None]
    yield f"{geometric_mean(bounds):.0%}" if bounds else "–"
    yield f"{np.mean([r['fidelity']['mean'] for r in reports]):.4f}"
    yield f"{np.mean([r['fidelity']['p5'] for r in reports]):.4f}"
    skills = [r["skill"] for r in reports if r["skill"] is not None]
    yield f"{np.mean(skills):.2f}" if skills else "–"
    reductions = [r["tokens"]["reduction"] for r in reports if r["tokens"]["reduction"] is not None]
    yield f"{geometric_mean(reductions):.0f}×" if reductions else "–"


def _rivals(reports: Sequence[Report]) -> Table:
    names = list(dict.fromkeys(name for report in reports for name in report["ours_at_equal_fidelity"]))
    table = Table("speed-up at our mean, at our p5", "ours", *names, "all beaten")
    rows = {Path(report["clip"]).name: [report] for report in reports}
    rows |= {f"{content}, mean": same for content, same in by_content(reports).items() if len(same) > 1}
    for row, same in rows.items():
        ours = geometric_mean([r["speedup"] for r in same])
        theirs = {
            key: [geometric_mean([r["ours_at_equal_fidelity"][name][key]["speedup"] for r in same]) for name in names]
            for key in ("mean", "p5")
        }
        beaten = ["yes" if all(ours > other for other in others) else "no" for others in theirs.values()]
        pairs = zip(*theirs.values(), strict=True)
        table.add_row(row, f"{ours:.2f}×", *(f"{a:.2f}×, {b:.2f}×" for a, b in pairs), ", ".join(beaten))
    return table


def _words(reports: Sequence[Report]) -> Table:
    table = Table("clip", "asked at", "same description", "right: full, ours", "answers flipped", "right: full, ours")
    for report in reports:
        told = report["text"]
        if told:
            table.add_row(
                Path(report["clip"]).name,
                f"{told['frames']} frames",
                f"{told['exact_match']:.1%}",
                _right(told["captions_right"]),
                f"{told['flipped']:.1%} of {told['answers']}",
                _right(told["answers_right"]),
            )
    return table


def _right(right: Mapping[str, float] | None) -> str:
    return f"{right['full']:.1%}, {right['ours']:.1%}" if right else "–"
