"""A word out of a closed list, or an error that names the nearest one."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from config.errors import ConfigError


def one_of(what: str, value: str, choices: Sequence[str]) -> str:
    """`value` when it is one of `choices`. Raises ConfigError that names the nearest choice and all of them."""
    if value in choices:
        return value
    near = get_close_matches(value.lower(), choices, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"{what} {value!r} is unknown; {meant}there is {', '.join(choices)}")
