"""What each camera gets of a machine that can't give all of them what they want: max-min fairness.

Whoever wants less than an equal share gets what he wants; what he leaves is shared equally by the others (Bertsekas and
Gallager, "Data Networks", 6.5.2). So one busy or flooded camera takes nothing from a quiet one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """What a camera wants: frames a second, at so many ms of one processor each."""

    fps: float
    frame_ms: float

    @property
    def processors(self) -> float:
        return self.fps * self.frame_ms / 1000


def fair_shares(wants: Mapping[str, float], have: float) -> dict[str, float]:
    """What each gets of `have`: never more than it wants, and together never more than there is."""
    shares: dict[str, float] = {}
    left = have
    for place, name in enumerate(sorted(wants, key=lambda name: wants[name])):
        shares[name] = min(wants[name], max(0.0, left) / (len(wants) - place))
        left -= shares[name]
    return {name: shares[name] for name in wants}


def fair_rates(loads: Mapping[str, Load], processors: float) -> dict[str, float]:
    """Frames a second that each camera gets of so many processors; of more than one it can make no use, for its frames
    are handled one after the other."""
    shares = fair_shares({name: min(1.0, load.processors) for name, load in loads.items()}, processors)
    return {
        name: load.fps if shares[name] >= load.processors else shares[name] / load.processors * load.fps
        for name, load in loads.items()
    }
