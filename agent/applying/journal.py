"""What of an apply is on disk at each moment, so that a crash at any of them leaves the old configuration or the new.

    candidate.json     an apply has begun and is not committed; `starts` counts the starts of the agent since
    committed.json     what runs, and to which everything goes back: the last known good
    history/           those before, the newest few
    outcome.json       how the last apply from afar ended that was not committed
    refused.json       a text of the configuration file that was not taken

A file is there whole or not at all. The commit is one rename, candidate.json to committed.json: before it the new
configuration was never there, after it the old one is history.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from agent.applying.contract import Step
from agent.evidence.files import write_whole

log = structlog.get_logger()

_KEPT = 5
M = TypeVar("M", bound=BaseModel)


class Record(BaseModel):
    """A configuration, as far as it is not the box's own variables and options.

    overlay, version, digest: what was sent from afar. text: of the configuration file, None where there is none.
    serial: counts the applies from afar. number: counts the commits. remote: it was sent from afar. starts: of a
    candidate, how often the agent has started since it was staged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlay: Mapping[str, JsonValue] = {}
    version: int = 0
    digest: str = ""
    text: str | None = None
    serial: int = 0
    number: int = 0
    remote: bool = False
    starts: int = 0


class Outcome(BaseModel):
    """How an apply from afar ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    serial: int
    version: int
    reason: str
    code: int


class RefusedText(BaseModel):
    """A text of the configuration file that was not taken, by its SHA-256, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    reason: str


class Journal:
    """The files of one state folder, for one thread at a time. Methods that write raise OSError; what they were to
    write is then as it was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._candidate, self._committed = folder / "candidate.json", folder / "committed.json"
        self._outcome, self._refused = folder / "outcome.json", folder / "refused.json"
        self.interrupted: Record | None = None
        """What was being applied when the agent died, until `settle`."""
        self.committed = self._read_committed()

    @property
    def last(self) -> tuple[int, Step] | None:
        """Version and final step of the last apply from afar."""
        outcome = _read(self._outcome, Outcome)
        if outcome is not None and outcome.serial > self.committed.serial:
            return outcome.version, Step("rolled_back", outcome.reason, outcome.code)
        return (self.committed.version, Step("applied", None, 200)) if self.committed.serial else None

    def begin(self) -> None:
        """A start of the agent: what was being applied is given up, and how often it was is counted. Sets
        `interrupted`. A full disk is no reason not to start."""
        candidate = _read(self._candidate, Record)
        if candidate is None:
            return
        self.interrupted = candidate.model_copy(update={"starts": candidate.starts + 1})
        try:
            self._give_up(candidate, "the agent died or lost power before it was committed", 500)
            _write(self._candidate, self.interrupted)
        except OSError as error:
            log.error("that an apply was interrupted can't be written", reason=error.strerror)

    def settle(self) -> None:
        """The configuration that an apply went back to has proved itself, or was stopped in peace."""
        if self.interrupted is not None:
            self._drop_candidate()
            self.interrupted = None

    def adopt(self, text: str | None) -> None:
        """The configuration file that the agent was started with is the one to go back to from now on. A full disk is
        no reason not to start."""
        if self.committed.text == text:
            return
        before, number = self.committed, self.committed.number + 1
        self.committed = before.model_copy(update={"text": text, "number": number})
        try:
            self._commit_aside(before)
            _write(self._committed, self.committed)
        except OSError as error:
            log.error("the configuration file can't be kept", reason=error.strerror)

    def stage(self, wanted: Record) -> Record:
        """Put a candidate on disk; returns it with its numbers."""
        outcome = _read(self._outcome, Outcome)
        serial = self.committed.serial
        if wanted.remote:
            serial = max(serial, 0 if outcome is None else outcome.serial) + 1
        candidate = wanted.model_copy(update={"serial": serial, "number": self.committed.number + 1, "starts": 0})
        _write(self._candidate, candidate)
        self.interrupted = None
        return candidate

    def commit(self, candidate: Record) -> None:
        """The candidate is what runs from now on. Raises OSError only when it is not."""
        self._commit_aside(self.committed)
        self._candidate.replace(self._committed)
        self.committed = candidate
        try:
            _sync(self._folder)
            self._prune()
        except OSError as error:
            log.error("the configuration's files can't be written", reason=error.strerror)

    def roll_back(self, candidate: Record, reason: str, code: int) -> None:
        """The candidate is given up."""
        self._give_up(candidate, reason, code)
        self._drop_candidate()

    def refuse(self, text: str, reason: str) -> None:
        """Remember that this text of the configuration file is not taken."""
        _write(self._refused, RefusedText(sha256=_sha256(text), reason=reason))

    def refused(self, text: str) -> str | None:
        """Why this text of the configuration file was not taken, None when it wasn't asked or was."""
        refused = _read(self._refused, RefusedText)
        return refused.reason if refused is not None and refused.sha256 == _sha256(text) else None

    def _give_up(self, candidate: Record, reason: str, code: int) -> None:
        if candidate.remote:
            outcome = Outcome(serial=candidate.serial, version=candidate.version, reason=reason, code=code)
            _write(self._outcome, outcome)
        elif candidate.text is not None and candidate.text != self.committed.text:
            self.refuse(candidate.text, reason)

    def _drop_candidate(self) -> None:
        self._candidate.unlink(missing_ok=True)
        _sync(self._folder)

    def _commit_aside(self, record: Record) -> None:
        """Keep what has been committed until now in the history."""
        if not self._committed.exists():
            return
        kept = self._folder / "history" / f"{record.number:08d}-version-{record.version}.json"
        kept.parent.mkdir(exist_ok=True)
        if not kept.exists():
            kept.hardlink_to(self._committed)
            _sync(kept.parent)

    def _prune(self) -> None:
        for old in sorted((self._folder / "history").glob("*.json"))[:-_KEPT]:
            old.unlink(missing_ok=True)

    def _read_committed(self) -> Record:
        """What is committed; where the disk has lost it, the newest that it still has."""
        for path in (self._committed, *sorted((self._folder / "history").glob("*.json"), reverse=True)):
            found = _read(path, Record)
            if found is not None:
                return found
        return Record()


def _read(path: Path, model: type[M]) -> M | None:
    """None where there is none, and for a file that is damaged, which is set aside."""
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        aside = path.with_name(f"{path.name}.damaged")
        log.error("a file of the configuration can't be read and is set aside", file=str(aside), reason=str(error))
        path.replace(aside)
        return None


def _write(path: Path, document: BaseModel) -> None:
    def write(part: Path) -> None:
        """For the agent's user alone: a text may hold credentials in URLs."""
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(document.model_dump_json())

    write_whole(path, write)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
