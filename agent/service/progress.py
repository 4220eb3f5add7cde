"""Heartbeats: every loop says that it goes on, or that it waits for something and knows it.

A beat is one assignment, without a lock: it costs a frame nothing. Who looks for late loops reads what is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_FOREVER = float("inf")


class Beat:
    """One loop's heart, for the thread that runs it. It begins idle: a loop counts from its first beat on.

    A loop that ends for good says `idle`; one that dies without a word is late from then on.
    """

    __slots__ = ("_clock", "_since", "name")

    def __init__(self, name: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self._since = _FOREVER

    def beat(self, ahead_s: float = 0.0) -> None:
        """Another round begins. ahead_s: so much of it is known to be long."""
        self._since = self._clock() + ahead_s

    def idle(self) -> None:
        """There is nothing to do until somebody else brings something: a frame, a wish, the time to try again."""
        self._since = _FOREVER

    def silent_s(self) -> float:
        """Seconds since the last beat, without those that were known; 0 while idle."""
        return max(0.0, self._clock() - self._since)


@dataclass(frozen=True, slots=True)
class Late:
    """A loop that has not gone on for `silent_s` seconds."""

    loop: str
    silent_s: float

    def __str__(self) -> str:
        return f"{self.loop} has not gone on for {self.silent_s:.0f} s"


class Progress:
    """The heartbeats of one agent, by the name of the loop. limit_s: a loop that is silent for longer is late."""

    def __init__(self, limit_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._beats: tuple[Beat, ...] = ()
        self._lock = threading.Lock()

    def loop(self, name: str) -> Beat:
        """The heart of a new loop. Two may have one name: a camera, and the one that is to take its place."""
        beat = Beat(name, self._clock)
        with self._lock:
            self._beats += (beat,)
        return beat

    def retire(self, beat: Beat) -> None:
        """This loop is nobody's business any more."""
        with self._lock:
            self._beats = tuple(other for other in self._beats if other is not beat)

    @property
    def loops(self) -> dict[str, float]:
        """Seconds of silence by loop."""
        silent: dict[str, float] = {}
        for beat in self._beats:
            silent[beat.name] = max(beat.silent_s(), silent.get(beat.name, 0.0))
        return silent

    def late(self) -> list[Late]:
        """Loops that are late, the most silent first."""
        found = [Late(name, silent_s) for name, silent_s in self.loops.items() if silent_s > self.limit_s]
        return sorted(found, key=lambda late: -late.silent_s)
