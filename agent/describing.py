"""The threads that put what a camera sees into words, for all cameras: alerts first, else each camera's newest wish."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.service.progress import Beat
from config.errors import DescriberError

log = structlog.get_logger()

_ALERTS_WAITING = 2
"""Alerts of one camera that wait for words; more than that could not get them in time."""


@dataclass(frozen=True, slots=True)
class Look:
    """What there is to be put into words: one state of what a camera sees.

    features: float32 (T, D). picture: the same as JPEG, None when no one asks for pictures. change: it is to be told
    against what was described last. before: the picture of that, filled in when the description begins.
    """

    features: NDArray[np.float32]
    picture: bytes | None = None
    change: bool = False
    before: bytes | None = None


Describe = Callable[[Look], Iterator[str]]
"""A look → pieces of text as they are made. May raise EngineFault and DescriberError."""


@dataclass(frozen=True, slots=True)
class Description:
    """What came of a wish. text: what was said. note: why it is not the whole text, or whose it is; None when there is
    nothing to say about it."""

    text: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Wish:
    describe: Describe
    fallback: Describe | None
    look: Look
    done: Callable[[Description], None]
    alert: bool


class DescribingThread:
    """Takes wishes from frame loops and never makes them wait.

    A wish takes the place of the same camera's wish that has not begun; that one is told so. An alert's wish gives way
    to nothing but a third alert: what comes after it waits behind it, and cameras with an alert go first. A description
    that has begun goes on to its end, at most `deadline_s`: where news never stops, something must still be said. Every
    wish is answered once, from a thread of this object or from the one that calls `wish` or `close`.

    parallel: how many cameras are described at a time; one camera's descriptions come one after the other. interrupt:
    called by `close` to end a describer that waits for something. loop: gives each thread a heart; quiet_s: for so
    long a describer may say nothing and be well, None = for three times as long as it ever has, and at first for
    `deadline_s`: a large model takes its time before the first word.
    """

    def __init__(
        self,
        *,
        parallel: int = 1,
        deadline_s: float = 20.0,
        interrupt: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        loop: Callable[[str], Beat] = Beat,
        quiet_s: float | None = None,
    ) -> None:
        self._deadline_s = deadline_s
        self._quiet_s, self._longest_s = quiet_s, 0.0
        self._interrupt = interrupt
        self._clock = clock
        self._wishes: OrderedDict[str, deque[_Wish]] = OrderedDict()  # alerts, then at most one other; never empty
        self._changed = threading.Condition()
        self._closed = False
        self._busy: set[str] = set()  # cameras whose wish has begun and is not answered
        self._unanswered: dict[str, _Wish] = {}  # begun, and whoever takes it from here must answer it
        self._pictures: dict[str, bytes] = {}  # what each camera's last words were about
        self._threads = [
            threading.Thread(target=self._run, name=f"describing {i}", args=(loop(f"describing {i}"),), daemon=True)
            for i in range(parallel)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def patience_s(self) -> float:
        """How long an answer may take: one description may have to end before it, and that of another alert."""
        return (1 + _ALERTS_WAITING) * self._deadline_s

    def wish(
        self,
        camera: str,
        describe: Describe,
        look: Look,
        done: Callable[[Description], None],
        *,
        fallback: Describe | None = None,
        alert: bool = False,
    ) -> None:
        """Have a look described; `done` gets the answer. The features are copied before this returns. fallback: the
        built-in model, asked when `describe` gives no words. alert: it is about one."""
        wish = _Wish(describe, fallback, replace(look, features=look.features.copy()), done, alert)
        replaced = None
        with self._changed:
            closed = self._closed
            if not closed:
                line = self._wishes.setdefault(camera, deque())
                if line and not line[-1].alert:
                    replaced = line.pop()
                elif alert and len(line) == _ALERTS_WAITING:
                    replaced = line.popleft()
                line.append(wish)
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
            left = [wish for line in self._wishes.values() for wish in line]
            self._wishes.clear()
            self._changed.notify_all()
        self._interrupt()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            left = [*self._unanswered.values(), *left]
            self._unanswered.clear()
        for wish in left:
            _answer(wish, Description("", "no text: the agent was stopping"))

    def __enter__(self) -> DescribingThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, beat: Beat) -> None:
        while (begun := self._begin()) is not None:
            beat.beat(self._ahead_s())
            camera, wish = begun
            description = self._describe(wish, beat)
            with self._changed:
                given_up = self._unanswered.pop(camera, None) is None
                if description.text and wish.look.picture is not None:
                    self._pictures[camera] = wish.look.picture
            if not given_up:
                _answer(wish, description)
            with self._changed:
                self._busy.discard(camera)
                self._changed.notify_all()
            beat.idle()

    def _begin(self) -> tuple[str, _Wish] | None:
        """The first wish of a camera that is not being described, when there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._next() is not None)
            camera = self._next()
            if self._closed or camera is None:
                return None
            line = self._wishes[camera]
            wish = line.popleft()
            if not line:
                del self._wishes[camera]
            if wish.look.change:
                wish = replace(wish, look=replace(wish.look, before=self._pictures.get(camera)))
            self._busy.add(camera)
            self._unanswered[camera] = wish
            return camera, wish

    def _next(self) -> str | None:
        free = [camera for camera in self._wishes if camera not in self._busy]
        return next((camera for camera in free if self._wishes[camera][0].alert), free[0] if free else None)

    def _describe(self, wish: _Wish, beat: Beat) -> Description:
        told = self._say(wish.describe, wish.look, beat)
        if told.text or told.note is None or wish.fallback is None or self._closed:
            return told
        instead = self._say(wish.fallback, wish.look, beat)
        if not instead.text:
            return told
        reason = told.note.removeprefix(_NO_TEXT)
        return Description(instead.text, instead.note or f"text by the built-in model: {reason}")

    def _say(self, describe: Describe, look: Look, beat: Beat) -> Description:
        beat.beat(self._ahead_s())
        said_s = self._clock()
        deadline = said_s + self._deadline_s
        pieces: list[str] = []
        reason = None
        try:
            for piece in describe(look):
                pieces.append(piece)
                before_s, said_s = said_s, self._clock()
                self._longest_s = max(self._longest_s, said_s - before_s)
                beat.beat(self._ahead_s())
                if self._closed:
                    reason = "the agent was stopping"
                elif self._clock() > deadline:
                    reason = f"it took longer than {self._deadline_s:g} s"
                if reason:
                    break
        except Exception as error:  # the next description may well succeed; the frame loop must not notice
            if not isinstance(error, DescriberError):  # the server's troubles are told once, by who watches over it
                log.warning("description failed", reason=str(error))
            reason = "the agent was stopping" if self._closed else str(error)
        beat.beat()
        text = "".join(pieces).strip()
        return Description(text, reason and (f"text cut short: {reason}" if text else f"{_NO_TEXT}{reason}"))

    def _ahead_s(self) -> float:
        if self._quiet_s is not None:
            return self._quiet_s
        return 3 * self._longest_s or self._deadline_s


_NO_TEXT = "no text: "


def _answer(wish: _Wish, description: Description) -> None:
    try:
        wish.done(description)
    except Exception:  # whoever asked must not end the thread that serves all
        log.exception("a description could not be handed on")
