"""What is said on `config/desired` and `config/reported`.

An envelope carries the signed document as a text, and the signature is over exactly the UTF-8 bytes of that text: no
canonical JSON, and nothing of it is read before the signature holds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from agent.events.model import Document, Text, Timestamp
from config.values import Identifier

KeyId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Version = Annotated[int, Field(ge=1, le=2**53 - 1)]
Mode = Literal["merge", "replace", "check"]
ReportedState = Literal[
    "idle", "received", "rejected", "checked", "staged", "applying", "probation", "applied", "rolled_back"
]
FINAL: tuple[ReportedState, ...] = ("rejected", "checked", "applied", "rolled_back")


class _Incoming(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Signature(_Incoming):
    """kid: which of the pinned keys. value: base64 of the 64 bytes."""

    alg: Literal["ed25519"]
    kid: KeyId
    value: Annotated[str, Field(max_length=128)]


class Envelope(_Incoming):
    """`config/desired`. id: echoed in reports. signed: a `SignedDocument` as JSON text; sig: over its UTF-8 bytes, may
    only be missing where the box asks for no signature."""

    v: Annotated[int, Field(ge=1, le=1)]  # a literal would take true for 1
    id: Annotated[str, Field(min_length=1, max_length=64)]
    signed: str
    sig: Signature | None = None


class SignedDocument(_Incoming):
    """What the sender vouches for: what is wanted, by which box, when.

    version: above the last one that the box accepted. base_version: only where exactly this one is applied. mode:
    merge (RFC 7386 onto what was sent before, null takes a value back), replace (all that was sent before; null takes
    away what the box's own file names) or check (say what `check` would do, and do nothing). device, group: one of
    them, for whom it is. probation_s: how long the box has to prove itself. allow_downgrade: take a lower version; only
    with base_version and expires, or it could be replayed.
    """

    version: Version
    base_version: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    mode: Mode
    check: Literal["merge", "replace"] = "merge"
    config: dict[str, JsonValue]
    device: Identifier | None = None
    group: Identifier | None = None
    not_before: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    probation_s: Annotated[float, Field(ge=1, le=3600)] = 60.0
    allow_downgrade: bool = False

    @model_validator(mode="after")
    def _bound(self) -> SignedDocument:
        if (self.device is None) == (self.group is None):
            raise PydanticCustomError("binding", "expected either device or group, to say whom it is for")
        if self.allow_downgrade and (self.base_version is None or self.expires is None):
            raise PydanticCustomError("downgrade", "allow_downgrade needs base_version and expires")
        return self

    @property
    def replaces(self) -> bool:
        """Is what was sent before dropped (or would be)?"""
        return (self.check if self.mode == "check" else self.mode) == "replace"


class Problem(Document):
    """path: dotted, empty where the whole document is meant."""

    path: Text = ""
    msg: Text


class Change(Document):
    """One key that would change; null = not there."""

    path: Text
    before: JsonValue = None
    after: JsonValue = None


class Overlay(Document):
    """What is set from afar, over the box's own file."""

    version: Annotated[int, Field(ge=0)]
    config: dict[str, JsonValue] = Field(default_factory=dict)


class Reported(Document):
    """`config/reported`: what became of a desired document, and what runs. Retained, and told again after a restart.

    id, version: of that document, null where it can't be told, or there was none (state `idle`). code: like HTTP.
    reason: a sentence, empty when all is said. diff, restarts: of a check. highest: the last version that was accepted,
    the next must be above it. running: what is applied now; digest: SHA-256 of the signed document that it came with.
    previous: what was applied before, null where that is not known.
    """

    v: Literal[1] = 1
    ts: Timestamp
    device: str
    id: Text | None = None
    version: int | None = None
    state: ReportedState
    code: int
    reason: Text = ""
    errors: tuple[Problem, ...] = ()
    diff: tuple[Change, ...] = ()
    restarts: tuple[str, ...] = ()
    highest: Annotated[int, Field(ge=0)]
    running: Overlay
    digest: str = ""
    previous: Overlay | None = None


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema of the documents of remote configuration, by name."""
    return {
        "config_desired": TypeAdapter(Envelope).json_schema(),
        "config_desired_signed": TypeAdapter(SignedDocument).json_schema(),
        "config_reported": TypeAdapter(Reported).json_schema(mode="serialization"),
    }
