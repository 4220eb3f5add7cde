"""Pictures on disk as a source: one image, or a folder of them in natural order."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.capture.clock import Clock
from agent.capture.frame import Frame
from agent.capture.limits import image_size, too_large
from agent.capture.source import SourceInfo
from agent.capture.timing import MediaClock, RateLimit
from config.errors import CorruptInput, EndOfStream, SourceError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
FPS = 25.0
"""Frames a second of a folder of images, which has no times of its own."""


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts frame_9 before frame_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name.casefold())]


class ImageSource:
    """An image or a folder of images, 25 a second. A change of size is a discontinuity.

    Raises SourceError when there is no image, CorruptInput with the file's name when one can't be decoded.
    """

    def __init__(self, path: Path, *, source_id: str, paced: bool, fps: float | None, clock: Clock) -> None:
        self._path = path
        self._source_id = source_id
        self._limit = RateLimit(fps) if fps else None
        self._media_clock = MediaClock(clock, paced=paced)
        self._closing = threading.Event()
        images = [path]
        if path.is_dir():
            images = sorted((p for p in path.iterdir() if p.suffix.lower() in SUFFIXES), key=natural_order)
        if not images:
            raise SourceError(f"{path}: no images in this folder (looked for {', '.join(sorted(SUFFIXES))})")
        self._images = images
        self._index = 0
        self._size: tuple[int, ...] | None = None
        height, width = _load(images[0]).shape[:2]
        self._info = SourceInfo(width, height, min(FPS, fps) if fps else FPS, len(images), live=paced)

    @property
    def info(self) -> SourceInfo:
        """Size of the first image."""
        return self._info

    def read(self, timeout_s: float = 5.0) -> Frame:
        """The next image. Raises EndOfStream after the last, CorruptInput."""
        while True:
            index = self._index
            if self._closing.is_set():
                raise SourceError(f"{self._path}: closed")
            if index == len(self._images):
                raise EndOfStream(f"{self._path}: ended after {index} images")
            self._index += 1
            if self._limit is None or self._limit.keeps(index / FPS):
                break
        image = _load(self._images[index])
        changed, self._size = image.shape != self._size, image.shape
        monotonic_ns, utc = self._media_clock.stamp(index / FPS, self._closing)
        return Frame(image, self._source_id, index, monotonic_ns, utc, media_s=index / FPS, discontinuity=changed)

    def close(self) -> None:
        """Stop; a paced wait is cut short. A second call does nothing."""
        self._closing.set()

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _load(path: Path) -> NDArray[np.uint8]:
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    size = image_size(whole)
    if size is not None and (reason := too_large(size)) is not None:
        raise CorruptInput(f"{path}: {reason}")
    image = None if size is None else cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise CorruptInput(f"{path}: can't be decoded as an image ({len(whole)} bytes)")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
