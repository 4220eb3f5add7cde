"""The parts of the coherent path that hang on the size of the frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.coherence.costs import EncodeCosts
from agent.coherence.fidelity import FidelityControl
from agent.coherence.planner import Planner
from agent.coherence.sampling import TokenSampler
from agent.coherence.settings import CoherenceSettings
from agent.coherence.warping import AnchorWarp
from engines.preprocess import Placement
from vpi_ops.interface import VisionOps


@dataclass(frozen=True, slots=True)
class View:
    """How frames of one size lie in the model picture, and what was built for that. patch_px: (x, y) source pixels per
    patch. seen: bool (T,), tokens that see picture."""

    placement: Placement
    patch_px: NDArray[np.float32]
    seen: NDArray[np.bool_]
    sampler: TokenSampler
    planner: Planner
    warp: AnchorWarp

    @classmethod
    def of(
        cls,
        placement: Placement,
        grid: tuple[int, int],
        patch: int,
        ops: VisionOps,
        settings: CoherenceSettings,
        costs: EncodeCosts,
        control: FidelityControl,
    ) -> View:
        patch_px = (patch / placement.scale[0], patch / placement.scale[1])
        seen = placement.valid(patch)
        return cls(
            placement=placement,
            patch_px=np.array(patch_px, np.float32),
            seen=seen,
            sampler=TokenSampler(placement, grid, patch),
            planner=Planner(grid, settings, costs, seen, control),
            warp=AnchorWarp(ops, grid, patch_px, left_px=20 * settings.motion_low, error_px=settings.flow_error_px),
        )
