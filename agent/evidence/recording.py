"""How a camera's ring is filled: by the camera's own packets where it may be, by its frames where it must."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agent.capture.frame import Frame
from agent.capture.source import FrameSource, WrappedSource
from agent.capture.tap import PacketTap
from agent.evidence.encoding import FrameFeed
from agent.evidence.ring import PacketRing
from agent.evidence.tap import RingTap
from agent.masks import masked
from agent.service.progress import Progress

Points = Sequence[tuple[float, float]]
Opener = Callable[[PacketTap | None], FrameSource]


class RecordedSource(WrappedSource):
    """A source whose packets go into a ring as they are read, or its frames, through `feed`."""

    def __init__(self, source: FrameSource, tap: RingTap | None, feed: FrameFeed | None) -> None:
        super().__init__(source)
        self._tap, self._feed = tap, feed

    def read(self, timeout_s: float = 5.0) -> Frame:
        frame = super().read(timeout_s)
        if self._feed is not None:
            self._feed.put(frame)
        return frame

    def close(self) -> None:
        super().close()
        if self._feed is not None:
            self._feed.close()
        if self._tap is not None:
            self._tap.close()


def recorded(
    open_source: Opener,
    masks: Mapping[str, Points],
    ring: PacketRing | None,
    *,
    encode: bool,
    camera: str = "",
    progress: Progress | None = None,
) -> Callable[[], FrameSource]:
    """An opener of the source behind its masks that fills the ring.

    The packets of a masked camera show what the masks hide: they are never listened to. encode: fill the ring with
    encoded frames where there are no packets, or none that may be kept; else such a camera has no clips. camera,
    progress: of the thread that encodes.
    """
    if ring is None:
        return masked(lambda: open_source(None), masks)

    def feed(source: FrameSource) -> FrameFeed:
        return FrameFeed(ring, lossless=not source.info.live, camera=camera, progress=progress)

    def open_it() -> FrameSource:
        if masks:
            source = masked(lambda: open_source(None), masks)()
            return RecordedSource(source, None, feed(source)) if encode else source
        tap = RingTap(ring)
        source = open_source(tap)
        return RecordedSource(source, tap, feed(source) if encode and not ring.fed else None)

    return open_it
