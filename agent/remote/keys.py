"""Whose word counts: Ed25519 public keys, pinned in a file of this machine.

A line a key, `KID ed25519 BASE64`, and `#` begins a comment. Several keys make rotation: put the new one beside the
old, sign with the new, take the old one out. Only who can write the file can add a key; no document can.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.remote.documents import Signature
from agent.remote.reading import refused
from config.errors import ConfigError
from config.settings import Remote

KID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def read_keys(path: Path) -> dict[str, Ed25519PublicKey]:
    """kid → key. Raises ConfigError, with the line, for a file that can't be used or that anybody may write."""
    try:
        if path.stat().st_mode & stat.S_IWOTH:
            raise ConfigError(f"{path}: anybody may write this file, and with it trust themselves; chmod o-w {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; expected lines of KID ed25519 BASE64") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't read the keys: {error.strerror}") from None
    keys: dict[str, Ed25519PublicKey] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        place = f"{path}:{number}"
        if len(words) != 3 or words[1] != "ed25519" or not KID.fullmatch(words[0]):
            raise ConfigError(f"{place}: expected KID ed25519 BASE64, as `stillwatch config keygen` prints it")
        if words[0] in keys:
            raise ConfigError(f"{place}: the key {words[0]} is there twice")
        try:
            keys[words[0]] = Ed25519PublicKey.from_public_bytes(base64.b64decode(words[2], validate=True))
        except ValueError:  # of base64, too
            raise ConfigError(f"{place}: {words[0]}: expected base64 of the 32 bytes of a public key") from None
    return keys


def verify(document: bytes, signature: Signature, keys: Mapping[str, Ed25519PublicKey]) -> None:
    """Raises Refused 401 unless the key that is named is one of ours and has signed exactly these bytes."""
    key = keys.get(signature.kid)
    if key is None:
        raise refused(401, "sig.kid", f"no key {signature.kid} is trusted here")
    try:
        key.verify(base64.b64decode(signature.value, validate=True), document)
    except (InvalidSignature, binascii.Error, ValueError):
        raise refused(401, "sig.value", f"the signature is not one of {signature.kid} over this document") from None


def trusted(document: bytes, signature: Signature | None, keys_file: Path | None, *, required: bool) -> None:
    """Whether a document may be read on. The file of keys is read each time: a key that is taken out counts no more at
    once. A signature that is there must hold, even where none is required. Raises Refused 401."""
    if signature is None:
        if required:
            raise refused(401, "sig", "expected a signature; this box takes signed documents only")
        return
    try:
        keys = {} if keys_file is None else read_keys(keys_file)
    except ConfigError:
        raise refused(401, "sig.kid", "the keys of this box can't be read; its log says why") from None
    verify(document, signature, keys)


def key_troubles(settings: Remote | None) -> tuple[str, ...]:
    """Why nobody can configure this box from afar now, as a sentence. No reason to stand still: cameras are watched all
    the same, and a file that is mended counts at once."""
    if settings is None or settings.keys is None:
        return ()
    try:
        keys = read_keys(settings.keys)
    except ConfigError as error:
        return (f"remote.keys: {error}",)
    return () if keys else (f"remote.keys: {settings.keys} holds no key; nobody can configure this box from afar",)
