"""What is sent to a vision server: a reduced JPEG or two, and what is asked of them."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.describing import Look
from config.errors import DescriberError
from config.settings import Describer, DescriberImage


def reduced_jpeg(image: NDArray[np.uint8], settings: DescriberImage) -> bytes:
    """uint8 RGB (H, W, 3) → JPEG, at most `settings.width` wide; never enlarged."""
    height, width = image.shape[:2]
    if width > settings.width:
        size = (settings.width, max(1, round(height * settings.width / width)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, settings.quality]
    )
    return encoded.tobytes()


def chat_request(look: Look, settings: Describer) -> dict[str, Any]:
    """The body of `POST /chat/completions`. Pictures stand before the words, and there is no system message: chat
    templates of many vision models take nothing else. Raises DescriberError for a look without a picture."""
    if look.picture is None:
        raise DescriberError("there is no picture to describe")
    both = look.before is not None and settings.image.previous
    pictures = [look.before, look.picture] if both else [look.picture]
    request: dict[str, Any] = {
        "model": settings.model,
        "messages": [
            {
                "role": "user",
                "content": [
                    *({"type": "image_url", "image_url": {"url": _data_url(p)}} for p in pictures if p is not None),
                    {"type": "text", "text": settings.prompt.change if both else settings.prompt.describe},
                ],
            }
        ],
        "max_tokens": settings.max_tokens,
        "stream": True,
    }
    if settings.temperature is not None:
        request["temperature"] = settings.temperature
    return request


def _data_url(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
