"""What people have set on a running agent and expect to find again: analysis switched off, a mute that goes on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from agent.evidence.files import write_whole

log = structlog.get_logger()

FILE = "cameras.json"


@dataclass(frozen=True, slots=True)
class Set:
    """Of one camera. muted_until_s: seconds since the epoch, 0 = not muted."""

    enabled: bool = True
    muted_until_s: float = 0.0


_FORM: TypeAdapter[dict[str, Set]] = TypeAdapter(dict[str, Set])


class CameraMemory:
    """In a file of the state folder that is whole or not there. A file that can't be read is a warning: the agent
    starts with what the configuration says. From any thread."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._set = self._read()

    def of(self, camera: str) -> Set:
        """What was set last; the defaults where nothing was."""
        return self._set.get(camera, Set())

    def mute_left_s(self, camera: str) -> float:
        """Seconds that the camera is still to be muted, 0 when it is not."""
        return max(0.0, self.of(camera).muted_until_s - self._clock())

    def enable(self, camera: str, enabled: bool) -> None:
        self._change(camera, enabled=enabled)

    def mute(self, camera: str, for_s: float) -> None:
        self._change(camera, muted_until_s=self._clock() + for_s if for_s > 0 else 0.0)

    def _change(self, camera: str, **changes: Any) -> None:
        with self._lock:
            self._set = {**self._set, camera: replace(self.of(camera), **changes)}
            text = json.dumps({name: asdict(kept) for name, kept in self._set.items() if kept != Set()})

            def write(part: Path) -> None:
                part.write_text(text, encoding="utf-8")

            try:
                write_whole(self._path, write)
            except OSError as error:
                log.warning("what was set will be forgotten at the next start", camera=camera, reason=error.strerror)

    def _read(self) -> dict[str, Set]:
        try:
            return _FORM.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            log.warning("what was set in earlier runs can't be read", file=str(self._path), reason=str(error))
            return {}
