"""What may be set from afar: an allow-list by path. Everything else is decided at the box.

What is not on it, and why: the broker, keys and credentials (a mistake or a thief could lock the owner out), sources
and paths (they make the box read files and call hosts of somebody's choice), the describer's server (it decides where
pictures go), the model (a path), privacy masks (what is masked at the box must not be uncovered from afar), retention
(shortened, it deletes evidence), the metrics port, and who may configure at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import JsonValue

from agent.applying.contract import Refused

ALLOWED = (
    "device.name",
    "profile",
    "fidelity_floor",
    "cameras.*.fps",
    "cameras.*.zones",
    "cameras.*.ignore",
    "cameras.*.rules",
    "events.clips.pre_s",
    "events.clips.post_s",
    "describer.per_hour",
    "describer.parallel",
    "describer.timeout_s",
    "describer.max_tokens",
    "describer.temperature",
    "describer.image",
    "describer.prompt",
    "describer.fallback",
)
"""Each stands for itself and all below it; `*` is any one name."""
_PATTERNS = tuple(tuple(pattern.split(".")) for pattern in ALLOWED)
_MOST_ERRORS = 50
_HIDDEN = re.compile(r"^\*{3,}$|://\*\*\*@|\w=\*\*\*")

Path = tuple[str, ...]


def check_paths(config: dict[str, JsonValue], *, merging: bool = True) -> None:
    """merging: a null takes back what was sent before, and may therefore stand further up than what may be set.

    Raises Refused 403 with each path that may not be set from afar, else 422 with each value that is what we show
    instead of a secret: sent back, it would overwrite what it stands for.
    """
    forbidden = [path for path, value in _leaves(config, ()) if not _may_set(path, value, merging)]
    if forbidden:
        raise Refused(403, tuple((_dotted(path), "can't be set from afar") for path in forbidden[:_MOST_ERRORS]))
    hidden = [path for path, text in _texts(config, ()) if _HIDDEN.search(text)]
    if hidden:
        message = "is what is shown instead of a secret; leave the key out"
        raise Refused(422, tuple((_dotted(path), message) for path in hidden[:_MOST_ERRORS]))


def _may_set(path: Path, value: JsonValue, merging: bool) -> bool:
    if any(_matches(path[: len(pattern)], pattern) for pattern in _PATTERNS if len(path) >= len(pattern)):
        return True
    harmless = value == {} or (merging and value is None)
    return harmless and any(_matches(path, pattern[: len(path)]) for pattern in _PATTERNS)


def _matches(path: Path, pattern: tuple[str, ...]) -> bool:
    return len(path) == len(pattern) and all(want in ("*", part) for part, want in zip(path, pattern, strict=True))


def _leaves(value: JsonValue, path: Path) -> Iterator[tuple[Path, JsonValue]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, (*path, key))
    elif path:
        yield path, value


def _texts(value: JsonValue, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from _texts(below, (*path, key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _texts(below, (*path, str(index)))


def _dotted(path: Path) -> str:
    return ".".join(path)[:200]
