"""What a back-test looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from agent.rules.backtest import RuleReport
from agent.rules.truth import Agreement


def table(reports: Sequence[RuleReport]) -> Table:
    """A row for each rule; what is true stands beside it where that is known."""
    shown = Table(title=None)
    for column in ("rule", "asked", "alerts", "first, s", "right", "missed", "false", "precision", "recall", "propose"):
        shown.add_column(column, justify="left" if column == "rule" else "right")
    for report in reports:
        episodes, agreement = report.episodes, report.agreement()
        right, missed, false = ("–",) * 3 if episodes is None else map(str, episodes)
        shown.add_row(
            report.rule.name,
            f"{report.asked} of {len(report.answers)}",
            str(len(report.alerts)),
            f"{report.alerts[0][0]:.1f}" if report.alerts else "–",
            right,
            missed,
            false,
            _share(agreement, "precision"),
            _share(agreement, "recall"),
            "–" if report.proposed is None else f"{report.proposed:g}",
        )
    return shown


def lines(report: RuleReport) -> list[str]:
    """When the rule would have fired."""
    return [
        f"{report.rule.name}: {_clock(start)} to {_clock(end)}, {highest:.0%} sure"
        for start, end, highest in report.alerts
    ]


def _share(agreement: Agreement | None, which: str) -> str:
    share = None if agreement is None else getattr(agreement, which)
    return "–" if share is None else f"{share:.2f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"
