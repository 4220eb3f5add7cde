"""The sender's side: a private key in a file that only its owner can read, and documents signed with it."""

from __future__ import annotations

import base64
import json
import os
import stat
import uuid
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from agent.remote.documents import SignedDocument
from agent.remote.reading import MAX_BYTES
from config.errors import ConfigError


def make_key(path: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """A fresh private key in a file with mode 0600 (PEM, PKCS 8, as openssl reads it). Raises ConfigError for a file
    that is there already or can't be written."""
    key = Ed25519PrivateKey.generate()
    lock: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        lock = BestAvailableEncryption(passphrase.encode())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path}: is there already; a key is never overwritten") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't write the key: {error.strerror}") from None
    with os.fdopen(handle, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    return key


def load_key(path: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """Raises ConfigError for what is no Ed25519 key, and for one that others can read."""
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"{path}: others than its owner can read this key; chmod 600 {path}")
        key = load_pem_private_key(path.read_bytes(), None if passphrase is None else passphrase.encode())
    except OSError as error:
        raise ConfigError(f"{path}: can't read the key: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: no private key in PEM: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: expected an Ed25519 key; `stillwatch config keygen` makes one")
    return key


def public_line(key: Ed25519PrivateKey, kid: str) -> str:
    """The line for a box's file of keys."""
    return f"{kid} ed25519 {base64.b64encode(key.public_key().public_bytes_raw()).decode()}"


def seal(document: SignedDocument, key: Ed25519PrivateKey | None, kid: str) -> bytes:
    """The payload of `config/desired`; without a key not signed, for boxes that ask for none. Raises ConfigError for
    one that no box would read."""
    text = document.model_dump_json(exclude_defaults=True)
    envelope: dict[str, object] = {"v": 1, "id": str(uuid.uuid4()), "signed": text}
    if key is not None:
        value = base64.b64encode(key.sign(text.encode())).decode()
        envelope["sig"] = {"alg": "ed25519", "kid": kid, "value": value}
    payload = json.dumps(envelope, ensure_ascii=False).encode()
    if len(payload) > MAX_BYTES:
        raise ConfigError(f"{len(payload)} bytes; a box takes at most {MAX_BYTES}")
    return payload
