"""From a candidate to settings that can work here, and what they would change; or to a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import structlog

from agent.applying.checking import Size, check, check_overlay
from agent.applying.contract import Plan, Refused
from agent.applying.differing import needs_agent, plan
from agent.applying.journal import Record
from agent.capacity.costs import crowding
from config.errors import ConfigError, InvalidConfig
from config.layers import Layers, with_overlay
from config.loading import validate
from config.redact import redact
from config.settings import Settings

log = structlog.get_logger()


def examine(
    record: Record, layers: Layers, now: Settings, sizes: Mapping[str, Size], *, safe: bool
) -> tuple[Settings, Plan]:
    """now: what is in force; safe: but none of its cameras runs. sizes: of the pictures of those that run. Opens new
    camera sources, which takes seconds. Raises Refused."""
    check_overlay(record.overlay)
    settings = _valid(record, layers)
    planned = plan(now, settings)
    if paths := needs_agent(planned.diff):
        sentence = "takes effect only when the agent is started again; nothing was applied"
        raise Refused(422, tuple((path, sentence) for path in paths))
    if safe:
        planned = replace(planned, restarts=tuple(settings.cameras))
    check(None if safe else now, settings, sizes)
    crowded = crowding(settings)
    if crowded is not None and planned.restarts:
        log.warning("the cameras will get fewer frames than they are to have", reason=crowded)
        planned = replace(planned, notes=(crowded,))
    return settings, planned


def _valid(record: Record, layers: Layers) -> Settings:
    try:
        document = layers.document(record.text or "")
        return validate(with_overlay(document, record.overlay, record.version))
    except InvalidConfig as error:
        raise Refused(400, tuple((m.path, f"{m.message} ({m.origin})") for m in error.mistakes)) from None
    except ConfigError as error:
        raise Refused(400, (("", redact(str(error))),)) from None
