"""What is measured: a clip, or some of its frames, as the camera saw it or with a window that pans over it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.bench.pan import PannedSource
from agent.capture import open_source
from agent.capture.frame import Frame
from agent.capture.source import FrameSource
from config.errors import EndOfStream
from config.redact import redact

_STRETCH = re.compile(r"(?P<uri>.+):(?P<first>\d+)-(?P<last>\d+)")


@dataclass(frozen=True, slots=True)
class Clip:
    """name: as it was asked for. uri: what `open_source` takes. first, last: the frames wanted, 0-based and inclusive;
    last = None is the end."""

    name: str
    uri: str
    first: int = 0
    last: int | None = None

    @classmethod
    def of(cls, name: str, frames: int | None = None) -> Clip:
        """From CLIP or CLIP:FIRST-LAST; `frames`: no more than so many of them."""
        found = None if os.path.exists(name) else _STRETCH.fullmatch(name)  # noqa: PTH110  (a scene can be a long name)
        uri, first = (found["uri"], int(found["first"])) if found else (name, 0)
        ends = [int(found["last"])] if found else []
        if frames is not None:
            ends.append(first + frames - 1)
        return cls(redact(name), uri, first, min(ends, default=None))

    @property
    def content(self) -> str:
        """Name of the folder that the clip lies in, or `scene`."""
        return "scene" if self.uri.startswith("scene:") else Path(self.uri).resolve().parent.name

    @property
    def endless(self) -> bool:
        return self.uri.startswith("scene:") and "seconds=" not in self.uri and self.last is None

    def open(self, pan: tuple[float, float] | None = None) -> FrameSource:
        """Raises what `open_source` and `PannedSource` raise."""
        source = open_source(self.uri, source_id="bench", paced=False, motion=True)
        return source if pan is None else PannedSource(source, pan)

    def length(self, source: FrameSource) -> int | None:
        """How many frames there will be, None when the source doesn't know."""
        ends = [end for end in (source.info.frames, None if self.last is None else self.last + 1) if end is not None]
        return max(0, min(ends) - self.first) if source.info.frames or self.last is not None else None

    def frames(self, source: FrameSource) -> Iterator[Frame]:
        """The wanted frames. Raises EndOfStream when there is none, and what `FrameSource.read` raises."""
        read = 0
        while self.last is None or read <= self.last:
            try:
                frame = source.read()
            except EndOfStream:
                break
            read += 1
            if read > self.first:
                yield frame
        if read <= self.first:
            raise EndOfStream(f"{self.name}: no frames")
