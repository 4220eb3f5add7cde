"""What an agent starts with: normally all that is configured, after a crash during an apply less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.applying.journal import Journal
from config.errors import ConfigError
from config.layers import Layers, with_overlay
from config.loading import validate
from config.settings import Settings

log = structlog.get_logger()

FILE, OVERLAY, MODE = "file", "overlay", "mode"
"""What a trouble is about."""
SAFE_MODE = "safe mode: the agent died twice over a change of its configuration; no camera is watched"
_ENOUGH_STARTS = 2


@dataclass(frozen=True, slots=True)
class Start:
    """What an agent starts with. safe: it shall watch no camera. troubles: why this is not all that was configured, by
    what they are about."""

    settings: Settings
    safe: bool
    troubles: Mapping[str, str]


def start(journal: Journal, layers: Layers) -> Start:
    """What to run now: what this machine says with the overlay from afar over it; after a crash during an apply, what
    was there before; after another crash, no camera. Raises ConfigError, OSError."""
    journal.begin()
    text, troubles = layers.text(), {}
    refused = None if layers.file is None else journal.refused(text)
    if refused is not None and journal.committed.text is not None:
        troubles[FILE] = f"{layers.file} is not in force: {refused}"
        text = journal.committed.text
    else:
        validate(layers.document(text))
        journal.adopt(None if layers.file is None else text)
    safe = journal.interrupted is not None and journal.interrupted.starts >= _ENOUGH_STARTS
    if safe:
        troubles[MODE] = SAFE_MODE
    document, committed = layers.document(text), journal.committed
    try:
        return Start(validate(with_overlay(document, committed.overlay, committed.version)), safe, troubles)
    except ConfigError as error:
        if not committed.overlay:
            raise
        troubles[OVERLAY] = f"what was sent from afar, version {committed.version}, is not in force: {error}"
        return Start(validate(document), safe, troubles)


def settings_at_start(layers: Layers) -> Settings:
    """What this machine says; where the agent that ran before has refused this text of its file, what was in force
    then: a box that nobody visits must not stay away because of a file that was never used. Raises ConfigError."""
    text = layers.text()
    try:
        return validate(layers.document(text))
    except ConfigError as error:
        journal = Journal(state_folder(layers, text) / "config")
        if layers.file is None or journal.committed.text is None or journal.refused(text) is None:
            raise
        log.error("the configuration file is not in force", file=str(layers.file), reason=str(error))
        return validate(layers.document(journal.committed.text))


def state_folder(layers: Layers, text: str) -> Path:
    """`events.dir`, as far as it can be read of a configuration that isn't valid."""
    for said in (text, ""):
        try:
            events = layers.document(said).data.get("events")
        except ConfigError:
            continue
        if isinstance(events, dict) and isinstance(events.get("dir"), str):
            return Path(events["dir"])
    return Settings.model_fields["events"].get_default().dir  # type: ignore[no-any-return]
