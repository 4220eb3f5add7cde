"""JSON merge patch (RFC 7386)."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue


def merged(target: Mapping[str, JsonValue], patch: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The target with the patch applied: a null deletes, an object goes into an object, anything else replaces.

    Objects that hold nothing in the end are left out: in an overlay they say nothing.
    """
    found = dict(target)
    for key, value in patch.items():
        before = found.get(key)
        if isinstance(value, dict):
            value = merged(before if isinstance(before, dict) else {}, value) or None
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value
    return found


def lean(overlay: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Without the objects that hold nothing. A null stays: it takes away what the box's own file says."""
    found: dict[str, JsonValue] = {}
    for key, value in overlay.items():
        if isinstance(value, dict):
            value = lean(value)
        if value != {}:
            found[key] = value
    return found
