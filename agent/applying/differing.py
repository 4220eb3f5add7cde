"""What changes between two configurations, and what has to be made anew for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.applying.contract import Difference, Plan
from config.loading import shown
from config.settings import Mqtt, Settings

AGENT, MQTT, MODEL = "agent", "mqtt", "model"
_NOTHING = object()
_ROOT = Mqtt.model_fields["root"].default


def plan(before: Settings, after: Settings) -> Plan:
    """The keys that differ, and who restarts: the cameras in the order of their names, then the shared parts."""
    diff = tuple(differences(shown(before), shown(after)))
    shared = {part for each in diff if (part := _shared(each)) is not None}
    return Plan(diff, (*changed_cameras(before, after), *(part for part in (MODEL, MQTT, AGENT) if part in shared)))


def changed_cameras(before: Settings, after: Settings) -> list[str]:
    """Cameras that are new, gone, or made in another way."""
    names = sorted({*before.cameras, *after.cameras})
    return [name for name in names if makings(before, name) != makings(after, name)]


def makings(settings: Settings, name: str) -> object:
    """Everything that the worker of a camera is made of; None where there is no such camera."""
    camera = settings.cameras.get(name)
    if camera is None:
        return None
    s = settings
    return camera, s.model, s.profile, s.fidelity_floor, s.describer, s.events.clips


def needs_agent(diff: tuple[Difference, ...]) -> tuple[str, ...]:
    """Paths that only a start of the agent brings in."""
    return tuple(each.path for each in diff if _shared(each) == AGENT)


def differences(before: Any, after: Any, path: str = "") -> Iterator[Difference]:
    """Of two trees of plain data: the deepest keys that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            below = f"{path}.{key}" if path else key
            yield from differences(before.get(key, _NOTHING), after.get(key, _NOTHING), below)
    elif before is _NOTHING and isinstance(after, dict) and after:
        yield from differences({}, after, path)
    elif after is _NOTHING and isinstance(before, dict) and before:
        yield from differences(before, {}, path)
    elif before != after:
        yield Difference(path, None if before is _NOTHING else before, None if after is _NOTHING else after)


def _shared(each: Difference) -> str | None:
    """The part that is not a camera's and has to be made anew for this key, None where there is none."""
    path = each.path
    top, _, below = path.partition(".")
    if top in ("cameras", "profile", "fidelity_floor", "describer") or below.startswith("clips"):
        return None
    if path == "device.name":  # read anew each time that it is told
        return None
    if top == "model":
        return MODEL
    if top == "mqtt":  # without a broker topics begin as they do by default
        return AGENT if below == "root" and {each.before, each.after} != {None, _ROOT} else MQTT
    return AGENT
