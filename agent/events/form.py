"""The same news as Home Assistant's event entity reads it: one flat object with an `event_type`.

Such an entity knows all of its types in advance, and passes every other field on as an attribute. A `new` telling has
the event's kind as type, the others say what they are: `anomaly`, `anomaly_update`, `anomaly_end`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from agent.events.model import AnyEvent, EventForm, EventType


def kinds() -> tuple[str, ...]:
    """Every kind of event that there is."""
    models = get_args(get_args(AnyEvent)[0])
    return tuple(str(model.model_fields["kind"].default) for model in models)


def event_types() -> tuple[str, ...]:
    """Every `event_type` that can come."""
    return tuple(_event_type(kind, step.value) for kind in kinds() for step in EventType)


def event_form(document: Mapping[str, Any]) -> dict[str, Any]:
    """The form of an event's document."""
    media = document.get("media") or {}
    known = {name: document[name] for name in EventForm.model_fields if name in document}
    return {
        "event_type": _event_type(document["kind"], document["type"]),
        **known,
        "snapshot": media.get("snapshot"),
        "clip": media.get("clip"),
    }


def _event_type(kind: str, step: str) -> str:
    return kind if step == EventType.NEW.value else f"{kind}_{step}"
