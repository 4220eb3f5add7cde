"""The two values that pass between the coherent path and an encoder: what to do, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
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
    """

    mode: Mode
    dirty: NDArray[np.int64] | None
    fetch: NDArray[np.int64] | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return self.dirty is None


@dataclass(frozen=True, slots=True)
class TokenMap:
    """The final features of one frame, before any blending in time.

    features: float32 (T, D), row-major over the grid; belongs to the encoder and is valid until its next call.
    grid: (rows, cols). encoded: how many tokens ran through the network for this frame.
    """

    features: NDArray[np.float32]
    grid: tuple[int, int]
    encoded: int


class Encoder(Protocol):
    """A vision tower with the cache of one camera. Not thread-safe; one per camera, weights shared.

    `picture` is the model image: uint8 RGB (image_size, image_size, 3), as `engines.preprocess` makes it.
    """

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def dim(self) -> int: ...

    @property
    def patch_size(self) -> int: ...

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        """Run the plan. With an empty `dirty` nothing runs. Raises EngineFault if the runtime fails; the cache is then
        invalid and the next call is a full encode whatever the plan says."""
        ...

    def encode_full(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (T, D) of a full encode that leaves the cache alone: for audits and measurement."""
        ...

    def reset(self) -> None:
        """Forget everything; the next call is a full encode."""
        ...
