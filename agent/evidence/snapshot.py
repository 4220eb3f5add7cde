"""The picture of an event, twice: as it was, and with its regions outlined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.events.model import Box
from agent.evidence.files import write_whole

_JPEG_QUALITY = 85
_OUTLINE_RGB = (255, 64, 64)


def outlined(image: NDArray[np.uint8], regions: Sequence[Box]) -> NDArray[np.uint8]:
    """A copy of uint8 RGB (H, W, 3) with the boxes [x, y, w, h] drawn on it."""
    picture = np.array(image, order="C")
    for x, y, w, h in regions:
        cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), _OUTLINE_RGB, max(1, picture.shape[0] // 240))
    return picture


def write_jpeg(path: Path, image: NDArray[np.uint8]) -> int:
    """Write uint8 RGB (H, W, 3) whole or not at all; returns the size of the file. Raises OSError when the disk
    refuses."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return write_whole(path, lambda part: _write(part, encoded.tobytes()))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
