"""What the engine that applies a configuration promises to whoever brings one: a file, the broker, later a page.

    plan    validate, check against the world, say what would change and restart; changes nothing
    submit  the same, then on the applier's own thread: staged ─▶ applying ─▶ probation ─▶ applied | rolled_back

What can't be applied is `Refused` at once, with every reason; what began always ends in one of the last two states,
even when power is lost on the way: then `last` tells of it after the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import JsonValue

State = Literal["staged", "applying", "probation", "applied", "rolled_back"]
FINAL: tuple[State, ...] = ("applied", "rolled_back")


class Refused(Exception):
    """A candidate that is not applied. Nothing has changed.

    code: 400 not a configuration (keys, types), 409 another one is being applied or this one is too old, 422 valid but
    not workable here (camera, model, zones), 500 a disk or a fault of ours. errors: (dotted path, message), the path
    empty where the whole is meant. Neither holds a secret.
    """

    def __init__(self, code: int, errors: tuple[tuple[str, str], ...]) -> None:
        super().__init__("\n".join(f"{path}: {message}" if path else message for path, message in errors))
        self.code = code
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration that is wanted. overlay: the whole remote overlay as it would be, {} = none; of a file candidate
    the one that is committed. version, digest: the sender's, kept and reported. probation_s: how long it must prove
    itself, 0 = commit at once. origin: `remote`, or `file` for a changed file under the same overlay."""

    overlay: Mapping[str, JsonValue]
    version: int
    digest: str
    probation_s: float
    origin: Literal["remote", "file"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that changes; None = not there. Secrets are shown as the reference to them, URLs without credentials."""

    path: str
    before: JsonValue
    after: JsonValue


@dataclass(frozen=True, slots=True)
class Plan:
    """What a candidate would do. restarts: names of cameras, and `mqtt`, `model`, `agent`, for what is made anew; a
    camera that is new or goes is among them. notes: what is worth knowing before, as sentences."""

    diff: tuple[Difference, ...]
    restarts: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """How far an apply has come. reason: why it was rolled back; with `applied`, what is worth knowing, None = nothing.
    code: 202 on the way, 200 applied, 422 did not prove itself, 500 a fault of ours or a crash."""

    state: State
    reason: str | None
    code: int


class Applier(Protocol):
    """Safe from any thread."""

    @property
    def overlay(self) -> Mapping[str, JsonValue]:
        """The committed remote overlay, {} = none."""
        ...

    @property
    def version(self) -> int:
        """Of the committed overlay, 0 = none was ever committed."""
        ...

    @property
    def digest(self) -> str:
        """Of the committed overlay, empty = none was ever committed."""
        ...

    @property
    def last(self) -> tuple[int, Step] | None:
        """Version and final step of the last remote apply, also of one that a crash interrupted; kept over restarts."""
        ...

    def plan(self, candidate: Candidate) -> Plan:
        """Check as `submit` would (a new camera source is opened) and say what would happen. Raises Refused."""
        ...

    def submit(self, candidate: Candidate, tell: Callable[[Step], None]) -> None:
        """Check, then apply. Raises Refused at once; else `tell` gets every step, from the applier's thread, and the
        last one it gets is final (unless the agent stops or dies: then see `last` after the next start). Raises Refused
        409 while another candidate is being applied."""
        ...
