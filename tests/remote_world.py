"""Senders with keys, and an applier that keeps everything in memory, for tests of remote configuration."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import JsonValue

from agent.applying.contract import Candidate, Difference, Plan, Refused, Step
from agent.remote.desk import RemoteConfig
from agent.remote.documents import Reported
from agent.remote.judging import Identity
from agent.remote.signing import public_line
from config.document import Document
from config.errors import ConfigError
from config.layers import with_overlay
from config.loading import validate

FILE: dict[str, Any] = {"cameras": {"front": {"source": "scene:street"}}}
NOW = datetime(2026, 3, 14, 6, 0, tzinfo=timezone.utc)


class MemoryApplier:
    """Applies at once, and fails as it is told to. ends: how the next apply ends; refuse: what the next is refused
    with. hold: it stays in probation until `finish`."""

    def __init__(self) -> None:
        self.overlay: Mapping[str, JsonValue] = {}
        self.version, self.digest = 0, ""
        self.last: tuple[int, Step] | None = None
        self.ends = Step("applied", None, 200)
        self.refuse: Refused | None = None
        self.hold = False
        self.applied: list[Candidate] = []
        self._busy: tuple[Candidate, Callable[[Step], None]] | None = None

    def plan(self, candidate: Candidate) -> Plan:
        if self.refuse is not None:
            raise self.refuse
        try:
            validate(with_overlay(Document("the file", FILE), candidate.overlay, candidate.version))
        except ConfigError as error:
            raise Refused(400, (("", str(error)),)) from None
        keys = sorted({*self.overlay, *candidate.overlay})
        changed = [key for key in keys if self.overlay.get(key) != candidate.overlay.get(key)]
        diff = tuple(Difference(key, self.overlay.get(key), candidate.overlay.get(key)) for key in changed)
        return Plan(diff, ("agent",) if diff else ())

    def submit(self, candidate: Candidate, tell: Callable[[Step], None]) -> None:
        self.plan(candidate)
        if self._busy is not None:
            raise Refused(409, (("", "another one is being applied"),))
        self._busy = candidate, tell
        for state in ("staged", "applying", "probation"):
            tell(Step(state, None, 202))
        if not self.hold:
            self.finish()

    def finish(self) -> None:
        assert self._busy is not None
        (candidate, tell), self._busy = self._busy, None
        if self.ends.state == "applied":
            self.overlay, self.version, self.digest = candidate.overlay, candidate.version, candidate.digest
            self.applied.append(candidate)
        self.last = candidate.version, self.ends
        tell(self.ends)

    @property
    def state(self) -> object:
        """All that must not change by a document that is refused."""
        return dict(self.overlay), self.version, self.digest, self.last, len(self.applied)


@dataclass(frozen=True)
class Sender:
    """Somebody with a key."""

    kid: str
    key: Ed25519PrivateKey

    @classmethod
    def of(cls, kid: str, seed: int) -> Sender:
        return cls(kid, Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")))

    @property
    def line(self) -> str:
        return public_line(self.key, self.kid) + "\n"

    def signature(self, text: str) -> dict[str, Any]:
        value = base64.b64encode(self.key.sign(text.encode("utf-8", "surrogatepass"))).decode()
        return {"alg": "ed25519", "kid": self.kid, "value": value}

    def seal(self, document: Mapping[str, Any] | str, name: str = "1") -> bytes:
        text = document if isinstance(document, str) else json.dumps(document)
        return json.dumps({"v": 1, "id": name, "signed": text, "sig": self.signature(text)}).encode()


OPS = Sender.of("ops-1", 1)
NEXT = Sender.of("ops-2", 2)
STRANGER = Sender.of("ops-1", 666)


def document(version: int = 1, config: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A good one, for the device `box`."""
    wanted = {"profile": "security"} if config is None else config
    made = {"version": version, "mode": "merge", "config": wanted, "device": "box", **more}
    return {key: value for key, value in made.items() if value is not None}


class Box:
    """The desk of the device `box` with an applier in memory; `send` a payload and get the reports it leads to."""

    def __init__(self, folder: Path, *, keys: str | None = None, require_signature: bool = True) -> None:
        self.folder = folder
        self.keys = folder / "keys"
        self.keys.write_text(OPS.line if keys is None else keys)
        self.applier = MemoryApplier()
        self.reports: list[Reported] = []
        self.now = NOW
        self.identity = Identity("box", frozenset({"north"}), self.keys, require_signature)
        self.restart()

    def restart(self) -> None:
        """As after a restart of the agent: all that is left is on disk and in the applier."""
        memory = self.folder / "remote" / "accepted.json"
        self.desk = RemoteConfig(self.applier, self.identity, memory, self.reports.append, utc=lambda: self.now)

    def send(self, payload: bytes) -> list[Reported]:
        before = len(self.reports)
        self.desk.take(payload)
        self.desk.work_off()
        return self.reports[before:]
