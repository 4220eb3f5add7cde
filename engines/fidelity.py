"""What level of detail costs a model: how like coarse tokens are to the fine ones that they replace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engines.manifest import Model
from engines.onnx.encoder import OnnxEncoder
from engines.onnx.runtime import OnnxRuntime
from engines.plan import EncodePlan, Mode, cells_of


def lod_loss(model: Model, pictures: Sequence[NDArray[np.uint8]], *, threads: int = 2) -> dict[str, float]:
    """Cosines against a full encode, of pictures uint8 (S, S, 3) encoded with every other 2×2 cell coarse, like the
    fields of a chessboard, and the rest fine.

    coarse_mean, coarse_p5: of the slots of coarse cells; their feature against each of the four. fine_mean, fine_p5: of
    the others, which see coarse neighbours. A model trained on mixed resolution has all four near 1. Raises ModelError,
    EngineFault, ValueError without pictures.
    """
    if not pictures:
        raise ValueError("no pictures to compare")
    encoder = OnnxEncoder(OnnxRuntime(model, threads=threads, spin=False))
    tokens = model.manifest.tokens
    encoder.crossover = tokens + 1
    rows, columns = model.manifest.grid
    cells = cells_of((rows, columns))
    field = np.arange(len(cells)) // (columns // 2) + np.arange(len(cells)) % (columns // 2)
    coarse = cells[field % 2 == 0]
    fine = np.setdiff1d(np.arange(tokens), coarse)
    plan = EncodePlan(Mode.HIERARCHICAL_DIFF, fine, coarse=coarse[:, 0])
    found = []
    for picture in pictures:
        full = encoder.encode(picture, EncodePlan(Mode.FULL, None)).features.copy()
        mixed = encoder.encode(picture, plan).features
        lengths = np.linalg.norm(full, axis=1) * np.linalg.norm(mixed, axis=1)
        found.append((full * mixed).sum(axis=1) / np.maximum(lengths, 1e-12))
    cosines = np.array(found)
    return {
        f"{name}_{key}": float(value)
        for name, slots in (("coarse", coarse.ravel()), ("fine", fine))
        for key, value in (("mean", cosines[:, slots].mean()), ("p5", np.percentile(cosines[:, slots], 5)))
    }
