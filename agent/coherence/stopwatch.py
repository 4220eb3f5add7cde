"""Where a frame's time goes."""

from __future__ import annotations

from collections.abc import Callable


class Stopwatch:
    """Splits one frame's time into named stages; `stage` is the one that runs. A stage that comes again adds up."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.start()

    def start(self) -> None:
        """A new frame begins."""
        self.stage = ""
        self._since = 0.0
        self._spent: dict[str, float] = {}

    def lap(self, stage: str) -> float:
        """What runs from now on is `stage`; milliseconds of the one before it."""
        now = self._clock()
        spent = 1e3 * (now - self._since)
        if self.stage:
            self._spent[self.stage] = self._spent.get(self.stage, 0.0) + spent
        self.stage, self._since = stage, now
        return spent

    def stop(self) -> dict[str, float]:
        """Milliseconds by stage of the frame that ends here."""
        self.lap("")
        return self._spent
