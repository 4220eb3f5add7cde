"""Calling `stillwatch` within the process of the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from agent.cli import main


class Outcome(NamedTuple):
    """What one call of the command came to."""

    status: int
    out: str
    err: str


Call = Callable[..., Outcome]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *command: str) -> Call:
    """Calls `stillwatch COMMAND ARGUMENTS`."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["stillwatch", *command, *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return Outcome(status, said.out, said.err)

    return call
