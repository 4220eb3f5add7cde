"""Rules that were set while the agent runs, kept in the state folder over restarts.

The configuration's rules come first; what was set by command lies over them, by name: another rule in its place, one
more, or none (null) where one was removed. `reset` forgets all that.

    rules.json: {"v": 1, "cameras": {"front": {"visitor": {"name": "visitor", "ask": …}, "parcel": null}}}
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from config.errors import ConfigError
from config.settings import MOST_RULES, Rule, check_rules

log = structlog.get_logger()

Overlay = dict[str, Rule | None]
_FILE: TypeAdapter[dict[str, Overlay]] = TypeAdapter(dict[str, Overlay])


class RuleBook:
    """What was set for each camera. Safe to use from several threads. trouble: why what was kept can't be read, else
    None: then nothing was set, and the file is kept aside."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rules.json"
        self._lock = threading.Lock()
        self.trouble: str | None = None
        self._set = self._read()

    def of(self, camera: str, configured: Sequence[Rule], zones: Container[str]) -> list[Rule]:
        """The rules that count for a camera. A kept one that no longer fits (its zone is gone) is left out, and the log
        says so."""
        with self._lock:
            overlay = dict(self._set.get(camera, {}))
        fitting: Overlay = {}
        for name, rule in overlay.items():
            if rule is None or rule.zone is None or rule.zone in zones:
                fitting[name] = rule
            else:
                log.warning("a rule is left out: its zone is gone", camera=camera, rule=name, zone=rule.zone)
        return _laid_over(configured, fitting)

    def put(
        self, camera: str, name: str, rule: Rule | None, configured: Sequence[Rule], zones: Container[str]
    ) -> list[Rule]:
        """Set or remove (None) one rule, on disk before this returns; the rules that count then. Raises ConfigError for
        a rule that doesn't fit the camera, and OSError when it can't be kept: nothing has changed then."""
        with self._lock:
            overlay: Overlay = {**self._set.get(camera, {}), name: rule}
            rules = _laid_over(configured, overlay)
            if len(rules) > MOST_RULES:
                raise ConfigError(f"rules: at most {MOST_RULES} for a camera, this would be {len(rules)}")
            try:
                check_rules(rules if rule is None else [rule], zones)
            except PydanticCustomError as error:
                raise ConfigError(f"rules: {error.message()}") from None
            self._keep({**self._set, camera: overlay})
            return rules

    def reset(self, camera: str) -> None:
        """Forget what was set for a camera. Raises OSError when that can't be kept."""
        with self._lock:
            self._keep({name: overlay for name, overlay in self._set.items() if name != camera})

    def set_by_command(self, camera: str) -> frozenset[str]:
        """Names of the rules of a camera that were set, not configured."""
        with self._lock:
            return frozenset(name for name, rule in self._set.get(camera, {}).items() if rule is not None)

    def _keep(self, all_set: dict[str, Overlay]) -> None:
        cameras = {camera: {name: _plain(rule) for name, rule in set_.items()} for camera, set_ in all_set.items()}
        part = self._path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            json.dump({"v": 1, "cameras": cameras}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._set = all_set

    def _read(self) -> dict[str, Overlay]:
        try:
            document: Any = json.loads(self._path.read_text(encoding="utf-8"))
            if not isinstance(document, dict) or document.get("v") != 1:
                raise ValueError("expected version 1")
            return _FILE.validate_json(json.dumps(document.get("cameras")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, ValidationError) as error:
            aside = self._path.with_suffix(".unreadable")
            reason = str(error).splitlines()[0]
            self.trouble = f"{self._path.name}: rules that were set by command can't be read: {reason}"
            log.error(self.trouble, kept_as=aside.name)
            if self._path.is_file():
                self._path.replace(aside)
            return {}


def _laid_over(configured: Sequence[Rule], overlay: Mapping[str, Rule | None]) -> list[Rule]:
    rules: dict[str, Rule | None] = {rule.name: rule for rule in configured}
    rules |= overlay
    return [rule for rule in rules.values() if rule is not None]


def _plain(rule: Rule | None) -> dict[str, Any] | None:
    return None if rule is None else rule.model_dump(mode="json", exclude_defaults=True)
