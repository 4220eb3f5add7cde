"""`stillwatch self-check`: can this version run this configuration on this state? For before and after an upgrade.

Nothing is changed, no camera and no broker is asked, and the agent may run meanwhile.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agent import __version__
from agent.events import outbox
from agent.service import keeping, stateformat
from config.errors import ConfigError, ModelError, StillwatchError, StorageError
from config.loading import check_secrets
from config.settings import Settings

MODULES = (
    *("numpy", "cv2", "av", "onnxruntime", "tokenizers", "pydantic", "paho.mqtt.client", "yaml", "structlog"),
    *("prometheus_client", "httpx2", "cryptography"),
)
_LEAST_FREE = 200_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at. text: what was found, or what is wrong and what to do. exit_code: 0 = good."""

    name: str
    text: str
    exit_code: int = 0

    def __str__(self) -> str:
        return f"{'bad ' if self.exit_code else 'good'}  {self.name}: {self.text}"


def self_check(settings: Callable[[], Settings]) -> list[Check]:
    """Everything that can be looked at; what depends on something bad is left out."""
    checks = [_try("packages", _packages)]
    read: list[Settings] = []

    def configuration() -> str:
        read.append(settings())
        check_secrets(read[0])
        return f"cameras: {', '.join(read[0].cameras)}"

    checks.append(_try("configuration", configuration))
    if read and not checks[0].exit_code:
        checks.append(_try("state", lambda: _state(read[0].events.dir)))
        checks.append(_try("model", lambda: _model(read[0].model)))
    return checks


def _try(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, look())
    except StillwatchError as error:
        return Check(name, str(error), error.exit_code)


def _packages() -> str:
    broken = []
    for module in MODULES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            broken.append(f"{module} ({error})")
    if broken:
        raise StillwatchError(f"can't be imported: {', '.join(broken)}; install Stillwatch {__version__} again")
    return f"Stillwatch {__version__}; all {len(MODULES)} are there"


def _state(folder: Path) -> str:
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(nearest, os.W_OK):
        raise ConfigError(f"{nearest}: can't be written; give it to the user of the service, or another events.dir")
    free = shutil.disk_usage(nearest).free
    if free < _LEAST_FREE:
        raise StorageError(f"{nearest}: {free // 10**6} MB are free, expected {_LEAST_FREE // 10**6} or more")
    if not folder.exists():
        return f"{folder} will be made"
    found = stateformat.check(folder)
    waiting = _events(folder / keeping.DATABASE)
    brought = "" if found == stateformat.FORMAT else f", will be brought to {stateformat.FORMAT}"
    return f"{folder}: format {found}{brought}; {waiting} events wait; {free // 10**6} MB free"


def _events(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with closing(keeping.read_only(path)) as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > outbox.SCHEMA_VERSION:
                known = outbox.SCHEMA_VERSION
                raise ConfigError(f"{path}: the outbox has format {version}, this version reads up to {known}")
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            return int(db.execute("SELECT count(*) FROM event WHERE state = 0").fetchone()[0]) if version else 0
    except sqlite3.Error as error:
        raise StorageError(f"{path}: {error}; at its next start the agent sets a damaged file aside") from None


def _model(name: str) -> str:
    from engines.manifest import find_model, load_model
    from engines.verification import own_checks

    model = load_model(find_model(name))
    try:
        checks = own_checks(model)
    except StillwatchError as error:
        raise ModelError(f"{name}: {error}") from error
    if failed := [str(check) for check in checks if not check.passed]:
        raise ModelError(f"{name}: {'; '.join(failed)}; import the model again")
    return f"{model.manifest.name}: its files are whole, its graphs run ({len(checks)} checks)"
