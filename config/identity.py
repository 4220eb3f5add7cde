"""The device's own name: given, or made once and kept."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from config.errors import ConfigError


def device_id(configured: str | None, state: Path) -> str:
    """The configured id, else the one kept in `state`/device-id, made on first use. Raises ConfigError when the folder
    can't be written or what it holds is not an id."""
    if configured is not None:
        return configured
    path = state / "device-id"
    try:
        state.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = path.with_name(f".device-id.{os.getpid()}")
            fresh.write_text(f"sw-{secrets.token_hex(4)}\n", encoding="ascii")
            fresh.replace(path)
        kept = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't keep the device id: {error}; give device.id or another events.dir") from None
    if not kept or len(kept) > 64 or not kept.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"{path}: expected 1 to 64 letters, digits, _ or -, found {kept[:80]!r}; remove the file")
    return kept
