"""A desk for what comes over the link to the broker."""

from __future__ import annotations

from pathlib import Path

import structlog

from agent.applying.contract import Applier
from agent.mqtt.client import MqttLink
from agent.mqtt.topics import Topics
from agent.remote.desk import RemoteConfig
from agent.remote.judging import Identity
from agent.remote.keys import read_keys
from config.errors import ConfigError
from config.settings import Remote

log = structlog.get_logger()


def join(settings: Remote, applier: Applier, link: MqttLink, topics: Topics, folder: Path) -> RemoteConfig:
    """Listens on `config/desired` and reports on `config/reported`, at once how the last document ended. folder: of the
    state. Close it before the link."""
    identity = Identity(topics.device, frozenset(settings.groups), settings.keys, settings.require_signature)
    desk = RemoteConfig(
        applier,
        identity,
        folder / "remote" / "accepted.json",
        lambda report: link.tell(topics.reported, report.model_dump_json()),
    )
    link.listen(topics.desired, lambda message: desk.take(message.payload))
    return desk.start()


def key_trouble(settings: Remote) -> str | None:
    """Why nobody can configure this box from afar now, as a sentence; None when somebody can. No reason to stand still:
    cameras are watched all the same, and a file that is mended counts at once."""
    if settings.keys is None:
        return None
    try:
        keys = read_keys(settings.keys)
    except ConfigError as error:
        return f"remote.keys: {error}"
    return None if keys else f"remote.keys: {settings.keys} holds no key; nobody can configure this box from afar"
