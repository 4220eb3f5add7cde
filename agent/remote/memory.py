"""Which document was accepted last, and what was set from afar before it; kept on disk, for after a restart."""

from __future__ import annotations

import os
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from agent.applying.contract import Refused
from agent.remote.documents import Overlay

log = structlog.get_logger()


class Accepted(BaseModel):
    """A document that went to the applier. before: what was committed then; earlier: what had been before that, should
    this one be rolled back."""

    model_config = ConfigDict(frozen=True)

    id: str
    version: int
    digest: str
    before: Overlay
    earlier: Overlay | None = None


def recall(path: Path) -> Accepted | None:
    """None when there was none, or the file is damaged: then it is only not known what was before."""
    try:
        return Accepted.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        log.warning("which configuration was sent last can't be read", file=str(path), reason=str(error)[:200])
        return None


def keep(path: Path, accepted: Accepted) -> None:
    """On the disk when this returns. Raises Refused 500."""
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            file.write(accepted.model_dump_json().encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise Refused(500, (("", f"the box can't keep it: {error.strerror}"),)) from None
