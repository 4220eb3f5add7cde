"""Every image operation, and the way from a frame to the encoder's patches, run by what this machine uses and by the
host's own on the same rendered frames.

Flow is missing here on purpose: two good flow methods differ from each other by more than either does from the truth,
so `agent.acceptance.flow` asks the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.acceptance.backends import Ops, Sights
from agent.acceptance.meter import Meter
from agent.acceptance.picturing import Sight
from agent.capture.scene.source import parse_scene
from engines.manifest import Manifest
from engines.preprocess import Preprocessor
from vpi_ops.host import LEVEL_WEIGHTS, NOISE_PEAK
from vpi_ops.interface import PatchPyramid, VisionOps

HOST = "OpenCV and NumPy on the CPU"
Run = Callable[[], NDArray[Any]]
Part = TypeVar("Part")

SCENE = "scene:street?seed=11&width=1280&height=720&fps=15"
_BEFORE, _AFTER = 40, 46
_STILL = NOISE_PEAK * LEVEL_WEIGHTS[-1]
"""Residuals up to here mean that a patch is still. Which one exactly hangs on a single grey level of a single pixel:
the operations take a short way there."""


@dataclass(frozen=True, slots=True)
class Material:
    """What the operations work on: two moments of a street, as frames (720, 1280, 3) and as model pictures, and token
    features (T, D). preprocessor: the host's."""

    preprocessor: Preprocessor
    frames: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    grid: tuple[int, int]
    patch: int
    features: tuple[NDArray[np.float32], NDArray[np.float32]]

    @classmethod
    def of(cls, manifest: Manifest) -> Material:
        scene, _ = parse_scene(SCENE)
        frames = (scene.render(_BEFORE), scene.render(_AFTER))
        preprocessor, rng = Preprocessor(manifest), np.random.default_rng(0)
        first, second = (preprocessor.picture(frame).copy() for frame in frames)
        shape = (manifest.tokens, manifest.dim)
        features = (rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32))
        return cls(preprocessor, frames, (first, second), manifest.grid, manifest.patch_size, features)

    def pyramids(self, ops: VisionOps) -> tuple[PatchPyramid, PatchPyramid]:
        """Both pictures, filled; (before, after)."""
        made = []
        for picture in self.pictures:
            pyramid = ops.pyramid(self.grid, self.patch)
            ops.fill(pyramid, picture)
            made.append(pyramid)
        return made[0], made[1]

    @property
    def every_third(self) -> NDArray[np.int64]:
        return np.arange(0, self.grid[0] * self.grid[1], 3)


@dataclass(frozen=True, slots=True)
class Stage(Generic[Part]):
    """prepare: makes the call to be timed, whose result is compared. tolerance: largest difference that passes.
    methods: of `VisionOps`, those that do the work."""

    name: str
    methods: tuple[str, ...]
    prepare: Callable[[Part, Material], Run]
    tolerance: float
    unit: str


def _picture(sight: Sight, m: Material) -> Run:
    return lambda: sight.picture(m.frames[0][:])  # another frame each time: what was made of one may be kept


def _slid(sight: Sight, m: Material) -> Run:
    """As grid lock wants it, from another place of the frame; of odd size, which is harder."""
    height, width = m.frames[0].shape[:2]
    x0, y0, x1, y1 = m.preprocessor.placement((width, height)).crop
    return lambda: sight.picture(m.frames[0][:], (x0 + 7, y0 + 5, x1 - 10, y1 - 8))


def _patches(sight: Sight, m: Material) -> Run:
    """Fine patches, and coarse ones of every fifth cell, as grey levels."""
    pre, (rows, cols) = m.preprocessor, np.meshgrid(*(np.arange(0, side - 1, 2) for side in m.grid), indexing="ij")
    cells = (rows * m.grid[1] + cols).ravel()[::5]
    scale, shift = (np.array(each, np.float32)[:, None] for each in (pre.scale, pre.shift))
    make = sight.patches(m.every_third, cells)
    return lambda: (make(m.frames[0][:]).reshape(-1, 3, m.patch**2) - shift) / scale


def _analysis(ops: VisionOps, m: Material) -> Run:
    return lambda: ops.analysis(m.frames[0][:])  # as for `_picture`


def _fill(ops: VisionOps, m: Material) -> Run:
    pyramid = ops.pyramid(m.grid, m.patch)

    def run() -> NDArray[Any]:
        ops.fill(pyramid, m.pictures[0])
        ops.histogram(pyramid)  # what fills may only be queued until something is asked
        return np.asarray(pyramid.means)

    return run


def _residual(ops: VisionOps, m: Material) -> Run:
    before, after = m.pyramids(ops)
    return lambda: np.maximum(ops.residual(after, before).patch, _STILL)


def _exposure(ops: VisionOps, m: Material) -> Run:
    """The same picture, darker: gain, offset, and the residual that is left."""
    before, dimmed = m.pyramids(ops)
    ops.fill(dimmed, (m.pictures[0] * 0.8).astype(np.uint8))

    def run() -> NDArray[Any]:
        found = ops.residual(dimmed, before)
        return np.append(np.maximum(found.patch, _STILL), (100 * found.gain, found.offset))

    return run


def _residual_at(ops: VisionOps, m: Material) -> Run:
    before, after = m.pyramids(ops)
    slots = m.every_third
    return lambda: np.maximum(ops.residual_at(after, slots, before, slots[::-1].copy()), _STILL)


def _moved(ops: VisionOps, m: Material) -> Run:
    before, after = m.pyramids(ops)
    return lambda: np.maximum(ops.moved(after, before), _STILL)


def _adopt(ops: VisionOps, m: Material) -> Run:
    """Every third patch takes over the new pixels; what is left of the residual tells whether it did."""
    before, after = m.pyramids(ops)

    def run() -> NDArray[Any]:
        ops.adopt(before, after, m.every_third)
        return np.maximum(ops.residual(after, before).patch, _STILL)

    return run


def _fetch(ops: VisionOps, m: Material) -> Run:
    """The whole grid steps by one patch to and fro; the timed call does both ways."""
    before, after = m.pyramids(ops)
    there = np.arange(m.grid[0] * m.grid[1]).reshape(m.grid)
    there[:, :-1] = there[:, 1:]

    def run() -> NDArray[Any]:
        ops.adopt(before, after, None)
        ops.fetch(before, there.reshape(-1))
        return np.maximum(ops.residual(after, before).patch, _STILL)

    return run


def _histogram(ops: VisionOps, m: Material) -> Run:
    pyramid = m.pyramids(ops)[0]
    return lambda: ops.histogram(pyramid).reshape(-1)


def _warp(ops: VisionOps, m: Material) -> Run:
    rows, cols = np.indices(m.grid, np.float32)
    source = np.stack([rows.reshape(-1) + np.float32(0.3), cols.reshape(-1) - np.float32(0.6)], axis=1)
    values = _tokens(ops, m.features[0])
    return lambda: ops.warp(values, source, m.grid)


def _blend(ops: VisionOps, m: Material) -> Run:
    alpha = np.linspace(0, 1, len(m.features[0]), dtype=np.float32)
    accumulated, new = (_tokens(ops, features) for features in m.features)

    def run() -> NDArray[np.float32]:
        accumulated[...] = m.features[0]
        ops.blend(accumulated, new, alpha)
        return accumulated

    return run


def _tokens(ops: VisionOps, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """A token map where the operations want it."""
    made = ops.tokens(*features.shape)
    made[...] = features
    return made


PICTURES: tuple[Stage[Sight], ...] = (
    Stage("model picture", ("picture",), _picture, 2.0, "grey levels"),
    Stage("model picture, slid", ("picture",), _slid, 2.0, "grey levels"),
    Stage("patches for the encoder", ("patches",), _patches, 2.0, "grey levels"),
)
STAGES: tuple[Stage[VisionOps], ...] = (
    Stage("grey image for flow", ("analysis",), _analysis, 2.0, "grey levels"),
    Stage("patch pyramid, histogram", ("fill", "histogram"), _fill, 2.0, "grey levels"),
    Stage("residual", ("fill", "residual"), _residual, 2.0, "grey levels"),
    Stage("residual, exposure fitted", ("fill", "residual"), _exposure, 2.0, "grey levels"),
    Stage("residual of fetched patches", ("fill", "residual_at"), _residual_at, 2.0, "grey levels"),
    Stage("residual between frames", ("fill", "moved"), _moved, 2.0, "grey levels"),
    Stage("reference taken over", ("fill", "adopt", "residual"), _adopt, 2.0, "grey levels"),
    Stage("reference moved by a patch", ("fill", "fetch", "residual"), _fetch, 2.0, "grey levels"),
    Stage("HSV histogram", ("fill", "histogram"), _histogram, 0.01, "share of the picture"),
    Stage("token warp", ("warp",), _warp, 0.01, "standard deviations"),
    Stage("EMA blend", ("blend",), _blend, 0.01, "standard deviations"),
)


@dataclass(frozen=True, slots=True)
class StageResult:
    """own: it is the host's own, so there is nothing to compare; difference, passed and host_ms are None then."""

    stage: str
    runs_on: str
    own: bool
    difference: float | None
    tolerance: float
    unit: str
    passed: bool | None
    ms: float | None
    p95_ms: float | None
    watts: float | None
    host_ms: float | None
    fault: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run_stage(stage: Stage[VisionOps], material: Material, ops: Ops, meter: Meter) -> StageResult:
    """One stage; what it raises is its result."""
    own = ops.own(*stage.methods)
    used, host = (partial(stage.prepare, side, material) for side in (ops.used, ops.host))
    return _compared(stage, HOST if own else ops.name, used, None if own else host, meter)


def run_picture(stage: Stage[Sight], material: Material, sights: Sights, meter: Meter) -> StageResult:
    """The same for what is made of frames."""
    used, host = (partial(stage.prepare, side, material) for side in (sights.used, sights.host))
    return _compared(stage, HOST if sights.own else sights.name, used, None if sights.own else host, meter)


def _compared(
    stage: Stage[Part], runs_on: str, used: Callable[[], Run], host: Callable[[], Run] | None, meter: Meter
) -> StageResult:
    """host: None where `used` is the host's own."""
    own, about = host is None, (stage.tolerance, stage.unit)
    try:
        call = used()
        found = np.array(call(), np.float64)
        cost = meter.cost(call)
    except Exception as error:  # a backend on hardware that nobody has tried: the report is to say how it fails
        fault = f"{type(error).__name__}: {error}"
        return StageResult(stage.name, runs_on, own, None, *about, False, None, None, None, None, fault)
    difference = passed = host_ms = None
    if host is not None:
        there = host()
        difference = float(np.abs(found - np.array(there(), np.float64)).max())
        passed, host_ms = bool(difference <= stage.tolerance), meter.cost(there).ms
    return StageResult(stage.name, runs_on, own, difference, *about, passed, cost.ms, cost.p95_ms, cost.watts, host_ms)
