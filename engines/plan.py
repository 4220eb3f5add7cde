"""The two values that pass between the coherent path and an encoder: what to do, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Mode(str, Enum):
    """How a frame was handled."""

    REUSE = "reuse"
    WARPING = "warping"
    HIERARCHICAL_DIFF = "hierarchical_diff"
    FULL = "full"
    SCENE_CUT_FULL = "scene_cut_full"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """What the encoder is to do with one frame.

    mode: the name of the plan. dirty: int64 (n,), ascending flat slots (row · cols + col) to run through the network;
    None = all of them, through the full graph. fetch: int64 (T,), for each slot the slot whose cached values it takes
    over before anything is encoded (a warp or a slide of the grid); None = every slot keeps its own.
    reasons: why tokens are dirty, as counts by cause (`changed`, `revealed`, `inconsistent`, `refresh`, `cut`, …).
    coarse: int64 (m,), first (top left) slots of the 2×2 cells to encode as one token each; see `cells_of`.

    A cell stays coarse until it is encoded fine, and then all four of its slots must be in `dirty`. Slots that are
    encoded may fetch from anywhere; the others may take over a coarse cell only slot by slot. An encoder raises
    ValueError, and changes nothing, on a plan that would leave a cell partly coarse.
    """

    mode: Mode
    dirty: NDArray[np.int64] | None
    fetch: NDArray[np.int64] | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    coarse: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.dirty is None and self.coarse is not None:
            raise ValueError("a full encode has no coarse cells: `dirty` is None, and `coarse` is not")

    @property
    def full(self) -> bool:
        return self.dirty is None

    @property
    def encoded(self) -> int | None:
        """Tokens to run through the network, a coarse cell counting one; None = all."""
        if self.dirty is None:
            return None
        return len(self.dirty) + (0 if self.coarse is None else len(self.coarse))


@dataclass(frozen=True, slots=True)
class TokenMap:
    """The final features of one frame, before any blending in time.

    features: float32 (T, D), row-major over the grid; belongs to the encoder and is valid until its next call.
    grid: (rows, cols). encoded: how many tokens ran through the network for this frame. coarse: bool (T,), slots whose
    feature is that of a coarse token, the same in all four of a cell; belongs to the encoder too; all False when not
    given.
    """

    features: NDArray[np.float32]
    grid: tuple[int, int]
    encoded: int
    coarse: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))

    def __post_init__(self) -> None:
        if not len(self.coarse):
            object.__setattr__(self, "coarse", _all_fine(self.grid[0] * self.grid[1]))


@lru_cache
def _all_fine(tokens: int) -> NDArray[np.bool_]:
    fine = np.zeros(tokens, bool)
    fine.setflags(write=False)
    return fine


def cells_of(grid: tuple[int, int]) -> NDArray[np.int64]:
    """int64 (cells, 4): the slots of each whole 2×2 cell, top left first; the last row or column of an odd grid is in
    none."""
    rows, columns = grid
    slots = np.arange(rows * columns).reshape(grid)[: rows // 2 * 2, : columns // 2 * 2]
    return np.ascontiguousarray(slots.reshape(rows // 2, 2, columns // 2, 2).swapaxes(1, 2)).reshape(-1, 4)


class Encoder(Protocol):
    """A vision tower with the cache of one camera. Not thread-safe; one per camera, weights shared.

    `picture` is the model image: uint8 RGB (image_size, image_size, 3), as `engines.preprocess` makes it.
    crossover: from so many tokens on, a plan is carried out in full, which is no dearer then, and exact.
    """

    crossover: int

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def dim(self) -> int: ...

    @property
    def patch_size(self) -> int: ...

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        """Run the plan. With an empty `dirty` nothing runs. Raises EngineFault if the runtime fails; the cache is then
        invalid and the next call is a full encode whatever the plan says. Raises ValueError for a plan that can't be
        carried out (see EncodePlan); nothing has changed then. An encoder may encode more than was asked for where
        that is cheaper: `TokenMap.encoded` says how much. A full encode makes every token fine."""
        ...

    def encode_full(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (T, D) of a full encode that leaves the cache alone: for audits and measurement."""
        ...

    def reset(self) -> None:
        """Forget everything; the next call is a full encode."""
        ...

    def close(self) -> None:
        """Give back what is held on a GPU, from whatever thread. The encoder can't be used afterwards."""
        ...
