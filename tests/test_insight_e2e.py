"""A whole agent looks at a film of a yard: somebody comes in, later the camera is covered for a while."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_media import write_clip
from mqtt_world import Subscriber, needs_mosquitto, until, watched

from agent.capture.clock import SystemClock
from agent.capture.scene.drills import DrillTimeline
from agent.capture.scene.source import SceneSource
from agent.mqtt.broker import LocalBroker

pytestmark = [needs_mosquitto, pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[1]
FPS = 5
TAMPER_S = 5
LEARN_S, INTRUDER_S, COVERED_S, FREE_S, END_S = 60, 66, 84, 96, 102
AGENT = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from agent.daemon import Daemon, RunOptions
from agent.insight.anomaly import AnomalySettings
from config.settings import Camera, Device, Events, Mqtt, Settings
url, film, folder, learn_s = sys.argv[2:]
settings = Settings(
    device=Device(id="box"), mqtt=Mqtt(url=url), events=Events(dir=Path(folder)), cameras={"yard": Camera(source=film)}
)
Daemon(settings, RunOptions(retry=False, anomaly=AnomalySettings(learn_s=float(learn_s)))).run(threading.Event())
"""


def film(to: Path) -> None:
    uri = f"scene:yard?seed=5&width=320&height=180&fps={FPS}&light=day&weather=clear&seconds={END_S}"
    sheet = np.full((180, 320, 3), (96, 92, 88), np.uint8)
    images = []
    with SceneSource(uri, source_id="yard", paced=False, clock=SystemClock()) as source:
        scene = source.scene
        starts = [("intrusion", float(INTRUDER_S))]
        scene.play(DrillTimeline(scene.place, scene.seed, scene.width_units, starts, seconds=END_S, quiet=True))
        for index in range(END_S * FPS):
            seen = source.read().image
            images.append(sheet if COVERED_S * FPS <= index < FREE_S * FPS else seen)
    write_clip(to, images, fps=FPS, codec="libx264")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What the broker passed on, by topic below the camera."""
    folder = tmp_path_factory.mktemp("yard")
    film(folder / "yard.mp4")
    with LocalBroker() as broker, Subscriber(broker.port) as subscriber:
        arguments = [str(ROOT), broker.url, str(folder / "yard.mp4"), str(folder), str(LEARN_S)]
        command = [sys.executable, "-c", AGENT, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            with watched(process):
                _, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
        finally:
            process.kill()
            process.wait()
        until(lambda: subscriber.last("stillwatch/box/availability") == "offline", "goodbye")
        yield {
            leaf: [message.document for message in subscriber.on(f"stillwatch/box/yard/{leaf}")]
            for leaf in ("alert", "health")
        }


def seen(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["frame_ts"].replace("Z", "+00:00"))


def test_a_covered_camera_is_a_health_event_that_ends_when_it_sees_again(
    told: dict[str, list[dict[str, Any]]],
) -> None:
    assert [(event["condition"], event["type"]) for event in told["health"]] == [("covered", "new"), ("covered", "end")]
    covered, over = told["health"]
    assert covered["id"] == over["id"] and "covered" in covered["text"]


def test_who_comes_in_is_an_alert_within_a_second_of_film(told: dict[str, list[dict[str, Any]]]) -> None:
    alert = told["alert"][0]
    assert (alert["kind"], alert["type"]) == ("anomaly", "new")
    assert {event["id"] for event in told["alert"]} == {alert["id"]} and told["alert"][-1]["type"] == "end"
    before_s = (seen(told["health"][0]) - seen(alert)).total_seconds()
    assert 0 <= COVERED_S + TAMPER_S - before_s - INTRUDER_S <= 1.0
    x, y, width, height = alert["region"]
    assert x + width <= 80 and y <= 120 <= y + height  # where somebody steps into the picture
