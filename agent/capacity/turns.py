"""Whose frame is next, when more cameras have one than there are processors.

Left to themselves, threads get the processor in the order in which they ask, and one that asks all the time gets most.
Here whoever has used least goes first: start-time fair queueing (Goyal, Vin and Cheng, 1996), which over time gives
each camera its share of `agent.capacity.sharing`. Nobody waits while a processor is free, and nobody for ever: a camera
that hangs in its turn costs the others one wait.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

_PATIENCE_S = 2.0


class Turns:
    """at_once: how many have their turn at a time. patience_s: after so long one goes without."""

    def __init__(
        self,
        at_once: int | None = None,
        *,
        patience_s: float = _PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at_once = at_once or len(os.sched_getaffinity(0))
        self._patience_s, self._clock = patience_s, clock
        self._lock = threading.Lock()
        self._going: list[Seat] = []
        self._now = 0.0
        """Virtual time: what those whose turn it is had used, the least of them."""
        self._waiting: list[Seat] = []

    def seat(self) -> Seat:
        """For one camera, whose frames come one after the other."""
        return Seat(self)

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def ask(self, seat: Seat) -> None:
        """Give the last turn on, where it is still held, and stand in the queue, in one: else whoever is quick with the
        next frame would always find the queue empty. `seat.called` is set when it is this one's turn."""
        with self._lock:
            if not self._end(seat):
                seat.used_s = max(seat.used_s, self._now)  # who had nothing to do has no claim to what it didn't use
            seat.called.clear()
            self._waiting.append(seat)
            self._call()

    def wait(self, seat: Seat) -> None:
        """Until it is this one's turn, or patience is at its end."""
        if not seat.called.wait(self._patience_s):
            with self._lock:
                if seat in self._waiting:
                    if self._going:
                        self._end(self._going[0])  # it hangs: from now on the turns are without it
                    self._begin(seat)

    def leave(self, seat: Seat) -> None:
        """The turn is over, and there is nothing more to do for now. Nothing happens where none is held."""
        with self._lock:
            self._end(seat)
            self._call()

    def _end(self, seat: Seat) -> bool:
        if seat.began_s is None:
            return False
        seat.used_s += self._clock() - seat.began_s
        seat.began_s = None
        self._going.remove(seat)
        return True

    def _call(self) -> None:
        while self._waiting and len(self._going) < self._at_once:
            self._begin(min(self._waiting, key=lambda seat: seat.used_s))

    def _begin(self, seat: Seat) -> None:
        self._waiting.remove(seat)
        self._going.append(seat)
        self._now = max(self._now, min(other.used_s for other in self._going))
        seat.began_s = self._clock()
        seat.called.set()


class Seat:
    """One camera's place. For one thread."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.called = threading.Event()
        self.used_s = 0.0
        self.began_s: float | None = None
        """Of the turn that is held."""

    def take(self) -> None:
        """Wait for the next turn; the last one ends, if it was not left."""
        self._turns.ask(self)
        self._turns.wait(self)

    def leave(self) -> None:
        self._turns.leave(self)
