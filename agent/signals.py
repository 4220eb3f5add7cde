"""Ctrl-C and SIGTERM as a wish to end, and a second one as an order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM set `stop`; a second one ends the process at once, as if we were not here. For
    the main thread only."""

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_reloads() -> None:
    """Until `reloaded_by_signal`: what asks an agent that is still starting to read its file again must not end it. The
    file is about to be read anyway."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextmanager
def reloaded_by_signal(reload: Callable[[], None]) -> Iterator[None]:
    """While inside, SIGHUP calls `reload`, which only notes it. For the main thread only."""
    before = signal.signal(signal.SIGHUP, lambda _number, _frame: reload())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
