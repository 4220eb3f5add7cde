"""The evidence of one camera: what its events will have beside them, by when, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.capture.frame import Frame
from agent.events.model import Box, Severity
from agent.evidence.archive import CLIP, SNAPSHOT, Archive
from agent.evidence.ring import ClipSpan, PacketRing

_SNAPSHOT_WITHIN_S = 5.0
_CLIP_GRACE_S = 10.0
"""For the disk, and for packets that come late."""


class CameraEvidence:
    """ring: None when this camera has no clips."""

    def __init__(self, archive: Archive, ring: PacketRing | None, span: ClipSpan) -> None:
        self._archive, self._ring, self._span = archive, ring, span

    def within(self, *, clip: bool) -> Mapping[str, float]:
        """The parts that `collect` will bring, and the seconds that each may take."""
        parts = {SNAPSHOT: _SNAPSHOT_WITHIN_S}
        if clip and self._ring is not None:
            parts[CLIP] = self._span.post_s + _CLIP_GRACE_S
        return parts

    def collect(self, event_id: str, frame: Frame, regions: Sequence[Box], severity: Severity, *, clip: bool) -> None:
        """Have them made for an event that is told already. Returns at once."""
        self._archive.snapshot(event_id, frame.image, regions, severity)
        if clip and self._ring is not None:
            self._archive.clip(event_id, self._ring, frame.monotonic_ns, self._span, severity)
