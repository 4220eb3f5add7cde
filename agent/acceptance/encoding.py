"""The encoder: cosines with the host's own, and what it costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.acceptance.backends import Backends
from agent.acceptance.meter import Cost, Meter
from agent.acceptance.stages import Material
from agent.coherence.cuts import token_cosines
from engines.plan import EncodePlan, Encoder, Mode

_MEAN, _LEAST = 0.999, 0.99
"""Cosine of a token with the host's: in the mean, and of the worst one."""
_SHARES = (0.02, 0.05, 0.2, 0.5)


class Seen(NamedTuple):
    """Two pictures, uint8 (S, S, 3)."""

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class EncoderResult:
    """full, selective: (mean, least) cosine of tokens with the host's, None when it is the host's own. The selective
    encode follows a full one, and encodes every third token of a later picture. costs: by tokens encoded."""

    runs_on: str
    own: bool
    full: tuple[float, float] | None
    selective: tuple[float, float] | None
    passed: bool | None
    costs: dict[int, Cost]
    host_costs: dict[int, Cost]
    fault: str | None = None

    def as_json(self) -> dict[str, Any]:
        told = asdict(self)
        for key in ("costs", "host_costs"):
            told[key] = [{"tokens": tokens, **cost} for tokens, cost in told[key].items()]
        return told


def encoder_result(backends: Backends, material: Material, meter: Meter) -> EncoderResult:
    """Raises nothing that a backend raises: it is the result."""
    encoders = backends.encoders
    name, own = encoders.name, encoders.own
    try:
        # Of frames on the GPU its encoder takes patches itself; the host's gets the very same picture.
        used = Seen(*(backends.sights.used.picture(frame) for frame in material.frames))
        found = None if own else _features(encoders.used, used, material)
        costs = _costs(encoders.used, used, material, meter)
    except Exception as error:  # see `agent.acceptance.stages.run_stage`
        fault = f"{type(error).__name__}: {error}"
        return EncoderResult(name, own, None, None, False, {}, {}, fault)
    if found is None:
        return EncoderResult(name, own, None, None, None, costs, {})
    host = Seen(*(np.array(picture) for picture in used))
    expected = _features(encoders.host, host, material)
    full, selective = (_cosines(a, b) for a, b in zip(found, expected, strict=True))
    passed = all(mean >= _MEAN and least >= _LEAST for mean, least in (full, selective))
    return EncoderResult(name, own, full, selective, passed, costs, _costs(encoders.host, host, material, meter))


def _features(encoder: Encoder, seen: Seen, material: Material) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of a full encode of the first picture, and of a selective one of the second that follows it."""
    encoder.reset()
    encoder.crossover = len(material.features[0])
    full = encoder.encode(seen.first, EncodePlan(Mode.FULL, None)).features.copy()
    plan = EncodePlan(Mode.HIERARCHICAL_DIFF, material.every_third)
    return full, encoder.encode(seen.second, plan).features.copy()


def _costs(encoder: Encoder, seen: Seen, material: Material, meter: Meter) -> dict[int, Cost]:
    tokens = len(material.features[0])
    rng = np.random.default_rng(0)
    encoder.reset()
    encoder.crossover = tokens
    full = EncodePlan(Mode.FULL, None)
    costs = {tokens: meter.cost(lambda: encoder.encode(seen.first, full))}
    for share in _SHARES:
        slots = np.sort(rng.permutation(tokens)[: max(1, round(share * tokens))])
        plan = EncodePlan(Mode.HIERARCHICAL_DIFF, slots)
        costs[len(slots)] = meter.cost(lambda plan=plan: encoder.encode(seen.second, plan))  # type: ignore[misc]
    return dict(sorted(costs.items()))


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
    cosines = token_cosines(a, b)
    return round(float(cosines.mean()), 6), round(float(cosines.min()), 6)
