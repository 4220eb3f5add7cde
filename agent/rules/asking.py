"""The thread that asks the language model, for all cameras; frame loops hand questions over and go on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import structlog
from numpy.typing import NDArray

from agent.service.progress import Beat

log = structlog.get_logger()

Weigh = Callable[[str, NDArray[np.float32], Sequence[str]], NDArray[np.float64]]
"""A camera, features (T, D), questions (n,) → probabilities of yes (n,). May raise EngineFault."""
Answered = Callable[[Sequence[float] | None], None]
"""Gets the probabilities, or None when the model failed."""

_MAY_TAKE_S = 60.0
"""Of a large model, the first time, for all rules of a camera; from then on three times as long as it ever has, and no
longer than this. Who is silent for longer than that is looked after."""


@dataclass(frozen=True, slots=True)
class _Asked:
    camera: str
    features: NDArray[np.float32]
    questions: Sequence[str]
    answered: Answered


class Asking:
    """Cameras take turns. A camera hands over one set of questions at a time, and its next one when it was answered:
    that bounds what waits. Each is answered once, from this thread, unless `close` comes first. beat: the heart of the
    thread."""

    def __init__(self, weigh: Weigh, beat: Beat | None = None) -> None:
        self._weigh = weigh
        self._beat = beat or Beat("rules")
        self._waiting: deque[_Asked] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._fault: str | None = None
        self._longest_s = 0.0
        self._thread = threading.Thread(target=self._run, name="rules", daemon=True)
        self._thread.start()

    def ask(self, camera: str, features: NDArray[np.float32], questions: Sequence[str], answered: Answered) -> None:
        """Returns at once. features: not written to until `answered` is called."""
        with self._changed:
            self._waiting.append(_Asked(camera, features, questions, answered))
            self._changed.notify_all()

    def close(self, timeout_s: float = 1.0) -> None:
        """Drop what waits; the question being asked is not waited for longer than this. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def __enter__(self) -> Asking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._beat.idle()
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                asked = self._waiting.popleft()
                self._beat.beat(min(3 * self._longest_s or _MAY_TAKE_S, _MAY_TAKE_S))
            began_s = time.monotonic()
            self._answer(asked)
            self._longest_s = max(self._longest_s, time.monotonic() - began_s)

    def _answer(self, asked: _Asked) -> None:
        found: Sequence[float] | None = None
        try:
            found = [float(p) for p in self._weigh(asked.camera, asked.features, asked.questions)]
            self._fault = None
        except Exception as error:  # the next answer may well succeed
            if self._fault != str(error):  # said once, not with every question
                self._fault = str(error)
                log.warning("rules could not be asked", camera=asked.camera, reason=self._fault)
        try:
            asked.answered(found)
        except Exception:  # whoever asked must not end the thread that serves all
            log.exception("answers to rules could not be handed on", camera=asked.camera)
