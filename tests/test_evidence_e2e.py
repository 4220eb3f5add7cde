"""Evidence and commands as their users meet them: an agent on a file that plays like a camera, and a real broker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import av
import pytest
from mqtt_world import Subscriber, needs_mosquitto, until
from typer.testing import CliRunner

from agent.cli import app
from agent.daemon import Daemon, RunOptions
from agent.mqtt.broker import LocalBroker
from config.settings import Camera, Clips, Device, Events, Mqtt, Settings

BASE = "stillwatch/box"

pytestmark = [needs_mosquitto, pytest.mark.timeout(200)]


class Asking:
    """A person at the other end of the broker."""

    def __init__(self, url: str, subscriber: Subscriber) -> None:
        self.url, self.subscriber = url, subscriber
        self._asked = 0

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a command."""
        self._asked += 1
        mine = str(self._asked)
        topic = f"{BASE}/cmd/{command}"
        self.subscriber.publish(topic, json.dumps({**arguments, "request_id": mine}))
        answers: Callable[[], list[dict[str, Any]]] = lambda: [  # noqa: E731
            m.document for m in self.subscriber.on(f"{topic}/result") if m.document["request_id"] == mine
        ]
        until(answers, f"an answer to {command}")
        (answer,) = answers()
        return answer

    def told(self, event_id: str) -> list[dict[str, Any]]:
        return [m.document for m in self.subscriber.on(f"{BASE}/front/alert") if m.document["id"] == event_id]


@contextmanager
def watching(folder: Path, source: str, clips: Clips, **camera: Any) -> Iterator[Asking]:
    with LocalBroker() as broker, Subscriber(broker.port) as subscriber:
        settings = Settings(
            device=Device(id="box"),
            mqtt=Mqtt(url=broker.url),
            events=Events(dir=folder, clips=clips),
            cameras={"front": Camera(source=source, **camera)},
        )
        stop = Event()
        daemon = Daemon(settings, RunOptions())
        runner = Thread(target=daemon.run, args=(stop,))
        runner.start()
        try:
            latest = daemon.cameras["front"].latest
            until(lambda: (seen := latest()) is not None and seen[1].index >= 10, "what a clip begins with")
            yield Asking(broker.url, subscriber)
        finally:
            stop.set()
            runner.join(30)


def test_what_people_may_ask_of_a_running_agent(tmp_path: Path) -> None:
    scene = "scene:street?seed=3&fps=5&width=320&height=180"
    with watching(tmp_path, scene, Clips(pre_s=0.5, post_s=3.0)) as person:
        tested = person.ask("test-alert", text="Is this thing on?")
        assert tested["ok"], tested
        event_id = tested["result"]["id"]
        until(lambda: person.told(event_id) and not person.told(event_id)[-1]["pending"], "the clip of the test")
        new, *_, last = person.told(event_id)
        assert (new["type"], new["pending"], new["evidence"]) == ("new", ["snapshot", "clip"], {"test": True})
        assert (last["type"], last["text"], last["degraded"]) == ("end", "Is this thing on?", [])
        with av.open(str(tmp_path / last["media"]["clip"])) as clip:
            pictures = sum(1 for _ in clip.decode(video=0))
        assert pictures >= 4, "3.5 s at 5 frames a second, and on a busy machine much fewer"

        assert person.ask("acknowledge", id=event_id)["result"] == {"acknowledged": [event_id]}
        until(lambda: person.told(event_id)[-1]["acknowledged"], "the acknowledgement")
        assert person.ask("acknowledge", camera="front")["result"] == {"acknowledged": []}

        config = tmp_path / "agent.yaml"
        config.write_text(
            json.dumps({"device": {"id": "box"}, "mqtt": {"url": person.url}, "cameras": {"front": {"source": scene}}})
        )
        said = CliRunner().invoke(app, ["test-alert", "--config", str(config), "--text", "From a terminal."])
        assert said.exit_code == 0, said.output
        # The agent of this process writes its log to the same place.
        answer, _ = json.JSONDecoder().raw_decode(said.stdout[said.stdout.index("{") :])
        until(lambda: person.told(answer["id"]), "the alert")

        pictured = person.ask("snapshot")["result"]
        assert (tmp_path / pictured["snapshot"]).is_file() and pictured["frame_size"] == [320, 180]

        muted = person.ask("mute", for_s=600)["result"]["muted_until"]
        state = f"{BASE}/front/state"
        until(lambda: json.loads(person.subscriber.last(state) or "{}").get("muted_until") == muted, "the state")
        assert person.ask("mute", for_s=0)["result"] == {"camera": "front", "muted_until": None}

        exported = person.ask("baseline", action="export")["result"]["file"]
        assert (tmp_path / exported).stat().st_size > 1000
        assert person.ask("baseline", action="reset")["ok"]
