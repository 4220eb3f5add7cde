"""A document on its way to a box, and what the box says of it, as lines for an operator."""

from __future__ import annotations

import json

import typer

from agent.remote.documents import Reported, SignedDocument
from agent.remote.operating import Operator
from config.errors import BrokerError, ConfigError

_FIRST_S = 20.0
_MARGIN_S = 120.0
_COUNTED = 10**9


def send(operator: Operator, payload: bytes, document: SignedDocument, *, wait: bool, timeout: float | None) -> None:
    """A check is not kept by the broker: it would take the place of what the box is to be."""
    check = document.mode == "check"
    name = json.loads(payload)["id"]
    operator.publish(payload, retain=not check)
    typer.echo(f"version {document.version} sent as {name}")
    if not (wait or check):
        return
    all_s = timeout or document.probation_s + _MARGIN_S
    for report in operator.reports(name, first_s=min(_FIRST_S, all_s), all_s=all_s):
        typer.echo(line(report))
        for problem in report.errors:
            typer.echo(f"  {problem.path}: {problem.msg}" if problem.path else f"  {problem.msg}", err=True)
        if report.state == "checked":
            for change in report.diff:
                typer.echo(f"  {change.path}: {shown(change.before)} -> {shown(change.after)}")
            typer.echo(f"  restarts: {', '.join(report.restarts) or 'nothing'}")
        if report.code >= 400:
            raise typer.Exit(1)


def line(report: Reported) -> str:
    """`version 3 applied (200)`."""
    what = "" if report.version is None else f"version {report.version} "
    return f"{what}{report.state} ({report.code})" + (f": {report.reason}" if report.reason else "")


def status_lines(operator: Operator, report: Reported) -> list[str]:
    """What runs, what ran before, what became of the last document, and which one the broker holds."""
    lines = [
        f"box      {operator.availability or 'never seen'}",
        f"running  version {report.running.version}: {shown(report.running.config)}",
    ]
    if report.previous is not None:
        lines.append(f"before   version {report.previous.version}: {shown(report.previous.config)}")
    lines.append(f"last     {line(report)}")
    desired = operator.desired
    if desired is None:
        return [*lines, "desired  nothing is at the broker"]
    taken = "told of above" if desired.id == report.id else "not taken up by the box"
    by = "nobody" if desired.sig is None else desired.sig.kid
    return [*lines, f"desired  {desired.id}, signed by {by}: {taken}"]


def shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def report_of(operator: Operator) -> Reported:
    if operator.reported is None:
        raise BrokerError("this box has never reported its configuration; does it run, with `remote:` in its file?")
    return operator.reported


def next_version(operator: Operator) -> int:
    """One above what the box says. What it says comes from the broker: somebody there could have us sign the last
    version that there is, and no further one would ever be taken."""
    highest = report_of(operator).highest
    if highest >= _COUNTED:
        raise ConfigError(f"the broker tells of version {highest}, which nobody reaches by counting; give --version")
    return highest + 1
