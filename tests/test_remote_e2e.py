"""A real agent on a rendered camera, configured over a real broker: by its owner, by strangers, and through a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from mqtt_world import TOPICS, Subscriber, needs_mosquitto, until, watched
from remote_hostile import BASE, KINDS, history, hostile
from remote_world import NEXT, OPS, document

from agent.mqtt.broker import LocalBroker
from agent.remote.documents import Reported

ROOT = Path(__file__).parents[1]
pytestmark = [needs_mosquitto, pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`stillwatch run` in this folder; killed at the end, if it still runs."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "run", "--config", "agent.yaml"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
    try:
        with watched(process, folder / "log"):
            yield process
    finally:
        process.kill()
        process.wait()


class Watcher:
    """What the box has said, and what it has on disk."""

    def __init__(self, subscriber: Subscriber, folder: Path) -> None:
        self._subscriber, self._folder = subscriber, folder

    def reports(self) -> list[Reported]:
        return [Reported.model_validate_json(m.payload) for m in self._subscriber.on(TOPICS.reported) if m.payload]

    def send(self, payload: bytes, *states: str, retain: bool = True) -> Reported:
        """Publish, and wait for a report in one of these states."""
        before = len(self.reports())
        self._subscriber.publish(TOPICS.desired, payload, retain=retain)
        return self.next(before, *states)

    def next(self, before: int, *states: str) -> Reported:
        until(lambda: [r for r in self.reports()[before:] if r.state in states], f"one of {states}")
        return next(r for r in self.reports()[before:] if r.state in states)

    @property
    def committed(self) -> Any:
        kept = json.loads((self._folder / "state/config/committed.json").read_text())
        return kept["version"], kept["overlay"]


def test_owner_strangers_and_a_crash(tmp_path: Path) -> None:
    (tmp_path / "box.keys").write_text(OPS.line + NEXT.line)
    with LocalBroker() as broker, Subscriber(broker.port, topic=f"{TOPICS.base}/config/reported") as seen:
        settings = {
            "device": {"id": "box"},
            "mqtt": {"url": broker.url},
            "remote": {"keys": "box.keys", "groups": ["north"]},
            "cameras": {"front": {"source": "scene:street?seed=7&fps=5&width=320&height=180"}},
        }
        (tmp_path / "agent.yaml").write_text(json.dumps(settings))
        box = Watcher(seen, tmp_path)
        seen.publish(TOPICS.desired, history()[-1], retain=True)
        with running(tmp_path) as process:
            told = box.next(0, "applied", "rejected", "rolled_back")  # what the broker had kept
            assert (told.state, told.version) == ("applied", BASE)
            known = box.committed
            for attack in islice(hostile(13, datetime.now(timezone.utc)), 2 * len(KINDS)):
                state = "applied" if attack.code == 200 else "rejected"
                told = box.send(attack.payload, "applied", "rejected", "staged", retain=False)
                assert (told.state, told.code) == (state, attack.code), attack
                assert box.committed == known
            fewer = {"cameras": {"front": {"fps": 2}}}
            good = OPS.seal(document(10, fewer, mode="replace", probation_s=3), "good")
            assert box.send(good, "applied", "rejected", "rolled_back").state == "applied"
            assert box.committed == (10, fewer)
            starving = OPS.seal(document(11, {"cameras": {"front": {"fps": 0.01}}}, probation_s=12), "starving")
            told = box.send(starving, "applied", "rejected", "rolled_back")
            assert (told.state, told.code, told.running.version) == ("rolled_back", 422, 10)
            assert "gave frames before and gives none now" in told.reason
            box.send(OPS.seal(document(12, {"profile": "sports"}, probation_s=300), "killed"), "probation")
            process.kill()
            process.wait()
        before = len(box.reports())
        with running(tmp_path) as process:
            told = box.next(before, "rolled_back", "applied")
            assert (told.id, told.version, told.code) == ("killed", 12, 500)
            assert (told.running.version, told.highest) == (10, 12)
            assert box.send(OPS.seal(document(12), "other"), "rejected").code == 409
            last = OPS.seal(document(13, {"profile": "movie"}, probation_s=3), "last")
            assert box.send(last, "applied", "rolled_back", "rejected").state == "applied"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        assert box.committed == (13, {**fewer, "profile": "movie"})
