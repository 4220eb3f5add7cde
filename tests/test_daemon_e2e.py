"""The whole agent as its users run it: a process, a rendered camera, the reference model, a real broker."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest
from mqtt_world import Subscriber, needs_mosquitto, until, watched

from agent.events.outbox import Outbox
from agent.mqtt.broker import LocalBroker

ROOT = Path(__file__).parents[1]
CUTTING = "scene:street?seed=2&camera=cut&fps=5&width=320&height=180"  # cuts to another place after 6.3 s
BASE = "stillwatch/box"

pytestmark = [needs_mosquitto, pytest.mark.timeout(300)]


@contextmanager
def agent(folder: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`stillwatch run` with a state folder and the device id `box`; gone at the end whatever happened."""
    command = [sys.executable, "-m", "agent.cli", "run", "--state", folder / "state", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STILLWATCH_DEVICE__ID": "box"}
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with watched(process):
            yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker() as started:
        yield started


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def undelivered(folder: Path) -> int:
    with Outbox(folder / "state/events.db") as outbox:
        return outbox.depth


def test_a_change_of_scene_reaches_broker_file_and_disk_with_its_words(tmp_path: Path, broker: LocalBroker) -> None:
    lines = tmp_path / "events.ndjson"
    with Subscriber(broker.port) as subscriber:
        with agent(tmp_path, "--source", f"{CUTTING}&seconds=9", "--broker", broker.url, "--events-to", lines) as run:
            _, err = run.communicate(timeout=200)
            assert run.returncode == 0, err
        until(lambda: subscriber.last(f"{BASE}/availability") == "offline", "goodbye")
        changes = [message.document for message in subscriber.on(f"{BASE}/cam1/change")]
        new, *_, update = (c for c in changes if c["id"] == changes[0]["id"])
        assert (new["type"], new["pending"], new["text"]) == ("new", ["text", "snapshot"], "")
        assert (update["type"], update["pending"]) == ("update", [])
        assert update["text"] == update["after_text"] != ""
        assert update["before_text"] != ""
        assert new["frame_size"] == [320, 180]
        assert [c["seq"] for c in changes] == sorted({c["seq"] for c in changes})
        written = [json.loads(line) for line in lines.read_text().splitlines()]
        assert [(w["id"], w["seq"], w["topic"]) for w in written if w["kind"] == "semantic_change"] == [
            (c["id"], c["seq"], f"{BASE}/cam1/change") for c in changes
        ]
        snapshot = cv2.imread(str(tmp_path / "state" / update["media"]["snapshot"]))
        assert snapshot is not None and snapshot.shape == (180, 320, 3)
        states = [message.document for message in subscriber.on(f"{BASE}/cam1/state")]
        assert states[-1]["mode"] is not None and states[-1]["learning"] is True
        assert [m.text for m in subscriber.on(f"{BASE}/cam1/availability")][-2:] == ["online", "offline"]
    assert undelivered(tmp_path) == 0
    assert (tmp_path / "state/baselines/cam1.npz").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_with_everything_delivered(
    tmp_path: Path, broker: LocalBroker, number: signal.Signals
) -> None:
    with Subscriber(broker.port) as subscriber:
        with agent(tmp_path, "--source", CUTTING, "--broker", broker.url) as run:
            until(lambda: subscriber.on(f"{BASE}/cam1/change"), "a change")
            run.send_signal(number)
            out, err = run.communicate(timeout=60)
            assert run.returncode == 0, err
            assert out == ""
        until(lambda: subscriber.last(f"{BASE}/availability") == "offline", "goodbye")
        last = {m.document["id"]: m.document for m in subscriber.on(f"{BASE}/cam1/change")}
        assert all(not event["pending"] for event in last.values())
    assert undelivered(tmp_path) == 0


def test_events_of_a_run_without_broker_are_delivered_by_the_next(tmp_path: Path, broker: LocalBroker) -> None:
    broker.stop()
    with agent(tmp_path, "--source", f"{CUTTING}&seconds=9", "--broker", broker.url) as run:
        _, err = run.communicate(timeout=200)
        assert run.returncode == 0, err
        assert "mqtt is not connected" in err
    waiting = undelivered(tmp_path)
    assert waiting >= 2
    broker.start()
    with Subscriber(broker.port) as subscriber, agent(tmp_path, "--source", CUTTING, "--broker", broker.url) as run:
        until(lambda: len(subscriber.on(f"{BASE}/cam1/change")) >= waiting, "the events of the run before")
        replayed = [message.document for message in subscriber.on(f"{BASE}/cam1/change")][:waiting]
        assert all(event["replayed"] and event["age_s"] > 0 for event in replayed)
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 0


def test_masks_metrics_and_the_analysis_switch(tmp_path: Path, broker: LocalBroker) -> None:
    port = free_port()
    config: dict[str, Any] = {
        "mqtt": {"url": broker.url},
        "metrics": {"port": port},
        "cameras": {
            "front": {
                "source": CUTTING,
                "masks": {"left": [[0, 0], [160, 0], [160, 180], [0, 180]]},
                "zones": {"all": [[0, 0], [319, 0], [319, 179], [0, 179]]},
            }
        },
    }
    file = tmp_path / "agent.yaml"
    file.write_text(json.dumps(config))
    with Subscriber(broker.port) as subscriber, agent(tmp_path, "--config", file) as run:
        pictured = lambda: [m for m in subscriber.on(f"{BASE}/front/change") if m.document["media"]["snapshot"]]  # noqa: E731
        until(pictured, "a change and its picture")
        event = pictured()[0].document
        assert event["zones"] == ["all"]
        snapshot = cv2.imread(str(tmp_path / "state" / event["media"]["snapshot"]))
        assert snapshot is not None
        assert snapshot[20:160, 20:130].mean() < 8 < snapshot[20:160, 190:].mean()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        assert 'stillwatch_frames_total{camera="front",outcome="' in text
        counted = re.search(r'stillwatch_events_total{camera="front",kind="semantic_change",type="new"} (.+)', text)
        assert counted is not None and float(counted[1]) >= 1
        assert "stillwatch_mqtt_connected 1.0" in text
        assert 'stillwatch_stage_seconds_count{camera="front",stage="encode"}' in text
        assert 'stillwatch_memory_bytes{camera="front",part="cache"}' in text
        assert 'stillwatch_coherence_ratio{camera="front"}' in text and "process_resident_memory_bytes" in text
        status = lambda: json.loads(subscriber.last(f"{BASE}/status") or "{}")  # noqa: E731
        until(lambda: status().get("frame_ms"), "a status with the time of frames")
        memory = status()["memory"]
        assert memory["resident"] > memory["model"] > memory["cache"] > 0
        assert set(status()["frame_ms"]) == {"front"}
        subscriber.publish(f"{BASE}/front/analysis/set", "OFF")
        until(lambda: subscriber.last(f"{BASE}/front/analysis/state") == "OFF", "the switch")
        until(lambda: not json.loads(subscriber.last(f"{BASE}/front/state") or "{}").get("enabled", True), "the state")
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 0


def test_one_broken_camera_does_not_stop_the_other(tmp_path: Path, broker: LocalBroker) -> None:
    (tmp_path / "broken.mp4").write_bytes(bytes(5000))
    config = {
        "mqtt": {"url": broker.url},
        "cameras": {"broken": {"source": "broken.mp4"}, "good": {"source": "scene:yard?fps=5&seconds=3"}},
    }
    file = tmp_path / "agent.yaml"
    file.write_text(json.dumps(config))
    with Subscriber(broker.port) as subscriber:
        with agent(tmp_path, "--config", file) as run:
            _, err = run.communicate(timeout=200)
            assert run.returncode == 74, err
            assert err.splitlines()[-1].startswith("broken.mp4: can't be read as video")
        until(lambda: subscriber.last(f"{BASE}/availability") == "offline", "goodbye, which is said last")
        assert json.loads(subscriber.last(f"{BASE}/good/state") or "{}")["fps"] >= 0
        assert subscriber.on(f"{BASE}/broken/health")[0].document["condition"] == "lost"


def test_the_demo_says_how_to_follow_it_and_what_came_of_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent.cli", "demo", "--seconds", "6", "--state", str(tmp_path / "state")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "40"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(re.search(r"mosquitto_sub -h 127\.0\.0\.1 -p \d+ -t 'stillwatch/#' -v$", line) for line in lines)
    summary = dict(line.split(maxsplit=1) for line in lines[-4:])
    assert list(summary) == ["frames", "tokens", "modes", "events"]
    assert int(summary["frames"].split(",")[0]) > 0
    assert "full" in summary["modes"]
