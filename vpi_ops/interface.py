"""What a backend of image operations can do, and the values it passes.

Patches are numbered by flat slot, row · cols + col; T = rows · cols. Arrays that a backend makes may live where it
likes between calls; what a method returns to the caller is a NumPy array in host memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vpi_ops.translation import Translation


@dataclass(frozen=True, slots=True)
class FlowField:
    """Dense motion between two analysis images.

    backward: float32 (h, w, 2) in pixels of the analysis image, `current(x, y) ≈ previous(x + u, y + v)`.
    scale: (x, y) source pixels per analysis pixel.
    error: float32 (h, w), `|backward(p) + forward(p + backward(p))|` in analysis pixels; above 1 px the flow is
    occluded or wrong. None until `VisionOps.check` was asked.
    """

    backward: NDArray[np.float32]
    scale: tuple[float, float]
    error: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class PatchPyramid:
    """One model picture (or a mosaic of patches from several) at several scales, patch by patch.

    levels: uint8 (T, n, 3) each, n pixels a patch, fine to coarse. means: float32 (T,), the mean grey level of each
    patch. Memory belongs to the backend that made it; only its methods write to it.
    """

    grid: tuple[int, int]
    patch: int
    levels: tuple[Any, ...]
    means: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Residual:
    """How far each patch is from its reference.

    patch: float32 (T,), grey levels, ≥ 0. gain, offset: the exposure change that was fitted away (current ≈ gain ·
    reference + offset); 1 and 0 when there was none.
    """

    patch: NDArray[np.float32]
    gain: float
    offset: float


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of one part of what a GPU works in. allocated: held now; peak: the most that ever was; reserved: by how
    much free memory fell when they were taken (on a Jetson also what others took at that moment)."""

    allocated: int = 0
    peak: int = 0
    reserved: int = 0


class VisionOps(Protocol):
    """The image operations of one camera. Not thread-safe, except that `flow` and `check` may run on a thread of
    their own."""

    def analysis(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The grey uint8 (h, w) image that flow works on, from RGB (H, W, 3)."""
        ...

    def same(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
        """Whether two RGB images (H, W, 3) are equal, bit for bit."""
        ...

    def pyramid(self, grid: tuple[int, int], patch: int) -> PatchPyramid:
        """A pyramid's memory, contents undefined."""
        ...

    def fill(self, pyramid: PatchPyramid, picture: NDArray[np.uint8]) -> None:
        """Take a model picture, uint8 RGB (rows · patch, cols · patch, 3), into `pyramid`."""
        ...

    def means(self, pyramid: PatchPyramid) -> NDArray[np.float32]:
        """The mean grey level of each patch, float32 (T,), once a `fill` that was only queued is done."""
        ...

    def adopt(self, reference: PatchPyramid, current: PatchPyramid, slots: NDArray[np.int64] | None) -> None:
        """Let `reference` take over the pixels of `current` in `slots`; None = everywhere."""
        ...

    def fetch(self, reference: PatchPyramid, source: NDArray[np.int64]) -> None:
        """Let every slot of `reference` take over the pixels of slot `source[slot]`."""
        ...

    def residual(self, current: PatchPyramid, reference: PatchPyramid) -> Residual:
        """Robust difference per patch, exposure fitted away."""
        ...

    def residual_at(
        self, current: PatchPyramid, slots: NDArray[np.int64], reference: PatchPyramid, sources: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """The same difference, float32 (n,), between `slots` of `current` and other slots of `reference`; exposure is
        left as it is."""
        ...

    def moved(self, current: PatchPyramid, previous: PatchPyramid) -> NDArray[np.float32]:
        """A cheap difference per patch, float32 (T,), between two neighbouring pictures."""
        ...

    def histogram(self, pyramid: PatchPyramid) -> NDArray[np.float32]:
        """HSV 8×8×8 histogram, float32 (8, 8, 8), sum 1."""
        ...

    def histogram_distance(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        """Bhattacharyya distance, 0 (same) to 1 (nothing in common)."""
        ...

    def flow(
        self,
        previous: NDArray[np.uint8],
        current: NDArray[np.uint8],
        scale: tuple[float, float],
        region: tuple[int, int, int, int] | None = None,
    ) -> FlowField:
        """Dense backward flow of two analysis images. scale: (x, y) source pixels per analysis pixel. region: the part
        (x0, y0, x1, y1) to look at; elsewhere the flow is 0."""
        ...

    def check(self, flow: FlowField, previous: NDArray[np.uint8], current: NDArray[np.uint8]) -> FlowField:
        """The same flow with its consistency error, at the price of the forward flow."""
        ...

    def key(self, image: NDArray[np.uint8]) -> Any:
        """What `follow` needs of an analysis image to find it again."""
        ...

    def follow(self, key: Any, image: NDArray[np.uint8], guess: tuple[float, float]) -> Translation | None:
        """The translation, in analysis pixels, that brings the key image's content to where it is in `image`, sought
        around `guess` (x, y). None when too little of it can be found."""
        ...

    def tokens(self, count: int, dim: int) -> NDArray[np.float32]:
        """A token map (count, dim), zeros, in memory where `warp` and `blend` do best with it."""
        ...

    def warp(
        self, values: NDArray[np.float32], source: NDArray[np.float32], grid: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Bilinear gather of `values` (T, D) at n grid positions `source` (n, 2) = (row, col), clamped to the grid:
        float32 (n, D)."""
        ...

    def blend(self, accumulated: NDArray[np.float32], new: NDArray[np.float32], alpha: NDArray[np.float32]) -> None:
        """`accumulated = alpha · accumulated + (1 − alpha) · new` in place; (T, D), (T, D), (T,)."""
        ...

    def held(self) -> Mapping[str, Held]:
        """Memory on a GPU by part; may be asked from any thread."""
        ...

    def close(self) -> None:
        """Give back what is held on a GPU. Nothing more is to be asked for afterwards."""
        ...
