"""Dense flow against the truth: rendered scenes know how every pixel has moved."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.acceptance.backends import Ops
from agent.acceptance.meter import Meter
from agent.capture.scene.source import parse_scene
from vpi_ops.host import HostOps
from vpi_ops.interface import VisionOps

SCENES = (
    "scene:street?seed=11&width=640&height=360&fps=15",
    "scene:yard?seed=5&width=640&height=360&fps=15&camera=pan",
    "scene:street?seed=3&width=640&height=360&fps=15&camera=shake",
)
_FRAMES = (31, 46, 61)
_OUTLIER_PX = 3.0
_CHECK = 0.01
"""Share of pixels of which the check of both directions may say something else than the host's arithmetic does of the
same flow."""
_WORSE_BY = 1.25
_WORSE_PX = 0.2
"""What a backend may be worse by than the host's own, in the mean: a quarter and a fifth of a pixel."""


@dataclass(frozen=True, slots=True)
class Errors:
    """End-point errors in source pixels. moving_px: mean where something moves on its own or the camera does, by more
    than half a pixel. outliers: share of pixels above 3 px."""

    mean_px: float
    moving_px: float
    p95_px: float
    outliers: float

    @classmethod
    def of(cls, errors: NDArray[np.float64], moving: NDArray[np.bool_]) -> Errors:
        return cls(
            round(float(errors.mean()), 3),
            round(float(errors[moving].mean()), 3),
            round(float(np.percentile(errors, 95)), 3),
            round(float((errors > _OUTLIER_PX).mean()), 4),
        )


@dataclass(frozen=True, slots=True)
class FlowResult:
    """found, host: errors of what is used, and of the host's own (None when that is the same). no_motion: errors of
    saying that nothing moves: what is not below has not seen the motion. consistent: share of pixels that pass the
    forward-backward check; check_differs: share of which the host's arithmetic says otherwise, None where that is used.
    """

    runs_on: str
    own: bool
    found: Errors | None
    host: Errors | None
    no_motion: Errors
    consistent: float | None
    check_differs: float | None
    ms: float | None
    p95_ms: float | None
    watts: float | None
    host_ms: float | None
    passed: bool
    fault: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two neighbouring frames and the true backward flow of the second, float32 (H, W, 2)."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    truth: NDArray[np.float32]


def flow_errors(ops: Ops, meter: Meter) -> FlowResult:
    """Raises nothing that a backend raises: it is the result."""
    own = ops.flow_own
    pairs = [pair for uri in SCENES for pair in _pairs(uri)]
    still = _errors([np.zeros_like(pair.truth) for pair in pairs], pairs)
    try:
        fields, consistent, differs = _flows(ops.used, pairs)
        found = _errors(fields, pairs)
        cost = meter.cost(_call(ops.used, pairs[0]))
    except Exception as error:  # see `agent.acceptance.stages.run_stage`
        fault = f"{type(error).__name__}: {error}"
        return FlowResult(ops.flow, own, None, None, still, None, None, None, None, None, None, False, fault)
    if own:
        host, host_ms = None, None
        passed = found.moving_px < still.moving_px
    else:
        host, host_ms = _errors(_flows(ops.host, pairs)[0], pairs), meter.cost(_call(ops.host, pairs[0])).ms
        passed = found.mean_px <= _WORSE_BY * host.mean_px + _WORSE_PX and found.moving_px < still.moving_px
    passed = passed and (differs or 0) <= _CHECK
    costs = (cost.ms, cost.p95_ms, cost.watts, host_ms)
    return FlowResult(ops.flow, own, found, host, still, consistent, differs, *costs, passed)


def _pairs(uri: str) -> list[_Pair]:
    scene, _ = parse_scene(uri)
    return [_Pair(scene.render(i - 1), scene.render(i), scene.flow(i)) for i in _FRAMES]


def _call(ops: VisionOps, pair: _Pair) -> Any:
    before, after = ops.analysis(pair.before), ops.analysis(pair.after)
    scale = (pair.after.shape[1] / after.shape[1], pair.after.shape[0] / after.shape[0])
    return lambda: ops.flow(before, after, scale)


def _flows(ops: VisionOps, pairs: list[_Pair]) -> tuple[list[NDArray[np.float32]], float, float | None]:
    """Flow in source pixels, at the size of the source; and as in `FlowResult`, the share of it that is consistent, and
    the share about which the host differs."""
    fields, consistent, differs = [], [], []
    for pair in pairs:
        before, after = ops.analysis(pair.before), ops.analysis(pair.after)
        height, width = pair.truth.shape[:2]
        scale = (width / after.shape[1], height / after.shape[0])
        found = ops.flow(before, after, scale)
        flow = ops.check(found, before, after)
        small_h, small_w = flow.backward.shape[:2]
        rows = np.minimum(np.arange(height) * small_h // height, small_h - 1)
        cols = np.minimum(np.arange(width) * small_w // width, small_w - 1)
        fields.append(flow.backward[rows][:, cols] * np.array(scale, np.float32))
        if flow.error is not None:
            consistent.append(float((flow.error <= 1).mean()))
            if isinstance(ops, HostOps) and type(ops).check is not HostOps.check:
                by_host = HostOps.check(ops, found, before, after)  # of the forward flow that `ops` computes
                expected = np.asarray(by_host.error)
                differs.append(float(((flow.error <= 1) != (expected <= 1)).mean()))
    return fields, round(float(np.mean(consistent)), 4), round(float(np.mean(differs)), 4) if differs else None


def _errors(fields: list[NDArray[np.float32]], pairs: list[_Pair]) -> Errors:
    errors, moving = [], []
    for field, pair in zip(fields, pairs, strict=True):
        known = np.isfinite(pair.truth).all(axis=2)
        truth = pair.truth[known].astype(np.float64)
        errors.append(np.hypot(*(field[known] - truth).T))
        moving.append(np.hypot(*truth.T) > 0.5)
    return Errors.of(np.concatenate(errors), np.concatenate(moving))
