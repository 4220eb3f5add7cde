"""One way of handling every frame: what it costs, and how near its tokens stay to those of full encodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.coherence.cuts import token_cosines

Floats = NDArray[np.float32]


class Side:
    """name, setting: what it is called, and the values it runs with. ms: of each of its frames."""

    def __init__(self, name: str, setting: Mapping[str, float] | None = None) -> None:
        self.name, self.setting = name, dict(setting or {})
        self.ms: list[float] = []
        self.means: list[float] = []
        self._tokens: list[Floats] = []

    def compare(self, features: Floats, truth: Floats, seen: NDArray[np.bool_]) -> None:
        """One frame: features (T, D) against those of its full encode, at the tokens `seen` (T,)."""
        cosines = token_cosines(features, truth)[seen]
        self._tokens.append(cosines)
        self.means.append(float(cosines.mean()))

    @property
    def fidelity(self) -> dict[str, float]:
        """mean, p5 and min over the means of the frames that were compared; token_p5 over all tokens."""
        return {
            "mean": float(np.mean(self.means)),
            "p5": float(np.percentile(self.means, 5)),
            "min": float(np.min(self.means)),
            "token_p5": float(np.percentile(np.concatenate(self._tokens), 5)),
        }

    def report(self, speedup: float) -> dict[str, Any]:
        return {"name": self.name, "setting": self.setting, "speedup": speedup, "fidelity": self.fidelity}


def spread(ms: list[float]) -> dict[str, float]:
    """mean, p50, p95."""
    p50, p95 = np.percentile(ms, (50, 95))
    return {"mean": float(np.mean(ms)), "p50": float(p50), "p95": float(p95)}
