"""scripts/soak: what it counts and how it judges; half a minute of it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

import pytest
from faults_world import ROOT
from mqtt_world import needs_mosquitto

from scripts.soaking.arrivals import Accepted, Tally
from scripts.soaking.process import Sample
from scripts.soaking.slopes import Growth

T0 = datetime(2026, 3, 14, 6, 0, tzinfo=timezone.utc)


def telling(seq: int, name: str | None = None, kind: str = "new") -> tuple[datetime, dict[str, Any]]:
    event = {"camera": "front", "seq": seq, "id": name or f"id-{seq}", "type": kind, "kind": "anomaly"}
    seen = T0.isoformat().replace("+00:00", "Z")
    return T0 + timedelta(milliseconds=250), {**event, "frame_ts": seen, "replayed": False}


@pytest.mark.parametrize(
    ("arrived", "lost", "again", "duplicates", "disordered"),
    [
        pytest.param([1, 2, 3], 0, 0, 0, 0, id="all"),
        pytest.param([1, 3], 1, 0, 0, 0, id="one is missing"),
        pytest.param([1, 2, 2, 3], 0, 1, 0, 0, id="delivered again"),
        pytest.param([1, 3, 2], 0, 0, 0, 1, id="out of order"),
    ],
)
def test_what_is_counted(arrived: list[int], lost: int, again: int, duplicates: int, disordered: int) -> None:
    accepted = Accepted({"front": 4}, frozenset({("front", 4)}))
    tally = Tally.of(accepted, [telling(seq) for seq in arrived])
    assert (tally.lost, tally.again, tally.duplicates, tally.disordered) == (lost, again, duplicates, disordered)
    assert tally.waiting == 1
    assert {took for _, took in tally.latencies} == {250.0}


@pytest.mark.parametrize(
    "twice",
    [
        pytest.param([telling(1), telling(1, "another")], id="one number, two events"),
        pytest.param([telling(1, "same"), telling(2, "same")], id="one event, told as new twice"),
    ],
)
def test_what_dedupe_does_not_catch_is_a_duplicate(twice: list[tuple[datetime, dict[str, Any]]]) -> None:
    assert Tally.of(Accepted({"front": len(twice)}, frozenset()), twice).duplicates == 1


def test_growth_is_seen_over_lives_that_start_at_different_levels() -> None:
    random = Random(3)
    samples = [
        Sample(life, float(at_s), level + 5 * at_s / 3600 + random.gauss(0, 0.2), 40, 20)
        for life, level in ((1, 300.0), (2, 250.0), (3, 400.0))
        for at_s in range(0, 1800, 10)
    ]
    growth = Growth.of(samples, 300)
    assert growth.resident_mb is not None and growth.descriptors is not None
    assert growth.resident_mb.per_hour == pytest.approx(5, abs=4 * growth.resident_mb.error)
    assert growth.resident_mb.error < 0.2
    assert growth.descriptors.per_hour == 0
    assert growth.hours == pytest.approx(3 * 1490 / 3600)


@needs_mosquitto
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_half_a_minute_with_everything_loses_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [str(ROOT / "scripts/soak"), "--hours", "0.009", "--seed", "1", "--out", str(report)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(report.read_text())
    assert told["failures"] == [] and told["events"]["lost"] == told["events"]["duplicates"] == 0
    assert told["events"]["received"] > 3 and len(told["faults"]) > 3
