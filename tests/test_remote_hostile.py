"""Whatever arrives on `config/desired`: each gets its code, and none changes what runs unless it should."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest
from remote_hostile import BASE, KINDS, SECRET, history, hostile
from remote_world import NEXT, OPS, Box, document

FEW, ALL = 20 * len(KINDS), 10_000
SEED = int(os.environ.get("STILLWATCH_SEED", "7"))


@pytest.mark.parametrize("count", [FEW, pytest.param(ALL, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_hostile_documents_get_their_codes_and_change_nothing(tmp_path: Path, count: int) -> None:
    box = Box(tmp_path, keys=OPS.line + NEXT.line)
    for payload in history():
        assert box.send(payload)[-1].state == "applied"
    before, running = box.applier.state, box.reports[-1].running
    met: set[str] = set()
    for number, attack in enumerate(islice(hostile(SEED, box.now), count)):
        reports = box.send(attack.payload)
        told = [(report.state, report.code) for report in reports]
        assert told == [("applied" if attack.code == 200 else "rejected", attack.code)], (attack, reports)
        assert box.applier.state == before, attack
        assert (reports[0].running, reports[0].highest) == (running, BASE)
        assert SECRET not in reports[0].model_dump_json()
        assert len(reports[0].model_dump_json()) < 20_000
        met.add(attack.kind)
        if number % 1000 == 0:
            box.restart()
    assert met == set(KINDS)
    assert box.send(OPS.seal(document(BASE + 1)))[-1].state == "applied"
