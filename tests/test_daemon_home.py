"""The running agent as a household meets it: Home Assistant, pictures, motion, a mute that outlives a restart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from homeassistant_rules import check
from mqtt_world import Subscriber, needs_mosquitto, until, watched
from pydantic import TypeAdapter

from agent.events.model import EVENT, BoxStatus, CameraRulesState, CameraState, CommandResult, EventForm
from agent.mqtt.broker import LocalBroker

ROOT = Path(__file__).parents[1]
BASE = "stillwatch/box"
FRONT = "homeassistant/device/stillwatch_box_front/config"

pytestmark = [needs_mosquitto, pytest.mark.timeout(300)]


def configured(folder: Path, url: str, *, home: bool = True, cameras: tuple[str, ...] = ("front",)) -> Path:
    """The agent's configuration, written anew."""
    options = "discovery: homeassistant, images: {max_bytes: 20KB}" if home else "protocol: auto"
    seen = "".join(f'  {name}: {{source: "scene:street?seed=7&fps=5&width=640&height=360"}}\n' for name in cameras)
    config = folder / "agent.yaml"
    config.write_text(
        f"""
device: {{id: box, name: Porch box}}
mqtt: {{url: "{url}", {options}}}
events: {{dir: {folder}/state, clips: null}}
cameras:
{seen}"""
    )
    return config


@contextmanager
def agent(
    folder: Path, url: str, *, home: bool = True, cameras: tuple[str, ...] = ("front",)
) -> Iterator[subprocess.Popen[str]]:
    """`stillwatch run` with busy cameras, in a state folder that stays."""
    config = configured(folder, url, home=home, cameras=cameras)
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "run", "--config", str(config)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with watched(process):
            yield process
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    finally:
        process.kill()
        process.communicate()


def state(watcher: Subscriber) -> dict[str, Any]:
    return json.loads(watcher.last(f"{BASE}/front/state") or "{}")  # type: ignore[no-any-return]


def moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00"))


WORDS = {"availability": {"online", "offline"}, "motion": {"ON", "OFF"}, "analysis/state": {"ON", "OFF"}}
DOCUMENTS: dict[str, TypeAdapter[Any]] = {
    **dict.fromkeys(("alert", "change", "health"), EVENT),
    "event": TypeAdapter(EventForm),
    "state": TypeAdapter(CameraState),
    "rules": TypeAdapter(CameraRulesState),
    "status": TypeAdapter(BoxStatus),
    "result": TypeAdapter(CommandResult),
}


def check_all(watcher: Subscriber) -> set[str]:
    """Everything that was published is what docs/mqtt.md and `stillwatch schema` say; returns the leaves that came."""
    came = set()
    for message in watcher.messages:
        leaf = "/".join(message.topic.removeprefix(f"{BASE}/").split("/")[1:]) or message.topic.rpartition("/")[2]
        ours = message.topic.startswith(f"{BASE}/") and not message.topic.endswith("/set")
        if not message.payload or not ours or (message.topic.count("/cmd/") and not leaf.endswith("/result")):
            continue
        came.add(leaf)
        if leaf.startswith("image/"):
            assert message.payload[:2] == b"\xff\xd8", message.topic
        elif leaf in WORDS:
            assert message.text in WORDS[leaf], (message.topic, message.text)
        else:
            DOCUMENTS[leaf.rpartition("/")[2]].validate_json(message.payload)
    return came


def test_what_a_household_meets(tmp_path: Path) -> None:
    with LocalBroker() as broker, Subscriber(broker.port) as watcher:
        with agent(tmp_path, broker.url):
            until(lambda: watcher.last(FRONT), "the announcement")
            check(FRONT, json.loads(watcher.last(FRONT) or ""))
            until(lambda: watcher.last(f"{BASE}/front/motion") == "ON", "something to move in the street")
            watcher.publish(f"{BASE}/cmd/test-alert", '{"text": "Hello."}')
            until(lambda: watcher.on(f"{BASE}/front/image/alert"), "the picture of the alert")
            watcher.publish(f"{BASE}/cmd/snapshot", '{"camera": "front"}')
            until(lambda: watcher.on(f"{BASE}/front/image/snapshot"), "the picture that was asked for")
            for name in ("alert", "snapshot"):
                jpeg = watcher.on(f"{BASE}/front/image/{name}")[-1].payload
                assert len(jpeg) <= 20_000
                picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
                assert picture is not None and picture.shape[1] * 9 == picture.shape[0] * 16
            forms = lambda: {message.document["event_type"] for message in watcher.on(f"{BASE}/front/event")}  # noqa: E731
            until(lambda: {"anomaly", "anomaly_end"} <= forms(), "both for Home Assistant's event entity")
            watcher.publish(f"{BASE}/cmd/mute", '{"for_s": 3600}')
            watcher.publish(f"{BASE}/front/analysis/set", "OFF")
            until(lambda: watcher.last(f"{BASE}/front/motion") == "OFF", "motion to be unknown")
            until(lambda: state(watcher).get("muted_until") and not state(watcher)["enabled"], "both to be told")
        muted_until = state(watcher)["muted_until"]
        seen = len(watcher.on(f"{BASE}/front/state"))
        with agent(tmp_path, broker.url, home=False):
            until(lambda: len(watcher.on(f"{BASE}/front/state")) > seen, "the next run")
            until(lambda: watcher.last(FRONT) == "", "Home Assistant to forget the camera")
            until(lambda: watcher.last(f"{BASE}/front/image/alert") == "", "the picture to be taken back")
            until(lambda: state(watcher)["muted_until"], "the mute")
            moved = moment(state(watcher)["muted_until"]) - moment(muted_until)
            assert abs(moved.total_seconds()) < 20, "an hour from when it was asked for, not from the start"
            assert not state(watcher)["enabled"] and watcher.last(f"{BASE}/front/analysis/state") == "OFF"
            watcher.publish(f"{BASE}/cmd/mute", '{"for_s": 0}')
            watcher.publish(f"{BASE}/front/analysis/set", "ON")
            until(lambda: state(watcher)["enabled"] and state(watcher)["muted_until"] is None, "everything as it was")
        came = check_all(watcher)
    assert {"alert", "event", "state", "status", "image/alert", "motion", "availability", "analysis/state"} <= came
    assert {"mute/result", "test-alert/result", "snapshot/result"} <= came
    assert json.loads((tmp_path / "state/cameras.json").read_text()) == {}


def test_a_camera_that_is_taken_out_while_the_agent_runs_leaves_nothing_behind(tmp_path: Path) -> None:
    with LocalBroker() as broker, Subscriber(broker.port) as watcher:
        with agent(tmp_path, broker.url, cameras=("front", "yard")) as process:
            until(lambda: watcher.last(f"{BASE}/yard/state") and watcher.last(f"{BASE}/front/state"), "both cameras")
            until(lambda: watcher.last(f"{BASE}/yard/availability") == "online", "frames")
            configured(tmp_path, broker.url)
            process.send_signal(signal.SIGHUP)
            until(lambda: watcher.last(FRONT.replace("front", "yard")) == "", "Home Assistant to forget it")
            kept = ("state", "availability", "analysis/state", "motion")
            until(
                lambda: all(watcher.last(f"{BASE}/yard/{leaf}") == "" for leaf in kept), "its states to be taken back"
            )
            seen = len(watcher.on(f"{BASE}/front/state"))
            until(lambda: len(watcher.on(f"{BASE}/front/state")) > seen + 1, "the other camera to go on")
            assert watcher.last(FRONT)
        until(lambda: watcher.last(f"{BASE}/availability") == "offline", "goodbye")
        assert all(watcher.last(f"{BASE}/yard/{leaf}") == "" for leaf in kept), "not even at the end"


def test_no_picture_leaves_unless_it_is_wanted(tmp_path: Path) -> None:
    with LocalBroker() as broker, Subscriber(broker.port) as watcher:
        with agent(tmp_path, broker.url, home=False):
            until(lambda: watcher.last(f"{BASE}/front/availability") == "online", "the camera")
            watcher.publish(f"{BASE}/cmd/test-alert", "{}")
            watcher.publish(f"{BASE}/cmd/snapshot", '{"camera": "front"}')
            until(lambda: watcher.on(f"{BASE}/cmd/snapshot/result"), "the snapshot")
            until(lambda: watcher.on(f"{BASE}/front/alert"), "the alert")
        assert not [m for m in watcher.messages if "/image/" in m.topic or b"\xff\xd8" in m.payload]
        assert not [m for m in watcher.messages if m.topic.startswith("homeassistant")]
