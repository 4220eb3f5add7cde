"""The rendered camera as a source: `scene:street?seed=7&camera=pan&fps=15`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

from agent.capture.clock import Clock, SystemClock
from agent.capture.frame import Frame
from agent.capture.scene.choice import one_of
from agent.capture.scene.truth import PLACES, WALKWAY, SceneTruth
from agent.capture.scene.world import Scene
from agent.capture.source import SourceInfo
from agent.capture.timing import MediaClock, RateLimit
from config.errors import ConfigError, EndOfStream, SourceError

_WHOLE, _NUMBER, _WORD = "a whole number", "a number", "a word"
_READ: dict[str, Callable[[str], Any]] = {_WHOLE: int, _NUMBER: float, _WORD: str}
# Name in the query → (argument of Scene, or None for our own; what it must be).
_PARAMETERS: dict[str, tuple[str | None, str]] = {
    "seed": ("seed", _WHOLE),
    "width": ("width", _WHOLE),
    "height": ("height", _WHOLE),
    "fps": ("fps", _NUMBER),
    "light": ("light", _WORD),
    "weather": ("weather", _WORD),
    "camera": ("camera", _WORD),
    "objects": ("max_objects", _WHOLE),
    "noise": ("noise", _NUMBER),
    "seconds": (None, _NUMBER),
}


def parse_scene(uri: str) -> tuple[Scene, float | None]:
    """The scene of a `scene:NAME?key=value&…` URI and its length in seconds, None when it never ends.

    Raises ConfigError for an unknown place or key (naming the nearest) and for a value that can't be used.
    """
    name, _, query = uri.removeprefix("scene:").partition("?")
    place = one_of(f"{uri}: place", name, (*PLACES, WALKWAY))
    arguments: dict[str, Any] = {}
    seconds = None
    for key, text in parse_qsl(query, keep_blank_values=True):
        argument, kind = _PARAMETERS[one_of(f"{uri}: parameter", key, tuple(_PARAMETERS))]
        try:
            value = _READ[kind](text)
        except ValueError:
            raise ConfigError(f"{uri}: {key} is {text!r}; expected {kind}") from None
        if argument is not None:
            arguments[argument] = value
        elif not 0 < value < 1e9:
            raise ConfigError(f"{uri}: {key} is {text}; expected more than 0")
        else:
            seconds = value
    try:
        return Scene(place, **arguments), seconds
    except ConfigError as error:
        raise ConfigError(f"{uri}: {error}") from None


class SceneSource:
    """A rendered camera. paced: in real time and live, else as fast as it is read. fps: keep at most so many a second.

    Raises ConfigError for a URI that can't be used.
    """

    def __init__(
        self, uri: str, *, source_id: str, paced: bool, fps: float | None = None, clock: Clock | None = None
    ) -> None:
        self.scene, seconds = parse_scene(uri)
        self._uri, self._source_id = uri, source_id
        self._limit = RateLimit(fps) if fps else None
        self._media_clock = MediaClock(clock or SystemClock(), paced=paced)
        self._closing = threading.Event()
        self._index = 0
        frames = None if seconds is None else max(1, round(seconds * self.scene.fps))
        rate = min(fps, self.scene.fps) if fps else self.scene.fps
        self._info = SourceInfo(*self.scene.size, rate, frames, live=paced)

    @property
    def info(self) -> SourceInfo:
        """Size, rate and length as the URI says."""
        return self._info

    def read(self, timeout_s: float = 5.0) -> Frame:
        """The next frame; rendering can't fail or stall, so `timeout_s` is never reached. Raises EndOfStream, or
        SourceError once closed."""
        while True:
            index, frames = self._index, self._info.frames
            if self._closing.is_set():
                raise SourceError(f"{self._uri}: closed")
            if frames is not None and index >= frames:
                raise EndOfStream(f"{self._uri}: ended after {frames} frames")
            self._index += 1
            media_s = index / self.scene.fps
            if self._limit is None or self._limit.keeps(media_s):
                break
        image = self.scene.render(index)
        monotonic_ns, utc = self._media_clock.stamp(media_s, self._closing)
        return Frame(image, self._source_id, index, monotonic_ns, utc, media_s=media_s, discontinuity=index == 0)

    def truth(self, frame_index: int) -> SceneTruth:
        """What is true of the frame with this `Frame.index`."""
        return self.scene.truth(frame_index)

    def close(self) -> None:
        """Stop; a paced wait is cut short. A second call does nothing."""
        self._closing.set()

    def __enter__(self) -> SceneSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
