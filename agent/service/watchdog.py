"""The thread that tells systemd that all goes on, for as long as it does.

    every loop ──beat──▶ Progress ──▶ watchdog ──▶ WATCHDOG=1, STATUS=…      all go on
                                          ├──▶ log, STATUS=…, rescue        one is late: silent for half of WatchdogSec
                                          └──▶ WATCHDOG=trigger             … and for all of it

A thread of its own, so that the main loop is watched like every other; when it hangs itself, nobody feeds. Restarting
is systemd's work: without systemd late loops are told in log and health, and nothing else happens.
"""

from __future__ import annotations

import faulthandler
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

import structlog

from agent import notify
from agent.service.progress import Late, Progress

log = structlog.get_logger()

_ROUND_S = 1.0
_STATUS_EVERY_S = 2.0


class Watchdog:
    """Runs from `start` until `close`. status: how things are, in words. rescue: called on this thread in every round
    with the loops that are late, to save what they hold. period_s: WatchdogSec, None = nobody wants to be told.

    A watchdog that is fed writes the stacks of all threads to stderr when systemd ends it (SIGABRT).
    """

    def __init__(
        self,
        progress: Progress,
        *,
        status: Callable[[], str],
        rescue: Callable[[Sequence[Late]], None] = lambda _late: None,
        period_s: float | None = None,
    ) -> None:
        self._progress, self._status, self._rescue = progress, status, rescue
        self._period_s = period_s
        self._round_s = _ROUND_S
        if period_s is not None:
            progress.limit_s = period_s / 2
            self._round_s = min(_ROUND_S, period_s / 8)
            if not faulthandler.is_enabled():
                faulthandler.enable()
        self._told: tuple[str, ...] = ()
        self._last_status = ""
        self._status_in_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """From now on systemd may count: call it together with `notify.ready`. Once only."""
        self._thread.start()

    def close(self) -> None:
        """A second call does nothing."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=1.0)

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop.wait(self._round_s):
            try:
                self._look()
            except Exception:  # what can't be told must not end the agent, and what is late is still late
                log.exception("the watchdog could not look")

    def _look(self) -> None:
        late = self._progress.late()
        self._tell_late(late)
        self._rescue(late)
        sentence = "; ".join([*map(str, late), self._status()])
        if late and self._period_s is not None and late[0].silent_s >= self._period_s:
            log.error("a loop hangs, the agent is to be started again", reason=late[0].loop)
            notify.pull_watchdog(sentence)
            return
        if self._period_s is not None and not late:
            notify.feed_watchdog()
        self._status_in_s -= self._round_s
        if sentence != self._last_status and (late or self._status_in_s <= 0):
            self._last_status, self._status_in_s = sentence, _STATUS_EVERY_S
            notify.status(sentence)

    def _tell_late(self, late: Sequence[Late]) -> None:
        names = tuple(one.loop for one in late)
        for one in late:
            if one.loop not in self._told:
                log.error("a loop does not go on", loop=one.loop, silent_s=round(one.silent_s, 1))
        for name in self._told:
            if name not in names:
                log.info("a loop goes on again", loop=name)
        self._told = names
