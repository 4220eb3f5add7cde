"""Where the value of each key comes from."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from config.document import Document, KeyPath, dotted
from config.errors import ConfigError
from config.loading import redacted, section_at, validate


@dataclass(frozen=True, slots=True)
class Explained:
    """The value of one key, fit to be shown, and its source; over: what it won over, the strongest first."""

    key: str
    value: Any
    source: str
    over: tuple[tuple[Any, str], ...] = ()

    def __str__(self) -> str:
        beaten = "".join(f"; {source} says {_text(value)}" for value, source in self.over)
        return f"{self.key} = {_text(self.value)}  ({self.source}{beaten})"


def explain(stages: Sequence[Document], key: str, profile: Mapping[str, Mapping[str, Any]]) -> list[Explained]:
    """Each key at or below `key` (all for an empty one), with its value in the last stage and where that came from.

    stages: the configuration as each layer left it, the weakest first. profile: by profile, the keys that it gives a
    value where nobody else does. Raises ConfigError for a configuration that isn't valid, and for an unknown key, with
    the nearest.
    """
    settings = validate(stages[-1])
    values = redacted(settings.model_dump(mode="json"))
    wanted: KeyPath = tuple(key.split(".")) if key else ()
    absent = _absent(values, wanted)
    if absent is not None:
        return [Explained(key, None, f"there is no {dotted(absent)}")]
    found = [
        _explain(stages, path, value, settings.profile, profile.get(settings.profile, {}))
        for path, value in _leaves(values, ())
        if path[: len(wanted)] == wanted
    ]
    if not found:
        near = difflib.get_close_matches(key, _names(values, ()), n=1)
        raise ConfigError(f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else ""))
    return found


def _explain(
    stages: Sequence[Document], path: KeyPath, value: Any, profile: str, given: Mapping[str, Any]
) -> Explained:
    said: list[tuple[Any, str]] = []
    for stage in stages:
        if stage.holds(path) and (not said or said[-1][1] != stage.origin(path)):
            said.append((redacted(_at(stage.data, path)), stage.origin(path)))
    if said and stages[-1].holds(path):
        return Explained(dotted(path), value, said[-1][1], tuple(reversed(said[:-1])))
    over = tuple(reversed(said))  # taken away by a later layer
    if value is None and dotted(path) in given:
        return Explained(dotted(path), given[dotted(path)], f"profile {profile}", over)
    return Explained(dotted(path), value, "default", over)


def _absent(values: Any, wanted: KeyPath) -> KeyPath | None:
    """The section that is not there, of a key that it would have."""
    for depth, part in enumerate(wanted):
        if values is None:
            section: type[BaseModel] | None = section_at(wanted[:depth])
            return wanted[:depth] if section is not None and part in section.model_fields else None
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return None


def _leaves(values: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, values


def _names(values: Any, path: KeyPath) -> Iterator[str]:
    if path:
        yield dotted(path)
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _names(value, (*path, key))


def _at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


def _text(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
