"""What every camera, file and rendered scene looks like to the agent."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from agent.capture.frame import Frame


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source says of itself once open: size in pixels, frames a second, frame count (None = unknown or endless),
    and whether it is live (frames come at their own time and can be lost; so do those of a file that is paced)."""

    width: int
    height: int
    fps: float
    frames: int | None
    live: bool


class FrameSource(Protocol):
    """An open source. Made by `agent.capture.open_source(uri, ...)`; also a context manager."""

    @property
    def info(self) -> SourceInfo: ...

    def read(self, timeout_s: float = 5.0) -> Frame:
        """The next frame. Raises EndOfStream after the last, SourceError when none came in `timeout_s`,
        CorruptInput when the file can't be decoded any further."""
        ...

    def close(self) -> None:
        """Give back device, socket and memory. A second call does nothing."""
        ...

    def __enter__(self) -> FrameSource: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class WrappedSource:
    """A `FrameSource` in front of another, which it is but for what it overrides. Closes it, too."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source

    @property
    def info(self) -> SourceInfo:
        return self._source.info

    @property
    def damaged(self) -> int:
        """Packets and pictures that the source left out."""
        return int(getattr(self._source, "damaged", 0))

    def read(self, timeout_s: float = 5.0) -> Frame:
        return self._source.read(timeout_s)

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
