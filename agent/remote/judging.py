"""What a document deserves, step by step; no state is changed here.

limits ─▶ envelope ─▶ signature ─▶ document ─▶ for us? ─▶ known already? ─▶ in time? ─▶ version ─▶ paths ─▶ candidate
  400        400         401          400        403         re-report       410         409     403, 422
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.applying.contract import Applier, Candidate, Step
from agent.remote.allowed import check_paths
from agent.remote.documents import SignedDocument
from agent.remote.keys import trusted
from agent.remote.memory import Accepted
from agent.remote.patch import lean, merged
from agent.remote.reading import read_envelope, read_signed, refused


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are to a sender, and whose word counts. keys: file of pinned keys."""

    device: str
    groups: frozenset[str]
    keys: Path | None
    require_signature: bool


@dataclass(frozen=True, slots=True)
class Desired:
    """A document whose sender is trusted, and that is for us. digest: SHA-256 of the signed text, as hex."""

    id: str
    digest: str
    document: SignedDocument


def authentic(payload: bytes, identity: Identity) -> Desired:
    """Raises Refused 400, 401 and 403."""
    envelope = read_envelope(payload)
    signed = envelope.signed.encode()
    trusted(signed, envelope.sig, identity.keys, required=identity.require_signature)
    document = read_signed(signed)
    if document.device is not None and document.device != identity.device:
        raise refused(403, "device", f"it is for {document.device}, not for {identity.device}")
    if document.group is not None and document.group not in identity.groups:
        raise refused(403, "group", f"it is for the group {document.group}, and this box is in none of that name")
    return Desired(envelope.id, hashlib.sha256(signed).hexdigest(), document)


def known(desired: Desired, applier: Applier, accepted: Accepted | None) -> Step | None:
    """How the same document ended when it came before; None = it is new."""
    version, digest = desired.document.version, desired.digest
    if desired.document.mode == "check":
        return None
    last = applier.last
    if accepted is not None and last is not None and (accepted.version, accepted.digest) == (version, digest):
        return last[1] if last[0] == version else None
    if (applier.version, applier.digest) == (version, digest):
        return Step("applied", None, 200)
    return None


def highest(applier: Applier) -> int:
    """The last version that was accepted, also when it was rolled back."""
    return applier.version if applier.last is None else applier.last[0]


def admitted(desired: Desired, applier: Applier, now: datetime) -> Candidate:
    """What is to be planned or submitted. Raises Refused 403, 409, 410 and 422."""
    document = desired.document
    if document.expires is not None and now >= document.expires:
        raise refused(410, "expires", f"it expired at {document.expires.isoformat()}")
    floor = highest(applier)
    if document.version <= floor and not document.allow_downgrade:
        raise refused(409, "version", f"expected a version above {floor}, the last one here; found {document.version}")
    if document.base_version is not None and document.base_version != applier.version:
        raise refused(409, "base_version", f"version {applier.version} is applied, not {document.base_version}")
    check_paths(document.config, merging=not document.replaces)
    overlay = lean(document.config) if document.replaces else merged(applier.overlay, document.config)
    return Candidate(overlay, document.version, desired.digest, document.probation_s, "remote")
