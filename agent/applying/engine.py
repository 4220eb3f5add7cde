"""The engine that applies a configuration to the running agent; `agent.applying.contract` says what it promises.

file, SIGHUP ─┐                                                                  ┌─▶ proved ─▶ commit
              ├─▶ parse ─▶ validate ─▶ check ─▶ stage on disk ─▶ change ─▶ watch ─┤
from afar ────┘        refused, nothing has changed                              └─▶ worse ─▶ change back
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
from pydantic import JsonValue

from agent.applying.checking import Size
from agent.applying.contract import Candidate, Plan, Refused, Step
from agent.applying.differing import MODEL
from agent.applying.examining import examine
from agent.applying.journal import Journal, Record
from agent.applying.proving import Health, Limits, prove
from agent.applying.starting import FILE, MODE, OVERLAY, SAFE_MODE, Start
from agent.service.progress import Beat
from config.errors import ConfigError, StillwatchError
from config.layers import Layers
from config.redact import redact
from config.settings import Settings

log = structlog.get_logger()

FILE_PROBATION_S = 20.0
_EXAMINING_S = 120.0
"""What the check of a configuration may take: each camera that is new is opened."""
_CHANGING_S = 60.0
_CAMERA_S = 30.0
_MODEL_S = 1800.0
"""What the change may take: each camera that is new is built, waited for, and takes over; engines of a new model may
have to be built."""


class Agent(Protocol):
    """What can be changed while it runs. `change` raises StillwatchError; after that it may be called again with the
    settings from before. strict: raise when a new camera gives no frames."""

    def sizes(self) -> Mapping[str, Size]: ...

    def health(self) -> Health: ...

    def change(self, settings: Settings, *, strict: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds of a run. settled: after which what was gone back to after a crash counts as good. again: of safe mode,
    after which what was configured is tried again."""

    settled: float = 60.0
    again: float = 900.0


class ApplyEngine:
    """Implements `Applier`, and applies the configuration file. began: what the agent has started with. closing: set
    when the agent is about to stop. beat: the heart of its thread."""

    def __init__(
        self,
        agent: Agent,
        journal: Journal,
        layers: Layers,
        began: Start,
        *,
        closing: threading.Event | None = None,
        limits: Limits | None = None,
        beat: Beat | None = None,
        patience: Patience | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent, self._journal, self._layers = agent, journal, layers
        self._settings, self._safe = began.settings, began.safe
        self._troubles = dict(began.troubles)
        self._limits, self._monotonic = limits or Limits(), monotonic
        self._beat = beat or Beat("apply")
        self._patience = patience or Patience()
        self._lock = threading.Lock()
        self._closing = closing or threading.Event()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._began_s = monotonic()
        self.rollbacks = 0
        """Configurations that this run took back."""

    @property
    def overlay(self) -> Mapping[str, JsonValue]:
        return self._journal.committed.overlay

    @property
    def version(self) -> int:
        return self._journal.committed.version

    @property
    def digest(self) -> str:
        return self._journal.committed.digest

    @property
    def last(self) -> tuple[int, Step] | None:
        return self._journal.last

    @property
    def settings(self) -> Settings:
        """What is in force."""
        return self._settings

    @property
    def troubles(self) -> tuple[str, ...]:
        """Sentences about what is configured and not in force."""
        return tuple(self._troubles.copy().values())

    @property
    def busy(self) -> bool:
        """Something is being checked or applied."""
        return self._busy

    def plan(self, candidate: Candidate) -> Plan:
        return self._examine(self._record(candidate))[1]

    def submit(self, candidate: Candidate, tell: Callable[[Step], None]) -> None:
        self._take()
        try:
            record = self._record(candidate)
            settings, planned = self._examine(record)
        except BaseException:
            self._busy = False
            raise
        self._spawn(lambda: self._apply(record, settings, planned, candidate.probation_s, tell))

    def reload(self, done: Callable[[], object] = lambda: None, probation_s: float = FILE_PROBATION_S) -> bool:
        """Apply the configuration file as it is now, on the engine's own thread, which calls `done` at the end. A file
        that can't be applied is told in log and `troubles`. False while something else is being applied: ask again."""
        try:
            self._take()
        except Refused:
            return False

        def work() -> None:
            try:
                self._reload(probation_s)
            finally:
                done()

        self._spawn(work)
        return True

    def tick(self) -> None:
        """To be called now and then: what was gone back to after a crash counts as good when it has run for a while,
        and in safe mode it is tried again after a longer one, for there may be nobody to do it."""
        age_s = self._monotonic() - self._began_s
        if self._safe:
            if age_s > self._patience.again and not self._busy:
                self._began_s += age_s
                self._try_again()
        elif age_s > self._patience.settled:
            with self._lock:
                if not self._busy:
                    self._settle()

    def _try_again(self) -> None:
        record = self._journal.committed.model_copy(update={"remote": False})
        try:
            self._take()
        except Refused:
            return

        def work() -> None:
            try:
                settings, planned = self._examine_here(record)
            except Refused as error:
                log.error("safe mode goes on", reason=str(error))
                self._troubles[MODE] = f"{SAFE_MODE}; tried again: {'; '.join(str(error).splitlines())}"
                return
            self._apply(record, settings, planned, FILE_PROBATION_S, lambda _step: None)

        self._spawn(work)

    def close(self, timeout_s: float = 1.0) -> None:
        """The agent is about to stop in peace: what has not proved itself is given up."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        if not self._busy:
            self._settle()

    def _settle(self) -> None:
        if self._journal.interrupted is not None:
            try:
                self._journal.settle()
            except OSError as error:
                log.error("the configuration's files can't be written", reason=str(error))

    def _take(self) -> None:
        with self._lock:
            if self._busy or self._closing.is_set():
                raise Refused(409, (("", "another configuration is being applied"),))
            self._busy = True

    def _spawn(self, work: Callable[[], None]) -> None:
        def run() -> None:
            self._beat.beat()
            try:
                work()
            except Exception:  # the agent goes on as it is
                log.exception("a configuration could not be applied")
            finally:
                self._beat.idle()
                self._busy = False

        self._thread = threading.Thread(target=run, name="apply", daemon=True)
        self._thread.start()

    def _record(self, candidate: Candidate) -> Record:
        return Record(
            overlay=candidate.overlay,
            version=candidate.version,
            digest=candidate.digest,
            text=self._journal.committed.text,
            remote=candidate.origin == "remote",
        )

    def _examine(self, record: Record) -> tuple[Settings, Plan]:
        return examine(record, self._layers, self._settings, self._agent.sizes(), safe=self._safe)

    def _examine_here(self, record: Record) -> tuple[Settings, Plan]:
        """On the engine's own thread."""
        self._beat.beat(_EXAMINING_S)
        examined = self._examine(record)
        self._beat.beat()
        return examined

    def _reload(self, probation_s: float) -> None:
        committed = self._journal.committed
        try:
            text = self._layers.text()
        except ConfigError as error:
            self._refuse_file(str(error))
            return
        if text == committed.text and not self._safe:
            self._troubles.pop(FILE, None)
            return
        record = committed.model_copy(update={"text": text, "remote": False})
        try:
            settings, planned = self._examine_here(record)
        except Refused as error:
            self._refuse_file(str(error))
            if error.code == 400:  # a start must not fail over it; all else may be another matter then
                self._remember(text, str(error))
            return
        self._apply(record, settings, planned, probation_s, self._file_step)

    def _file_step(self, step: Step) -> None:
        if step.state == "rolled_back" and step.reason is not None:
            self._refuse_file(step.reason)

    def _refuse_file(self, reason: str) -> None:
        reason = redact("; ".join(reason.splitlines()))
        log.error("the changed configuration file is not in force", file=str(self._layers.file), reason=reason)
        self._troubles[FILE] = f"{self._layers.file} is not in force: {reason}"

    def _remember(self, text: str, reason: str) -> None:
        try:
            self._journal.refuse(text, redact("; ".join(reason.splitlines())))
        except OSError as error:
            log.error("the configuration's files can't be written", reason=str(error))

    def _apply(
        self, record: Record, settings: Settings, planned: Plan, probation_s: float, tell: Callable[[Step], None]
    ) -> None:
        before = self._agent.health()
        try:
            record = self._journal.stage(record)
        except OSError as error:
            self._end(tell, Step("rolled_back", f"the state folder can't be written: {error.strerror}", 500))
            return
        try:
            failure = self._attempt(record, settings, planned, before, probation_s, tell)
        except Exception as error:
            log.exception("a configuration could not be put in force")
            failure = Step("rolled_back", f"internal error: {type(error).__name__}; see the log", 500)
        if failure is None:
            self._settings, self._safe = settings, False
            for solved in (MODE, OVERLAY) if record.remote else (MODE, FILE):
                self._troubles.pop(solved, None)
            self._end(tell, Step("applied", None, 200))
            return
        if not self._closing.is_set():
            self._change_back(planned)
        try:
            self._journal.roll_back(record, failure.reason or "", failure.code)
        except OSError as error:
            log.error("the configuration's files can't be written", reason=str(error))
        self._end(tell, failure)

    def _attempt(
        self,
        record: Record,
        settings: Settings,
        planned: Plan,
        before: Health,
        probation_s: float,
        tell: Callable[[Step], None],
    ) -> Step | None:
        """Change, prove, commit; the final step where one of them failed."""
        tell(Step("staged", None, 202))
        tell(Step("applying", None, 202))
        log.info(
            "a configuration is being applied",
            origin="remote" if record.remote else "file",
            version=record.version,
            changes=[each.path for each in planned.diff],
            restarts=planned.restarts,
        )
        if planned.diff or planned.restarts:
            try:
                self._change(settings, planned, strict=True)
            except StillwatchError as error:
                return Step("rolled_back", redact(str(error)), 422)
        tell(Step("probation", None, 202))
        if planned.restarts:
            reason = prove(before, self._health, probation_s, self._closing, self._limits, self._monotonic)
            if reason is not None:
                return Step("rolled_back", reason, 422)
        try:
            self._journal.commit(record)
        except OSError as error:
            return Step("rolled_back", f"the state folder can't be written: {error.strerror}", 500)
        return None

    def _change(self, settings: Settings, planned: Plan, *, strict: bool) -> None:
        """Raises StillwatchError."""
        cameras_s = _CAMERA_S * len({*settings.cameras, *self._settings.cameras})
        self._beat.beat(_CHANGING_S + cameras_s + (_MODEL_S if MODEL in planned.restarts else 0.0))
        self._agent.change(settings, strict=strict)
        self._beat.beat()

    def _health(self) -> Health:
        """In each round of the probation."""
        self._beat.beat()
        return self._agent.health()

    def _change_back(self, planned: Plan) -> None:
        back = self._settings.model_copy(update={"cameras": {}}) if self._safe else self._settings
        try:
            self._change(back, planned, strict=False)
        except Exception:  # the rest of the agent goes on
            log.exception("the agent could not go back to its configuration; it does at the next start")

    def _end(self, tell: Callable[[Step], None], step: Step) -> None:
        if step.state == "applied":
            log.info("the configuration is in force", version=self.version)
        else:
            self.rollbacks += 1
            log.error("the configuration was taken back", reason=step.reason)
        tell(step)
