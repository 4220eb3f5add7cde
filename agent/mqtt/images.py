"""Pictures on topics of their own, where that is wanted: JPEG within a size, retained, the latest wins."""

from __future__ import annotations

import cv2
import numpy as np
import structlog
from numpy.typing import NDArray

from agent.mqtt.client import MqttLink
from agent.mqtt.topics import Topics

log = structlog.get_logger()

_QUALITIES = (85, 70, 50)
_SHRINK = 0.7
_SMALLEST_PX = 32


def fitted(image: NDArray[np.uint8], max_bytes: int) -> bytes | None:
    """uint8 RGB (H, W, 3) as the best JPEG of at most so many bytes: first of lower quality, then smaller. None when
    even a picture of 32 pixels is too large."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    while min(bgr.shape[:2]) >= _SMALLEST_PX:
        for quality in _QUALITIES:
            _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if len(encoded) <= max_bytes:
                return encoded.tobytes()
        bgr = cv2.resize(bgr, None, fx=_SHRINK, fy=_SHRINK, interpolation=cv2.INTER_AREA)
    return None


class ImageTopics:
    """Publishes `<camera>/image/<name>`; from any thread, encoding takes a few milliseconds of it."""

    def __init__(self, link: MqttLink, topics: Topics, max_bytes: int) -> None:
        self._link, self._topics, self._max_bytes = link, topics, max_bytes

    def show(self, camera: str, name: str, image: NDArray[np.uint8]) -> None:
        """Publish uint8 RGB (H, W, 3)."""
        jpeg = fitted(image, self._max_bytes)
        if jpeg is None:
            log.warning("a picture does not fit", camera=camera, image=name, bytes=self._max_bytes)
        else:
            self._link.keep(self._topics.image(camera, name), jpeg)
