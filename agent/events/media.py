"""Pictures beside events: JPEG files that are there whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.events.model import Box

SNAPSHOTS = "snapshots"
_JPEG_QUALITY = 85
_OUTLINE_RGB = (255, 64, 64)


def save_snapshot(folder: Path, event_id: str, image: NDArray[np.uint8], regions: Sequence[Box] = ()) -> str:
    """Write uint8 RGB (H, W, 3) as `snapshots/<id>.jpg` under `folder` with the regions outlined; returns that relative
    path. Written under another name, synced, then renamed. Raises OSError when the disk refuses."""
    picture = np.array(image, order="C")
    for x, y, w, h in regions:
        cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), _OUTLINE_RGB, max(1, picture.shape[0] // 240))
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    relative = Path(SNAPSHOTS) / f"{event_id}.jpg"
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    try:
        with partial.open("wb") as out:
            out.write(encoded.tobytes())
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    return relative.as_posix()


def prune_media(folder: Path, *, days: float, max_bytes: int, now_s: float | None = None) -> int:
    """Delete snapshots older than `days`, then the oldest until all fit in `max_bytes`; returns how many went.
    Half-written files of an earlier run go too. Ids sort by time, so names do."""
    horizon = (time.time() if now_s is None else now_s) - days * 86400.0
    gone, size = 0, 0
    for path in sorted((folder / SNAPSHOTS).glob("*"), reverse=True):
        found = path.stat()
        size += found.st_size
        if path.suffix == ".part" or found.st_mtime < horizon or size > max_bytes:
            path.unlink(missing_ok=True)
            gone += 1
    return gone
