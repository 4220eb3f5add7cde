"""What the broker keeps for us is announced, and taken back when it is true no more: over restarts, too.

Home Assistant forgets a device when its document is taken back, and the broker would show the last state of a camera
for ever that was taken out of the configuration. So the topics stand in a file: what stands there and is not wanted any
more is taken back, and leaves the file once the broker has forgotten it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import structlog

from agent.evidence.files import write_whole
from agent.homeassistant.discovery import Discovery
from agent.mqtt.client import MqttLink
from agent.mqtt.session import Incoming
from agent.mqtt.topics import IMAGES, Topics

log = structlog.get_logger()

FILE = "retained.json"


class RetainedTopics:
    """The topics on which the broker keeps something for us, in a file. From any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._topics = _read(path)

    def replace(self, wanted: Sequence[str]) -> list[str]:
        """From now on these; returns those from before that are not among them."""
        with self._lock:
            stale = sorted(self._topics - set(wanted))
            self._write(self._topics | set(wanted))
        return stale

    def forgotten(self, topic: str) -> None:
        """The broker has taken this one back."""
        with self._lock:
            if topic in self._topics:
                self._write(self._topics - {topic})

    def _write(self, topics: set[str]) -> None:
        if topics == self._topics:
            return
        self._topics = topics
        text = json.dumps(sorted(topics), indent=0)

        def write(part: Path) -> None:
            part.write_text(text, encoding="utf-8")

        try:
            write_whole(self._path, write)
        except OSError as error:
            log.warning("the retained topics can't be noted", file=str(self._path), reason=error.strerror)


class Announcer:
    """discovery: None when Home Assistant is not to know of us. images: whether pictures are published."""

    def __init__(
        self, link: MqttLink, topics: Topics, retained: RetainedTopics, discovery: Discovery | None, *, images: bool
    ) -> None:
        self._link, self._topics, self._retained = link, topics, retained
        self._discovery, self._images = discovery, images
        self._announced: tuple[str, ...] = ()
        if discovery is not None:
            link.listen(discovery.birth, self._born)

    def announce(self, cameras: Sequence[str]) -> None:
        """These are the cameras now; what is kept of others is taken back."""
        documents = {} if self._discovery is None else self._discovery.documents(cameras)
        wanted = [topic for camera in cameras for topic in self._kept(camera)]
        for topic in self._retained.replace([*documents, *wanted]):
            self._link.keep(topic, "")
        for topic, document in documents.items():
            self._link.keep(topic, document)
        self._announced = tuple(documents)

    def _kept(self, camera: str) -> tuple[str, ...]:
        pictures = (self._topics.image(camera, name) for name in IMAGES)
        return (*self._topics.kept(camera), *(pictures if self._images else ()))

    def _born(self, message: Incoming) -> None:
        """Home Assistant has started: it wants to hear of us again. On the network's thread."""
        if message.payload == b"online" and not message.retained:
            self._link.repeat(self._announced)


def _read(path: Path) -> set[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        log.warning("the retained topics of earlier runs can't be read", file=str(path), reason=str(error))
        return set()
    return {topic for topic in found if isinstance(topic, str)} if isinstance(found, list) else set()
