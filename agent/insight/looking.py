"""From what the coherent path found of a frame to what the anomaly model sees of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.coherence.result import FrameResult
from agent.insight.movement import SHAPE, STILL, cells_of_flow
from agent.insight.surprise import CellPlaces, Look
from engines.preprocess import Placement


def cell_places(placement: Placement, patch: int) -> CellPlaces:
    """Where the cells of a whole frame lie on the token grid."""
    width, height = placement.frame_size
    x = ((np.arange(SHAPE[1]) + 0.5) * width / SHAPE[1] * placement.scale[0] + placement.offset[0]) / patch - 0.5
    y = ((np.arange(SHAPE[0]) + 0.5) * height / SHAPE[0] * placement.scale[1] + placement.offset[1]) / patch - 0.5
    return np.dstack(np.meshgrid(x, y)).astype(np.float32)


def look_of(
    frame: Frame,
    result: FrameResult,
    places: CellPlaces,
    seconds: float,
    *,
    whole: bool = False,
    ignored: NDArray[np.bool_] | None = None,
) -> Look:
    """seconds: since the frame before, 0 when there is none or nothing compares. whole: judge every token anew.

    Fresh are tokens whose pixels changed and those that were encoded for it. One that was encoded only to refresh it
    shows what it showed before."""
    changed = result.moving | result.changed
    if whole or result.cut or result.reframed:
        fresh = result.seen
    elif result.fetch is None:
        fresh = changed & result.seen
    else:
        fresh = (changed | (result.fetch != np.arange(len(changed)))) & result.seen
    if result.moving.any():
        cells = None if result.flow is None else cells_of_flow(result.flow, result.camera_px)
    else:
        cells = STILL
    return Look(
        features=result.tokens.features,
        fresh=fresh,
        moved=changed,
        residual=result.residual,
        cells=cells,
        seconds=seconds,
        places=places,
        hour=frame.utc.hour + frame.utc.minute / 60,
        ignored=ignored,
    )
