"""The cameras that run now, and how one takes the place of another."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView

from agent.camera import Camera


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
