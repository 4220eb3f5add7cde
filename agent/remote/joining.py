"""A desk for what comes over the links to the broker, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.applying.contract import Applier
from agent.mqtt.client import MqttLink
from agent.mqtt.topics import Topics
from agent.remote.desk import RemoteConfig
from agent.remote.documents import Reported
from agent.remote.judging import Identity
from agent.service.progress import Beat
from config.settings import Remote


def open_desk(
    settings: Remote,
    applier: Applier,
    topics: Topics,
    folder: Path,
    link: Callable[[], MqttLink | None],
    beat: Beat | None = None,
) -> RemoteConfig:
    """Not started yet. folder: of the state. link: the one that reports go to now; `attach` each to be listened to."""

    def report(reported: Reported) -> None:
        if (now := link()) is not None:
            now.tell(topics.reported, reported.model_dump_json())

    identity = Identity(topics.device, frozenset(settings.groups), settings.keys, settings.require_signature)
    return RemoteConfig(applier, identity, folder / "remote" / "accepted.json", report, beat=beat)


def attach(desk: RemoteConfig, link: MqttLink, topics: Topics) -> None:
    """Listen on `config/desired` of this link, a fresh one."""
    link.listen(topics.desired, lambda message: desk.take(message.payload))
    desk.repeat()
