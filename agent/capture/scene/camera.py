"""How the camera moves over the backdrop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, pi, sin

import numpy as np

_SWEEP_S = 7.0  # one sweep and the rest after it
_REST = 0.3  # share of that spent at rest


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera over a `world` of (width, height) px, of which the picture is a part; `room`: how far it can move.

    shake: amplitude in px, rate in 1/s and phase of each swing in x and in y."""

    world: tuple[int, int]
    room: tuple[float, float] = (0.0, 0.0)
    pans: bool = False
    key: int = 0
    shake: tuple[tuple[tuple[float, float, float], ...], ...] = ((), ())

    def offset(self, t: float) -> tuple[float, float]:
        """Where the picture's corner lies in the world at a time, px."""
        if self.pans:
            sweep = int(t // _SWEEP_S)
            share = min(1.0, (t / _SWEEP_S - sweep) / (1 - _REST))
            a, b = _stop(self.key, sweep), _stop(self.key, sweep + 1)
            return (a + (b - a) * share * share * (3 - 2 * share)) * self.room[0], 0.0
        x, y = (sum(a * sin(2 * pi * rate * t + phase) for a, rate, phase in swings) for swings in self.shake)
        return self.room[0] / 2 + x, self.room[1] / 2 + y


@lru_cache(maxsize=64)
def _stop(key: int, sweep: int) -> float:
    """Where a sweep begins, as a share of the room: alternating sides, never quite the same."""
    near = float(np.random.default_rng([key, sweep & 0xFFFFFFFF]).uniform(0, 0.3))
    return near if sweep % 2 else 1 - near


def new_camera(kind: str, rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """A camera of a kind (static, pan, shake) for pictures of `size` = (width, height)."""
    w, h = size
    if kind == "pan":
        room = round(0.5 * w)
        return Camera((w + room, h), (room, 0.0), True, int(rng.integers(1 << 30)))
    if kind == "shake":
        reach = h / 360 * 5.0
        margin = ceil(reach) * 2 + 2
        swings = tuple(
            tuple(
                (reach * part, float(rng.uniform(low, high)), float(rng.uniform(0, 2 * pi)))
                for part, low, high in parts
            )
            for parts in (((0.6, 0.7, 1.4), (0.4, 3.0, 5.0)), ((0.5, 0.8, 1.6), (0.4, 3.0, 5.5)))
        )
        return Camera((w + margin, h + margin), (margin, margin), shake=swings)
    return Camera(size)
