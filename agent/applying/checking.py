"""Whether a valid configuration can work on this machine: the model is there, new cameras give a picture, polygons lie
in it, secrets can be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from pydantic import JsonValue

from agent.applying.contract import Refused
from agent.building import source_of
from config.errors import StillwatchError
from config.loading import secrets
from config.redact import redact
from config.settings import Camera, Settings
from engines.manifest import find_model, load_model

Size = tuple[int, int]
Look = Callable[[str, Camera], Size]
"""Opens a camera's source, reads one frame and closes it; returns (width, height). Raises StillwatchError."""

_AT_ONCE = 4
_FRAME_WITHIN_S = 10.0
_DEVICE = re.compile(r"(?:v4l2:(?://)?)?(/dev/[^?]+)")


def exclusive(source: str) -> str | None:
    """The device behind a source that only one can open at a time, None for what any number can."""
    if source.startswith("csi:"):
        return source.partition("?")[0]
    device = _DEVICE.match(source)
    return None if device is None else str(Path(device[1]).resolve())


def look(name: str, camera: Camera) -> Size:
    with closing(source_of(name, camera)(None)) as source:
        return source.read(_FRAME_WITHIN_S).size


def check_overlay(overlay: Mapping[str, JsonValue]) -> None:
    """Raises Refused 422: the way back in must not depend on what comes over it."""
    if local := [key for key in ("mqtt", "remote") if key in overlay]:
        raise Refused(422, tuple((key, "is decided at the box") for key in local))


def check(
    before: Settings | None,
    after: Settings,
    sizes: Mapping[str, Size],
    look: Look = look,
) -> None:
    """Raises Refused 422 with everything that would not work.

    before: what runs now, whose devices are held; None = nothing. sizes: of the pictures of the cameras that run.
    """
    errors = [*_secrets(before, after), *_model(before, after)]
    if not errors:
        errors = [*_cameras(before, after, sizes, look)]
    if errors:
        raise Refused(422, tuple((path, redact(message)) for path, message in errors))


def _secrets(before: Settings | None, after: Settings) -> Iterator[tuple[str, str]]:
    known = {} if before is None else dict(secrets(before))
    for path, reference in secrets(after):
        if known.get(path) != reference:
            try:
                reference.read()
            except StillwatchError as error:
                yield path, str(error)


def _model(before: Settings | None, after: Settings) -> Iterator[tuple[str, str]]:
    if before is None or before.model != after.model:
        try:
            load_model(find_model(after.model))
        except StillwatchError as error:
            yield "model", str(error)


def _cameras(
    before: Settings | None, after: Settings, sizes: Mapping[str, Size], look: Look
) -> Iterator[tuple[str, str]]:
    running = {} if before is None else before.cameras
    held = {exclusive(camera.source) for camera in running.values()}
    unseen = {
        name: camera
        for name, camera in after.cameras.items()
        if (name not in running or _way_in(running[name]) != _way_in(camera))
    }
    found: dict[str, Size] = {name: size for name, size in sizes.items() if name not in unseen}
    free = {name: camera for name, camera in unseen.items() if exclusive(camera.source) not in held - {None}}
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="look") as pool:
        looks = {name: pool.submit(look, name, camera) for name, camera in free.items()}
        for name, answer in looks.items():
            try:
                found[name] = answer.result()
            except StillwatchError as error:
                yield f"cameras.{name}.source", str(error)
    for name, camera in after.cameras.items():
        if name in found and camera != running.get(name):
            yield from _polygons(name, camera, found[name])


def _way_in(camera: Camera) -> object:
    return camera.source, camera.credentials


def _polygons(name: str, camera: Camera, size: Size) -> Iterator[tuple[str, str]]:
    width, height = size
    for kind in ("masks", "ignore", "zones"):
        for polygon, points in getattr(camera, kind).items():
            outside = next(((x, y) for x, y in points if x > width or y > height), None)
            if outside is not None:
                place = f"[{outside[0]:g}, {outside[1]:g}]"
                yield f"cameras.{name}.{kind}.{polygon}", f"{place} is outside of the picture of {width}×{height}"
