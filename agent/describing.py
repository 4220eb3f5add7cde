"""One thread that puts token features into words, for all cameras: the newest wish of each camera counts."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import structlog
from numpy.typing import NDArray

log = structlog.get_logger()

Describe = Callable[[NDArray[np.float32]], Iterator[str]]
"""Features float32 (T, D) of one camera's frame → pieces of text as they are made. May raise EngineFault."""


@dataclass(frozen=True, slots=True)
class Description:
    """What came of a wish. text: what was said. missing: why it is not the whole text, None when it is."""

    text: str
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class _Wish:
    describe: Describe
    features: NDArray[np.float32]
    done: Callable[[Description], None]


class DescribingThread:
    """Takes wishes from frame loops and never makes them wait.

    A wish replaces the one of the same camera that has not begun; that one is told so. A description that has begun
    goes on to its end, at most `deadline_s`: where news never stops, something must still be said. Every wish is
    answered once, from this thread or from the one that calls `wish` or `close`.
    """

    def __init__(self, *, deadline_s: float = 20.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._deadline_s = deadline_s
        self._clock = clock
        self._wishes: OrderedDict[str, _Wish] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._current: _Wish | None = None  # being described, and not given up
        self._busy = False  # until it is answered
        self._thread = threading.Thread(target=self._run, name="describing", daemon=True)
        self._thread.start()

    def wish(
        self,
        camera: str,
        describe: Describe,
        features: NDArray[np.float32],
        done: Callable[[Description], None],
    ) -> None:
        """Have features described; `done` gets the answer. features: float32 (T, D), copied before this returns."""
        wish = _Wish(describe, features.copy(), done)
        with self._changed:
            closed = self._closed
            replaced = None if closed else self._wishes.pop(camera, None)
            if not closed:
                self._wishes[camera] = wish
                self._changed.notify_all()
        if closed:
            _answer(wish, Description("", "no text: the agent was stopping"))
        if replaced is not None:
            _answer(replaced, Description("", "no text: newer news came first"))

    def finish(self, timeout_s: float) -> bool:
        """Wait until every wish is answered; False when that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._wishes and not self._busy, timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        """Stop after the word being made, and answer what is left; a word that takes longer than `timeout_s` is not
        waited for. A second call does nothing."""
        with self._changed:
            self._closed = True
            left = list(self._wishes.values())
            self._wishes.clear()
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            stuck, self._current = self._current, None
        for wish in left if stuck is None else [stuck, *left]:
            _answer(wish, Description("", "no text: the agent was stopping"))

    def __enter__(self) -> DescribingThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._wishes or self._closed)
                if self._closed:
                    return
                _, wish = self._wishes.popitem(last=False)
                self._current, self._busy = wish, True
            description = self._describe(wish)
            with self._changed:
                given_up, self._current = self._current is None, None
            if not given_up:
                _answer(wish, description)

    def _describe(self, wish: _Wish) -> Description:
        deadline = self._clock() + self._deadline_s
        pieces: list[str] = []
        missing = None
        try:
            for piece in wish.describe(wish.features):
                pieces.append(piece)
                if self._closed:
                    missing = "text cut short: the agent was stopping"
                elif self._clock() > deadline:
                    missing = f"text cut short after {self._deadline_s:g} s"
                if missing:
                    break
        except Exception as error:  # the next description may well succeed; the frame loop must not notice
            log.warning("description failed", reason=str(error))
            missing = f"text cut short: {error}" if pieces else f"no text: {error}"
        return Description("".join(pieces).strip(), missing)


def _answer(wish: _Wish, description: Description) -> None:
    try:
        wish.done(description)
    except Exception:  # whoever asked must not end the thread that serves all
        log.exception("a description could not be handed on")
