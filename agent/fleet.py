"""The cameras that run now, and how one takes the place of another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING

import structlog

from agent.applying.checking import Size, exclusive
from agent.applying.differing import makings
from agent.applying.proving import CameraHealth
from agent.building import CameraBuilder, Desk
from agent.camera import Camera
from agent.capture.worker import Phase
from config.errors import SourceError
from config.settings import Settings

if TYPE_CHECKING:
    from agent.describer.server import VisionServer

log = structlog.get_logger()

_FIRST_FRAME_S = 15.0
_STOP_S = 3.0
_FRESH_S = 10.0
_ENOUGH_FRAMES = 5
_LOOK_EVERY_S = 0.05


class Cameras(Mapping[str, Camera]):
    """Cameras by name. Any thread may go through them while one changes them: it then sees them as they were or as they
    are. Only one thread at a time may change them."""

    def __init__(self) -> None:
        self._now: dict[str, Camera] = {}

    def put(self, camera: Camera) -> None:
        """Add a camera, in the place of the one of its name where there is one."""
        self._now = {**self._now, camera.name: camera}

    def drop(self, name: str) -> None:
        self._now = {other: camera for other, camera in self._now.items() if other != name}

    def __getitem__(self, name: str) -> Camera:
        return self._now[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)

    def values(self) -> ValuesView[Camera]:
        """As they are now, and at each later time that this is gone through."""
        return _Values(self)

    def items(self) -> ItemsView[str, Camera]:
        return self._now.items()


class _Values(ValuesView[Camera]):
    def __init__(self, cameras: Cameras) -> None:
        super().__init__(cameras)
        self._cameras = cameras

    def __iter__(self) -> Iterator[Camera]:
        return iter(self._cameras._now.values())


class Fleet:
    """Builds the cameras of a configuration, and replaces those that another configuration makes in another way; the
    others are left alone.

    made: called with each camera before it begins. gone: called with the name of each that is there no more. closing:
    waiting ends when it is set. Close it after its cameras have stopped.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        made: Callable[[Camera], None],
        gone: Callable[[str], None],
        closing: threading.Event,
    ) -> None:
        self.cameras = Cameras()
        self.builder: CameraBuilder | None = None
        self._desk, self._on_made, self._on_gone, self._closing = desk, made, gone, closing
        self._spare: list[CameraBuilder] = []
        self._settings: Settings | None = None
        self._makings: dict[str, object] = {}
        self._number = 0
        self._numbers: dict[str, int] = {}

    @property
    def server(self) -> VisionServer | None:
        """Where pictures go to be described, None = nowhere."""
        return None if self.builder is None else self.builder.server

    @property
    def model_bytes(self) -> int:
        """Of the weights that all cameras share."""
        return 0 if self.builder is None else self.builder.model_bytes

    @property
    def backend(self) -> str:
        """What encodes, in a word."""
        return "cpu" if self.builder is None else self.builder.backend

    @property
    def troubles(self) -> tuple[str, ...]:
        """Engines that were chosen and fail, a sentence each."""
        return () if self.builder is None else self.builder.troubles

    def build(self, settings: Settings) -> None:
        """Make all cameras, started by nobody yet. Raises ConfigError, ModelError."""
        self.builder = CameraBuilder(settings, self._desk)
        for name in settings.cameras:
            self._put(self.builder.camera(name, settings), settings)
        self._settings = settings

    def close(self) -> None:
        for builder in (self.builder, *self._spare):
            if builder is not None:
                builder.close()

    def change(self, settings: Settings, *, strict: bool) -> None:
        """Run these cameras from now on. Safe to call again, with the old settings, when it raised.

        A new camera takes over when it gives frames; with `strict` one that gives none raises SourceError, unless the
        old one gave none either. Without, it takes over anyway, and goes on trying. Raises ConfigError, ModelError.
        """
        builder = self._builder_for(settings) if settings.cameras else self.builder
        if builder is not None and builder is not self.builder:
            self._spare.append(builder)  # until its cameras are what runs
        for name in [name for name in self.cameras if name not in settings.cameras]:
            self._stop(name, "the camera was removed")
            self.cameras[name].reporter.gone("the camera was removed")
            self.cameras.drop(name)
            self._on_gone(name)
        changed = [name for name in settings.cameras if makings(settings, name) != self._makings.get(name)]
        for name in changed:
            if name in self.cameras and self._exclusive(name):
                self._stop(name)
        if builder is not None:
            for name in changed:
                self._replace(name, builder, settings, strict)
        if self.builder is not None:
            self._spare.append(self.builder)
        self.builder, self._settings = builder, settings
        idle = [spare for spare in self._spare if spare is not builder]
        self._spare.clear()
        for spare in idle:
            spare.describing.finish(1.0)
            spare.close()

    def sizes(self) -> dict[str, Size]:
        """(width, height) of the pictures of each camera that has given any."""
        latest = {name: camera.latest() for name, camera in self.cameras.items()}
        return {name: found[1].size for name, found in latest.items() if found is not None}

    def health(self) -> dict[str, CameraHealth]:
        return {name: _health(camera, self._numbers[name]) for name, camera in self.cameras.items()}

    def _builder_for(self, settings: Settings) -> CameraBuilder:
        now = self._settings
        same = now is not None and (now.model, now.describer) == (settings.model, settings.describer)
        return self.builder if same and self.builder is not None else CameraBuilder(settings, self._desk)

    def _exclusive(self, name: str) -> bool:
        running = None if self._settings is None else self._settings.cameras.get(name)
        return running is not None and exclusive(running.source) is not None

    def _stop(self, name: str, reason: str = "the camera was set up anew") -> None:
        self._makings.pop(name, None)
        self.cameras[name].stop(_STOP_S, reason)

    def _replace(self, name: str, builder: CameraBuilder, settings: Settings, strict: bool) -> None:
        old = self.cameras.get(name)
        new = builder.camera(name, settings)
        try:
            new.connect()
            if self._expected(name, old, settings):
                reason = self._wait(new)
                if reason is not None and strict:
                    raise SourceError(f"camera {name} gives no frames: {reason}")
        except BaseException:
            new.stop(_STOP_S)
            raise
        if old is not None:
            if name in self._makings:
                self._stop(name)
            new.follow(old)
        self._put(new, settings)
        self._on_made(new)
        new.begin()
        log.info("camera changed" if old is not None else "camera added", camera=name)

    def _put(self, camera: Camera, settings: Settings) -> None:
        self._number += 1
        self._numbers[camera.name] = self._number
        self._makings[camera.name] = makings(settings, camera.name)
        self.cameras.put(camera)

    def _expected(self, name: str, old: Camera | None, settings: Settings) -> bool:
        """Whether frames must come: not from a camera that gave none as it was."""
        was = None if self._settings is None else self._settings.cameras.get(name)
        if old is None or was is None or was.source != settings.cameras[name].source:
            return True
        latest = old.latest()
        return latest is not None and latest[0] < _FRESH_S

    def _wait(self, camera: Camera) -> str | None:
        """Until it gives frames; else why it does not."""
        until = time.monotonic() + _FIRST_FRAME_S
        while not camera.delivered:
            state = camera.capture
            if state.phase in (Phase.RECONNECTING, Phase.FAILED, Phase.ENDED):
                return state.reason or state.phase.value
            if time.monotonic() > until:
                return f"none came within {_FIRST_FRAME_S:g} s"
            if self._closing.wait(_LOOK_EVERY_S):
                return "the agent is stopping"
        return None


def _health(camera: Camera, number: int) -> CameraHealth:
    latest, times = camera.latest(), camera.watch.times.frame.times()
    error = camera.error
    return CameraHealth(
        made=number,
        age_s=None if latest is None else latest[0],
        ended=camera.capture.phase is Phase.ENDED,
        failed=None if error is None else str(error),
        frame_ms=times.p50_ms if times.count >= _ENOUGH_FRAMES else None,
    )
