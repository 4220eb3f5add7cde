"""What people may ask of a running agent by `cmd/<name>`: a picture, a test, silence, and to say what is normal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from agent.camera import Camera
from agent.capture.frame import Frame
from agent.events.book import EventBook
from agent.events.model import AnyEvent, rfc3339
from agent.evidence.archive import Archive
from agent.insight import baseline_file
from agent.insight.anomaly import AnomalyModel
from agent.mqtt.commands import Command, CommandError, Handler

T = TypeVar("T")
Snapshot = Callable[[AnomalyModel, float], dict[str, NDArray[Any]]]

_FRESH_S = 10.0
_NEXT_FRAME_S = 5.0
_LONGEST_MUTE_S = 7 * 86400.0
_USUAL_MUTE_S = 3600.0
_LONGEST_TEXT = 1000
_ALERTS = ("anomaly", "rule")


class CameraCommands:
    """The handlers of `cmd/…` for these cameras. baselines: how each camera's anomaly model is copied for a file.
    on_mute: called with a camera and the seconds that it is muted for; on_picture: with what was asked for.

    Every handler raises CommandError for arguments that can't be used and for what can't be done now.
    """

    def __init__(
        self,
        cameras: Mapping[str, Camera],
        book: EventBook,
        archive: Archive,
        folder: Path,
        baselines: Mapping[str, Snapshot],
        *,
        on_mute: Callable[[str, float], None] = lambda _camera, _for_s: None,
        on_picture: Callable[[str, NDArray[np.uint8]], None] = lambda _camera, _image: None,
    ) -> None:
        self._cameras, self._book, self._archive = cameras, book, archive
        self._folder, self._baselines = folder, baselines
        self._on_mute, self._on_picture = on_mute, on_picture

    @property
    def handlers(self) -> dict[str, Handler]:
        """By the name of the command."""
        return {
            "snapshot": self.snapshot,
            "test-alert": self.test_alert,
            "mute": self.mute,
            "acknowledge": self.acknowledge,
            "feedback": self.feedback,
            "baseline": self.baseline,
        }

    def snapshot(self, command: Command) -> Mapping[str, JsonValue]:
        """`camera` → the newest picture, as a file beside the events."""
        camera = self._camera(command, "camera")
        frame = fresh_frame(camera, command)
        self._on_picture(camera.name, frame.image)
        try:
            path = self._archive.picture(frame.image)
        except OSError as error:
            raise CommandError(f"{command.name}: no picture: {error.strerror or error}") from None
        return {
            "camera": camera.name,
            "snapshot": path,
            "frame_ts": rfc3339(frame.utc),
            "frame_size": list(frame.size),
        }

    def test_alert(self, command: Command) -> Mapping[str, JsonValue]:
        """`camera`, `text` → an alert like any other, picture and clip included, marked as a test; its id."""
        camera = self._camera(command, "camera", "text")
        text = command.text("text", "This is a test.")
        if len(text) > _LONGEST_TEXT:
            raise CommandError(f"test-alert: expected at most {_LONGEST_TEXT} characters for 'text', found {len(text)}")
        return {"camera": camera.name, "id": camera.reporter.test(fresh_frame(camera, command), text)}

    def mute(self, command: Command) -> Mapping[str, JsonValue]:
        """`camera`, `for_s` (0 ends it) → no alerts and changes for so long."""
        camera = self._camera(command, "camera", "for_s")
        for_s = command.arguments.get("for_s", _USUAL_MUTE_S)
        if isinstance(for_s, bool) or not isinstance(for_s, (int, float)) or not 0 <= for_s <= _LONGEST_MUTE_S:
            raise CommandError(f"mute: expected 0 to {_LONGEST_MUTE_S:g} seconds for 'for_s', found {for_s!r:.80}")
        until = camera.reporter.mute(float(for_s))
        self._on_mute(camera.name, float(for_s))
        return {"camera": camera.name, "muted_until": None if until is None else rfc3339(until)}

    def acknowledge(self, command: Command) -> Mapping[str, JsonValue]:
        """`id`, or `camera` for all of its alerts → they are told again with the time at which somebody saw them."""
        if "id" in command.arguments:
            command.only("id")
            wanted = [self._alert(command)]
        else:
            camera = self._camera(command, "camera")
            wanted = [e for e in self._book.remembered() if e.camera == camera.name and e.kind in _ALERTS]
        now = datetime.now(timezone.utc)
        unseen = [alert.id for alert in wanted if alert.acknowledged is None]
        for event_id in unseen:
            self._book.update(event_id, acknowledged=now)
        return {"acknowledged": list[JsonValue](unseen)}

    def feedback(self, command: Command) -> Mapping[str, JsonValue]:
        """`id`, `verdict: normal` → what this anomaly was about is learned as normal."""
        command.only("id", "verdict")
        verdict = command.text("verdict")
        if verdict != "normal":
            raise CommandError(f"feedback: expected 'normal' for 'verdict', found {verdict!r:.80}")
        alert = self._alert(command)
        camera = self._cameras.get(alert.camera)
        if camera is None or alert.kind != "anomaly" or not _result(camera.watch.accept(alert.id), command):
            raise CommandError(f"feedback: {alert.id} is not an anomaly that can still be learned from")
        return {"id": alert.id, "camera": alert.camera, "learned": True}

    def baseline(self, command: Command) -> Mapping[str, JsonValue]:
        """`camera`, `action: reset | export` → learn anew what is normal, or write what was learned to a file."""
        camera = self._camera(command, "camera", "action")
        action = command.text("action")
        if action == "reset":
            _result(camera.watch.relearn(), command)
            return {"camera": camera.name, "action": action}
        if action != "export":
            raise CommandError(f"baseline: expected 'reset' or 'export' for 'action', found {action!r:.80}")
        arrays = _result(camera.watch.copy(self._baselines[camera.name]), command)
        stamp = re.sub(r"[^0-9]", "", datetime.now(timezone.utc).isoformat(timespec="milliseconds")[:23])
        path = self._folder / "exports" / f"{camera.name}-{stamp}.npz"
        try:
            baseline_file.write(path, arrays)
        except OSError as error:
            raise CommandError(f"baseline: can't write {path.name}: {error.strerror}") from None
        return {"camera": camera.name, "action": action, "file": path.relative_to(self._folder).as_posix()}

    def _camera(self, command: Command, *known: str) -> Camera:
        command.only(*known)
        return camera_of(self._cameras, command)

    def _alert(self, command: Command) -> AnyEvent:
        event_id = command.text("id")
        found = self._book.recall(event_id)
        if found is None or found.kind not in _ALERTS:
            raise CommandError(f"{command.name}: no alert {event_id!r:.80} is known to this run of the agent")
        return found


def camera_of(cameras: Mapping[str, Camera], command: Command) -> Camera:
    """The camera of a command; it may be left out where there is only one. Raises CommandError."""
    only = next(iter(cameras)) if len(cameras) == 1 else None
    name = command.text("camera", only)
    camera = cameras.get(name)
    if camera is None:
        raise CommandError(f"{command.name}: no camera {name!r:.80}; known: {', '.join(cameras)}")
    return camera


def fresh_frame(camera: Camera, command: Command) -> Frame:
    """The newest frame, unless it is old: yesterday's picture must not pass for now. Raises CommandError."""
    latest = camera.latest()
    if latest is None or latest[0] > _FRESH_S:
        since = "yet" if latest is None else f"for {latest[0]:.0f} s"
        raise CommandError(f"{command.name}: {camera.name} has given no frame {since}")
    return latest[1]


def _result(order: Future[T], command: Command) -> T:
    command.allow(2 * _NEXT_FRAME_S)
    try:
        return order.result(_NEXT_FRAME_S)
    except FutureTimeout:
        if order.cancel():
            raise CommandError(f"{command.name}: no frame was analysed for {_NEXT_FRAME_S:g} s; try again") from None
        return order.result(_NEXT_FRAME_S)
