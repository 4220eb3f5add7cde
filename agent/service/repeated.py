"""One line a minute for what is said again and again; the next one says how many were left out."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

_MINUTE_S = 60.0
_REMEMBERED = 256


class Repeated:
    """A processor. Entries are the same when sentence, level, exception and all texts in them are; numbers may differ.
    Safe from any thread."""

    def __init__(self, every_s: float = _MINUTE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._said: OrderedDict[tuple[tuple[str, str], ...], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, _logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        texts = sorted((name, value) for name, value in entry.items() if isinstance(value, str))
        key = (*texts, ("", repr(sys.exc_info()[1]))) if entry.get("exc_info") else tuple(texts)
        now = self._clock()
        with self._lock:
            last_s, left_out = self._said.get(key, (None, 0))
            silent = last_s is not None and now - last_s < self._every_s
            self._said[key] = (last_s, left_out + 1) if last_s is not None and silent else (now, 0)
            self._said.move_to_end(key)
            if len(self._said) > _REMEMBERED:
                self._said.popitem(last=False)
        if silent:
            raise structlog.DropEvent
        if left_out:
            entry["repeated"] = left_out
        return entry
