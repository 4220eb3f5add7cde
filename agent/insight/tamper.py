"""Has somebody moved the camera, or put something over it? Nearly all of the picture is strange, and stays so.

What enters the picture changes a part of it; a light that goes on changes all of it and comes with the hours, so it is
soon normal. A camera that was turned or covered shows nothing that it knows, for as long as it stays. A covered one
shows hardly any detail at all either.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

_STRANGE = 0.8
"""Share of the tokens that must be strange."""
_BACK = 0.4
"""Share below which the camera is back where it was."""
_DETAIL = 0.35
"""Share of its usual detail below which a picture is covered."""
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
        self._usual_detail: float | None = None
        self._since_s: float | None = None
        self._told: TamperEvent | None = None
        self._last_s: float | None = None

    @property
    def standing(self) -> TamperEvent | None:
        """What has been said and is not over."""
        return self._told

    def process(self, strange: NDArray[np.bool_], detail: float, now_s: float) -> TamperEvent | None:
        """strange: bool (n,), the tokens that see picture which are far from normal. detail: of the picture, as
        `detail_of` has it. now_s: a clock that never goes back."""
        share = float(strange.mean()) if len(strange) else 0.0
        gap_s = 0.0 if self._last_s is None else now_s - self._last_s
        self._last_s = now_s
        if self._told is not None:
            if share >= _BACK:
                return None
            event, self._told, self._since_s = TamperEvent(self._told.kind, self._told.since_s, True), None, None
            return event
        if share < _STRANGE:
            self._since_s = None
            self._remember(detail, gap_s)
            return None
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s < self._after_s:
            return None
        covered = self._usual_detail is not None and detail < _DETAIL * self._usual_detail
        self._told = TamperEvent(Tampering.COVERED if covered else Tampering.MOVED, self._since_s)
        return self._told

    def accept(self) -> None:
        """What is shown now is to be normal: the camera was moved on purpose."""
        self._told = self._since_s = self._usual_detail = None

    def _remember(self, detail: float, gap_s: float) -> None:
        if self._usual_detail is None:
            self._usual_detail = detail
        self._usual_detail += min(1.0, gap_s / _MEMORY_S) * (detail - self._usual_detail)


def detail_of(picture: NDArray[np.uint8]) -> float:
    """Mean step, grey levels, between neighbours eight pixels apart in an RGB picture (H, W, 3): what a hand or a sheet
    before the lens takes away, and dusk does not take away altogether."""
    grey = picture[::8, ::8].mean(axis=2)
    return float((np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2)
