"""Events that the disk refused, kept in memory for a broker that is there: bounded, and gone with the run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from agent.events.model import AnyEvent

_MOST = 500
"""Some kilobytes each."""


@dataclass(frozen=True, slots=True)
class Unstored:
    """row: below 0, to tell it from rows of the outbox. after: the last row of the outbox when this was told."""

    row: int
    after: int
    event: AnyEvent
    topic: str
    monotonic: float


class UnstoredEvents:
    """Safe from any thread. Above `most` the least severe and oldest is forgotten."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._count = 0
        self._kept: dict[int, Unstored] = {}

    def put(self, event: AnyEvent, topic: str, *, after: int, monotonic: float) -> None:
        with self._lock:
            self._count += 1
            self._kept[-self._count] = Unstored(-self._count, after, event, topic, monotonic)
            if len(self._kept) > self._most:
                del self._kept[min(self._kept, key=lambda row: (self._kept[row].event.severity.rank, -row))]

    def discard(self, rows: Sequence[int]) -> None:
        """These have arrived, or never will. Others' rows are passed over."""
        with self._lock:
            for row in rows:
                self._kept.pop(row, None)

    def waiting(self, skip_topics: Sequence[str] = (), skip_cameras: Sequence[str] = ()) -> list[Unstored]:
        """In the order in which they were told."""
        with self._lock:
            kept = list(self._kept.values())
        return [k for k in kept if k.topic not in skip_topics and k.event.camera not in skip_cameras]
