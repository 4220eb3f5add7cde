"""What is remembered of each frame of a clip, and which frames are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from agent.capture.frame import Frame
from agent.coherence.result import FrameResult
from engines.plan import Mode

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """One handled frame in numbers. encoded, changed: shares, 0–1, of the tokens that see picture. ms: the whole
    frame."""

    index: int
    time_s: float
    mode: Mode
    encoded: float
    changed: float
    coherence: float | None
    fidelity: float | None
    ghosts: int
    cut: bool
    ms: float

    @classmethod
    def of(cls, frame: Frame, result: FrameResult) -> Moment:
        seen = max(1, int(result.seen.sum()))
        return cls(
            index=frame.index,
            time_s=frame.monotonic_ns / 1e9 if frame.media_s is None else frame.media_s,
            mode=result.mode,
            encoded=min(1.0, result.tokens_encoded / seen),
            changed=float(np.count_nonzero(result.changed & result.seen)) / seen,
            coherence=result.coherence,
            fidelity=result.fidelity,
            ghosts=len(result.quality.ghosts),
            cut=result.cut,
            ms=sum(result.stages_ms.values()),
        )


class EvenlySpaced(Generic[T]):
    """At most `most` of a sequence whose length nobody knows, evenly spaced: when it is full, every second one goes and
    only every second further one is taken."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._every, self._offered = 1, 0
        self.kept: list[T] = []

    def offer(self, make: Callable[[], T]) -> None:
        """The next of the sequence; made only if it is taken."""
        if self._offered % self._every == 0 and len(self.kept) == self._most:
            self.kept = self.kept[::2]
            self._every *= 2
        if self._offered % self._every == 0:
            self.kept.append(make())
        self._offered += 1


class Worst(Generic[T]):
    """The `most` highest scores that lie at least `apart` from each other, and what belongs to them."""

    def __init__(self, most: int, apart: int) -> None:
        self._most, self._apart = most, apart
        self._kept: dict[int, tuple[float, T]] = {}

    def offer(self, score: float, index: int, make: Callable[[], T]) -> None:
        """Made only if it is taken. index: its place in the sequence."""
        rivals = [place for place in self._kept if abs(place - index) < self._apart]
        if not rivals and len(self._kept) == self._most:
            rivals = [min(self._kept, key=lambda place: self._kept[place][0])]
        if rivals and score <= max(self._kept[place][0] for place in rivals):
            return
        for place in rivals:
            del self._kept[place]
        self._kept[index] = (score, make())

    @property
    def kept(self) -> list[T]:
        """In the order of the sequence."""
        return [self._kept[place][1] for place in sorted(self._kept)]
