"""Takes what arrives on `config/desired`, hands what may be done to the applier, and reports what became of it.

One thread judges; the applier works on its own. While it works, and before a document's time has come, the newest
document waits; it is judged again when its turn comes. A stranger's message never displaces it: only documents whose
signature holds can wait.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import structlog
from pydantic import JsonValue

from agent.applying.contract import FINAL, Applier, Candidate, Difference, Plan, Refused, Step
from agent.remote.documents import Change, Overlay, Problem, Reported, ReportedState
from agent.remote.judging import Desired, Identity, admitted, authentic, highest, known
from agent.remote.memory import Accepted, keep, recall
from agent.remote.reading import MAX_BYTES, id_of, refused
from agent.service.progress import Beat
from config.redact import redact

log = structlog.get_logger()

_WAITING = 64
_BUSY_AGAIN_S = 1.0
_BUSY_FOR_S = 600.0
_LONGEST_SLEEP_S = 3600.0
_STRANGER_S = 0.02
"""After a message whose sender is not trusted: a flood of them must not take the cores from the cameras."""
_CHECKING_S = 120.0
"""What a check may take: each camera that is new is opened."""


def _utc() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True)
class _Postponed:
    """give_up: monotonic seconds, after which somebody else's apply is no reason to wait any more."""

    desired: Desired
    give_up: float


class RemoteConfig:
    """memory: file for what was accepted last. report: takes each report, in order, and never waits.

    Messages and the applier's steps go through one inbox, and one thread works it off: `start` makes it. Without it
    (in a test) `work_off` does the same.
    """

    def __init__(
        self,
        applier: Applier,
        identity: Identity,
        memory: Path,
        report: Callable[[Reported], None],
        *,
        beat: Beat | None = None,
        utc: Callable[[], datetime] = _utc,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._applier, self._identity, self._memory, self._report = applier, identity, memory, report
        self._beat, self._utc, self._monotonic = beat or Beat(), utc, monotonic
        self._accepted = recall(memory)
        self._inbox: queue.SimpleQueue[bytes | tuple[Desired, Step] | None] = queue.SimpleQueue()
        self._running: tuple[Desired, Step] | None = None
        self._postponed: _Postponed | None = None
        self._told: Reported | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> RemoteConfig:
        """Say how things are, and begin to work."""
        self.announce()
        self._thread = threading.Thread(target=self._run, name="remote", daemon=True)
        self._thread.start()
        return self

    def take(self, payload: bytes) -> None:
        """From any thread; never waits. Beyond so many that wait strangers' messages are lost, beyond twice as many all
        are."""
        if not payload or self._closed:
            return  # nothing: somebody has removed what was retained
        payload, waiting = payload[: MAX_BYTES + 1], self._inbox.qsize()
        if waiting >= 2 * _WAITING or (waiting >= _WAITING and not self._is_trusted(payload)):
            log.warning("too many configurations arrive at once; one is passed over")
            return
        self._inbox.put(payload)

    def _is_trusted(self, payload: bytes) -> bool:
        try:
            authentic(payload, self._identity)
        except Refused:
            return False
        return True

    def announce(self) -> None:
        """How the last one ended, or that there was none."""
        last, accepted = self._applier.last, self._accepted
        if last is None:
            self._say(None, None, "idle", 200, "nothing was sent yet")
        else:
            name = accepted.id if accepted is not None and accepted.version == last[0] else None
            self._say(name, last[0], last[1].state, last[1].code, last[1].reason)

    def repeat(self) -> None:
        """What was told last once more, to who has not heard it."""
        if self._told is not None:
            self._report(self._told)

    def work_off(self) -> None:
        """Everything that waits in the inbox, and what its time has come."""
        while True:
            while not self._inbox.empty():
                if (found := self._inbox.get()) is not None:
                    self._work(found)
            self._resume()
            if self._inbox.empty():
                return

    def close(self) -> None:
        """Take nothing more in; steps that have been taken are told. A second call does nothing."""
        self._closed = True
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join(0.5)

    def _run(self) -> None:
        while True:
            self._beat.idle()
            try:
                found = self._inbox.get(timeout=self._sleep_s())
            except queue.Empty:
                found = b""
            if found is None:
                return
            self._beat.beat()
            try:
                if not self._work(found):
                    time.sleep(_STRANGER_S)
                self._resume()
            except Exception:  # a message enters here; the next one must find us
                log.exception("a configuration from afar could not be handled")

    def _work(self, found: bytes | tuple[Desired, Step]) -> bool:
        """False when it was a stranger's."""
        if found == b"":
            return True  # only to look at what waits
        if isinstance(found, bytes):
            try:
                desired = authentic(found, self._identity)
            except Refused as error:
                self._reject(id_of(found), None, error)
                return False
            self._consider(desired, self._monotonic() + _BUSY_FOR_S)
        else:
            self._stepped(*found)
        return True

    def _sleep_s(self) -> float | None:
        if self._postponed is None:
            return None
        begins = self._postponed.desired.document.not_before
        left = 0.0 if begins is None else (begins - self._utc()).total_seconds()
        return min(max(left, _BUSY_AGAIN_S), _LONGEST_SLEEP_S)

    def _resume(self) -> None:
        waiting = self._postponed
        if waiting is None or self._running is not None or self._too_early(waiting.desired):
            return
        try:
            self._consider(waiting.desired, waiting.give_up)
        finally:
            if self._postponed is waiting:
                self._postponed = None

    def _consider(self, desired: Desired, give_up: float) -> None:
        document = desired.document
        if self._running is not None and self._running[0].digest == desired.digest:
            self._running = desired, self._running[1]
            self._tell(desired, self._running[1])
            return
        if (step := known(desired, self._applier, self._accepted)) is not None:
            self._tell(desired, step)
            return
        try:
            candidate = admitted(desired, self._applier, self._utc())
            if document.mode == "check":
                self._beat.beat(_CHECKING_S)
                plan = self._applier.plan(candidate)
                self._beat.beat()
                self._say(desired.id, document.version, "checked", 200, plan=plan)
            elif self._too_early(desired):
                self._postpone(desired, give_up, f"waits until {document.not_before}")
            elif self._running is not None:
                self._postpone(desired, give_up, f"waits for version {self._running[0].document.version}")
            else:
                self._submit(desired, candidate, give_up)
        except Refused as error:
            self._reject(desired.id, document.version, error)
        except Exception as error:  # of the applier: the sender must hear of it
            log.exception("a configuration from afar could not be applied")
            fault = refused(500, "", f"internal error: {type(error).__name__}; see the log")
            self._reject(desired.id, document.version, fault)

    def _too_early(self, desired: Desired) -> bool:
        begins = desired.document.not_before
        return begins is not None and self._utc() < begins

    def _postpone(self, desired: Desired, give_up: float, reason: str) -> None:
        before, self._postponed = self._postponed, _Postponed(desired, give_up)
        if before is not None and before.desired.digest != desired.digest:
            document = before.desired.document
            error = refused(409, "version", f"version {desired.document.version} came before it was its turn")
            self._reject(before.desired.id, document.version, error)
        if before is None or before.desired.id != desired.id:
            self._say(desired.id, desired.document.version, "received", 202, reason)

    def _submit(self, desired: Desired, candidate: Candidate, give_up: float) -> None:
        earlier, before = self._accepted, self._committed()
        self._accepted = Accepted(
            id=desired.id,
            version=candidate.version,
            digest=candidate.digest,
            before=before,
            earlier=self._previous(),
        )
        self._running = desired, Step("staged", None, 202)
        try:
            keep(self._memory, self._accepted)
            self._beat.beat(_CHECKING_S)
            self._applier.submit(candidate, lambda step: self._inbox.put((desired, step)))
            self._beat.beat()
        except Exception as error:
            self._running, self._accepted = None, earlier
            if earlier is not None:
                keep(self._memory, earlier)
            if isinstance(error, Refused) and error.code == 409 and self._monotonic() < give_up:
                self._postpone(desired, give_up, "waits until another change is applied")  # of the box's file
                return
            raise

    def _stepped(self, desired: Desired, step: Step) -> None:
        if self._running is not None and self._running[0].digest == desired.digest:
            desired = self._running[0]  # asked for again meanwhile, perhaps under another id
            self._running = None if step.state in FINAL else (desired, step)
        self._tell(desired, step)
        if step.state in FINAL:
            log.info("configuration from afar", version=desired.document.version, state=step.state, reason=step.reason)

    def _tell(self, desired: Desired, step: Step) -> None:
        self._say(desired.id, desired.document.version, step.state, step.code, step.reason)

    def _reject(self, name: str | None, version: int | None, error: Refused) -> None:
        log.warning(
            "a configuration from afar is refused", id=name, version=version, code=error.code, reason=str(error)
        )
        self._say(name, version, "rejected", error.code, errors=error.errors)

    def _committed(self) -> Overlay:
        return Overlay(version=self._applier.version, config=dict(self._applier.overlay))

    def _previous(self) -> Overlay | None:
        """What was committed before what is committed now."""
        accepted = self._accepted
        if accepted is None:
            return None
        return accepted.before if accepted.version == self._applier.version else accepted.earlier

    def _say(
        self,
        name: str | None,
        version: int | None,
        state: ReportedState,
        code: int,
        reason: str | None = None,
        *,
        errors: tuple[tuple[str, str], ...] = (),
        plan: Plan | None = None,
    ) -> None:
        self._told = Reported(
            ts=self._utc(),
            device=self._identity.device,
            id=name,
            version=version,
            state=state,
            code=code,
            reason=redact(reason or ("" if plan is None else "; ".join(plan.notes))),
            errors=tuple(Problem(path=path, msg=redact(message)) for path, message in errors),
            diff=() if plan is None else tuple(map(_change, sorted(plan.diff, key=lambda each: each.path))),
            restarts=() if plan is None else plan.restarts,
            highest=highest(self._applier),
            running=self._committed(),
            digest=self._applier.digest,
            previous=self._previous(),
        )
        self._report(self._told)


def _change(each: Difference) -> Change:
    return Change(path=each.path, before=_shown(each.before), after=_shown(each.after))


def _shown(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {key: _shown(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_shown(below) for below in value]
    return redact(value) if isinstance(value, str) else value
