"""A deadline for work that can't be interrupted.

The work runs on a thread of its own; who asked waits for it until the deadline and goes on without. A late result is
dropped when it comes, and until then nothing new is begun. (`signal.alarm` counts whole seconds and works on the main
thread only.)
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadline(Generic[T]):
    """Runs one piece of work at a time; `late` counts the results that were not waited for."""

    def __init__(self, deadline_s: float, *, name: str = "deadline") -> None:
        self._deadline_s = deadline_s
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._running: Future[T] | None = None
        self.late = 0

    def run(self, work: Callable[[], T]) -> T | None:
        """The result of `work`, or None when it is late or earlier work still runs. Raises what `work` raises in
        time."""
        if self._running is not None and not self._running.done():
            self.late += 1
            return None
        self._running = self._pool.submit(work)
        try:
            return self._running.result(timeout=self._deadline_s)
        except FutureTimeout:
            self.late += 1
            return None

    def close(self) -> None:
        """Let the thread end; work that still runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
