"""One sentence for a setting that can't be used."""

from __future__ import annotations

from config.errors import ConfigError


def require(key: str, found: object, valid: bool, expected: str) -> None:
    """Raise ConfigError that names the key, what was found and what is expected, unless `valid`."""
    if not valid:
        raise ConfigError(f"{key}: found {found!r}, expected {expected}")
