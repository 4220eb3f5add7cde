"""Has somebody moved the camera, or put something over it? Nearly all of the picture is strange, and stays so.

What enters the picture changes a part of it; a light that goes on changes all of it, but its edges stay where they are.
A camera that was turned or covered shows nothing that it knows, for as long as it stays. A covered one shows hardly any
detail at all either; that is enough, as a plain sheet may look much like plain ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

STRANGE = 0.7
"""Share of the tokens that must be strange."""
_BACK = 0.4
"""Share below which the camera is back where it was."""
_DETAIL = 0.35
"""Share of its usual detail below which a picture is covered."""
_HIDDEN = 0.15
"""Share of its usual detail below which a picture without its usual edges is strange, whatever its tokens are like."""
_SAME_EDGES = 0.5
"""Correlation with the usual edges from which on the camera looks where it did."""
_MEMORY_S = 600.0


class Tampering(str, Enum):
    COVERED = "covered"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class TamperEvent:
    """The camera shows something else since `since_s`; `over`: it shows again what it did before."""

    kind: Tampering
    since_s: float
    over: bool = False


class TamperWatch:
    """Says when the picture has been strange all over for `after_s`, once, and when it is back."""

    def __init__(self, after_s: float = 5.0) -> None:
        self._after_s = after_s
        self._usual: Floats | None = None
        self._since_s: float | None = None
        self._told: TamperEvent | None = None
        self._last_s: float | None = None

    @property
    def standing(self) -> TamperEvent | None:
        """What has been said and is not over."""
        return self._told

    @property
    def suspects(self) -> bool:
        """Whether the picture is strange all over now, told or not."""
        return self._since_s is not None

    def process(self, strange: NDArray[np.bool_], edges: Floats, now_s: float) -> TamperEvent | None:
        """strange: bool (n,), the tokens that see picture which are far from normal. edges: of the picture, as
        `edges_of` has them. now_s: a clock that never goes back."""
        share = 1.0 if self._hidden(edges) else float(strange.mean()) if len(strange) else 0.0
        gap_s = 0.0 if self._last_s is None else now_s - self._last_s
        self._last_s = now_s
        if self._told is not None:
            if share >= _BACK and not (self._told.kind is Tampering.COVERED and self._looks_where_it_did(edges)):
                return None
            event, self._told, self._since_s = TamperEvent(self._told.kind, self._told.since_s, True), None, None
            return event
        if share < STRANGE:
            self._since_s = None
            self._remember(edges, gap_s)
            return None
        if self._usual is None or self._looks_where_it_did(edges):
            self._since_s = None
            return None
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s < self._after_s:
            return None
        covered = _detail(edges) < _DETAIL * _detail(self._usual)
        self._told = TamperEvent(Tampering.COVERED if covered else Tampering.MOVED, self._since_s)
        return self._told

    def accept(self) -> None:
        """What is shown now is to be normal: the camera was moved on purpose."""
        self._told = self._since_s = self._usual = None

    def _remember(self, edges: Floats, gap_s: float) -> None:
        if self._usual is None:
            self._usual = edges
        self._usual = self._usual + np.float32(min(1.0, gap_s / _MEMORY_S)) * (edges - self._usual)

    def _hidden(self, edges: Floats) -> bool:
        usual = self._usual
        return usual is not None and _detail(edges) < _HIDDEN * _detail(usual) and not self._looks_where_it_did(edges)

    def _looks_where_it_did(self, edges: Floats) -> bool:
        usual = self._usual
        if usual is None:
            return False
        length = float(np.sqrt(np.sum(usual * usual) * np.sum(edges * edges)))
        return length > 0 and float(np.sum(usual * edges)) / length >= _SAME_EDGES


def edges_of(picture: NDArray[np.uint8]) -> Floats:
    """float32 (2, n, m): steps, grey levels, between neighbours eight pixels apart in an RGB picture (H, W, 3): what a
    hand or a sheet before the lens takes away, and dusk does not take away altogether."""
    grey = picture[::8, ::8].mean(axis=2, dtype=np.float32)
    return np.stack([np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1]])


def _detail(edges: Floats) -> float:
    return float(np.abs(edges).mean())
