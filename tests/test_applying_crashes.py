"""Killed at each step of an apply, and at random: what comes back is the old configuration or the new, whole, and says
which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
KILLS = int(os.environ.get("STILLWATCH_KILLS", "200"))


def crashing(*runs: tuple[Path, str, int, int]) -> list[dict[str, int]]:
    """Counts of what kills left, of runs side by side."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    started = [
        subprocess.Popen(
            [sys.executable, str(TESTS / "applying_crashing.py"), *map(str, run)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for run in runs
    ]
    counts = []
    for process in started:
        out, err = process.communicate()
        assert process.returncode == 0, err
        counts.append(json.loads(out.splitlines()[-1]))
    return counts


@pytest.mark.timeout(300)
def test_killed_at_some_steps_it_is_the_old_or_the_new(tmp_path: Path) -> None:
    (count,) = crashing((tmp_path / "a", "steps", 11, 5))
    assert count["old"] >= 2 and sum(count.values()) >= 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_before_each_step_it_is_the_old_or_the_new(tmp_path: Path) -> None:
    for count in crashing((tmp_path / "a", "steps", 2, 0), (tmp_path / "b", "steps", 2, 1)):
        assert count["old"] >= 10 and count["new"] >= 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_it_is_the_old_or_the_new(tmp_path: Path) -> None:
    half = (KILLS + 1) // 2
    counts = crashing((tmp_path / "a", "random", half, 1), (tmp_path / "b", "random", half, 2))
    assert sum(sum(count.values()) for count in counts) >= KILLS * 0.6  # some die before they have said what they found
