"""What an operator types, as what it means. Wrong usage raises typer.BadParameter, wrong contents ConfigError."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from pydantic import ValidationError

from agent.applying.contract import Refused
from agent.mqtt.address import BrokerAddress
from agent.mqtt.topics import Topics
from agent.remote.documents import SignedDocument
from agent.remote.keys import KID
from agent.remote.reading import read_envelope, read_signed
from agent.remote.signing import load_key, seal
from config.errors import ConfigError
from config.identity import device_id
from config.loading import load
from config.values import SecretReference


def target(
    config: Path | None,
    broker: str | None,
    device: str | None,
    root: str | None,
    user: str | None,
    password: str | None,
    ca: Path | None,
) -> tuple[BrokerAddress, Topics]:
    """The broker, and the topics of the box."""
    if config is None and (broker is None or device is None):
        raise typer.BadParameter("give --config, or --broker and --device", param_hint="--config")
    settings = None if config is None else load(config, os.environ)
    mqtt = None if settings is None else settings.mqtt
    if broker is not None:
        address = BrokerAddress.parse(broker, user=user, password=secret(password), ca_file=ca)
    elif mqtt is not None:
        address = BrokerAddress.of(mqtt)
    else:
        raise ConfigError(f"{config}: no mqtt.url: without a broker a box can't be configured from afar")
    if device is None and settings is not None:
        device = device_id(settings.device.id, settings.events.dir)
    return address, Topics(root or (mqtt.root if mqtt is not None else "stillwatch"), device or "")


def mode(replace: bool, check: bool) -> dict[str, str]:
    """The fields of a document that say it."""
    wanted = "replace" if replace else "merge"
    return {"mode": "check", "check": wanted} if check else {"mode": wanted}


def document_of(**values: Any) -> SignedDocument:
    try:
        return SignedDocument(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")) from None


def sealed(document: SignedDocument, key: Path | None, kid: str | None, passphrase: str | None) -> bytes:
    """Signed, where there is a key."""
    if key is None:
        return seal(document, None, "")
    return seal(document, load_key(key, secret(passphrase)), key_name(key, kid))


def sealed_in(file: Path) -> bytes | None:
    """What `sign` has written, None for anything else."""
    try:
        payload = file.read_bytes()
        found = json.loads(payload)
    except (OSError, ValueError):
        return None  # reading it as a configuration will say what is wrong
    return payload.strip() if isinstance(found, dict) and {"v", "id", "signed"} <= found.keys() else None


def opened(payload: bytes) -> SignedDocument:
    """Not verified: we hold no public keys, the box does."""
    try:
        return read_signed(read_envelope(payload).signed.encode())
    except Refused as error:
        raise ConfigError(str(error)) from None


def key_name(file: Path, kid: str | None) -> str:
    """A key is called like its file, unless it is told otherwise."""
    name = file.stem if kid is None else kid
    if not KID.fullmatch(name):
        raise typer.BadParameter(f"expected 1 to 64 letters, digits, ., _ or -, found {name!r}", param_hint="--kid")
    return name


def secret(reference: str | None) -> str | None:
    """Of a reference to it."""
    try:
        return None if reference is None else SecretReference(reference).read()
    except ValidationError:
        raise typer.BadParameter("expected file:PATH or env:NAME, not the secret itself") from None


def time_of(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        found = datetime.min
    if found.tzinfo is None:
        raise typer.BadParameter(f"expected a time with its zone, such as 2026-03-14T06:00:00Z, found {text!r}")
    return found
