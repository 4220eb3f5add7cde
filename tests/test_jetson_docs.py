"""docs/jetson.md names tests and metrics as proof: they are there."""

from __future__ import annotations

import re
from pathlib import Path

from agent.metrics import Metrics
from agent.power.policy import LADDER

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/jetson.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_as_proof_exists() -> None:
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))
    assert [name for name in sorted(files) if not (ROOT / name).is_file()] == []
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(tests) > 20
    assert [name for name in sorted(tests) if f"def {name}(" not in sources] == []


def test_every_documented_trap_has_a_test_that_is_where_it_is_said_to_be() -> None:
    """A row names a file after the tests that are in it; those before any file are in test_traps.py."""
    table = PAGE[PAGE.index("Known traps of the libraries") :]
    numbers, missing = [], []
    for row in re.findall(r"^\| ([\d, ]*) ?\| (.*?) \| (.*?) \| (.*) \|$", table, re.MULTILINE):
        found = [int(number) for number in re.findall(r"\d+", row[0])]
        numbers += found
        waiting: list[str] = []
        homes: dict[str, str] = {}
        for part in row[3].split(";"):
            waiting = re.findall(r"`(test_\w+)`", part)
            file = re.search(r"`(tests/[\w/]+\.py)`", part)
            homes.update(dict.fromkeys(waiting, file[1] if file else "tests/jetson/test_traps.py"))
        missing += [row[1]] if found and not homes else []
        missing += [
            f"{name} in {file}"
            for name, file in homes.items()
            if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
        ]
    assert sorted(numbers) == list(range(1, 31)) and missing == []


def test_every_metric_of_power_is_one_that_is_told() -> None:
    told = {sample.name for family in Metrics("0").registry.collect() for sample in family.samples} | {
        f"{family.name}{'_total' * (family.type == 'counter')}" for family in Metrics("0").registry.collect()
    }
    named = set(re.findall(r"^\| `(stillwatch_\w+)` \|", PAGE, re.MULTILINE))
    assert named and named <= told


def test_the_ladder_is_the_one_that_is_climbed() -> None:
    rows = re.findall(r"^\| (\d) \| (all|half|a quarter) \|", PAGE, re.MULTILINE)
    shares = {"all": 1.0, "half": 0.5, "a quarter": 0.25}
    assert [(int(step), shares[frames]) for step, frames in rows] == [
        (step, rung.frames) for step, rung in enumerate(LADDER)
    ]
