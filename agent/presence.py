"""What a broker is shown of this agent besides events and states: devices for Home Assistant, and pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent import __version__
from agent.homeassistant.announcing import Announcer, RetainedTopics
from agent.homeassistant.discovery import Discovery
from agent.mqtt.client import MqttLink
from agent.mqtt.images import ImageTopics
from agent.mqtt.topics import Topics
from config.settings import Mqtt


class Presence:
    """For one link, as it is configured. name: of the box, for people."""

    def __init__(self, link: MqttLink, topics: Topics, mqtt: Mqtt, name: str | None, retained: RetainedTopics) -> None:
        images = mqtt.images is not None
        discovery = None
        if mqtt.discovery is not None:
            discovery = Discovery(topics, mqtt.discovery, name=name, version=__version__, images=images)
        self._announcer = Announcer(link, topics, retained, discovery, images=images)
        self._images = None if mqtt.images is None else ImageTopics(link, topics, mqtt.images.max_bytes)

    def announce(self, cameras: Sequence[str]) -> None:
        """These are the cameras now."""
        self._announcer.announce(cameras)

    def show(self, camera: str, name: str, image: NDArray[np.uint8]) -> None:
        """Publish uint8 RGB (H, W, 3) as this picture of the camera, where pictures are wanted."""
        if self._images is not None:
            self._images.show(camera, name, image)
