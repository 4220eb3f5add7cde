"""From a frame to what the encoder reads: the model's picture, and patches of it, made on either side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from config.errors import EngineFault
from engines.preprocess import Placement, Preprocessor, on_device

if TYPE_CHECKING:
    from vpi_ops.jetson import JetsonOps
    from vpi_ops.jetson_pictures import DevicePictures

Image = NDArray[np.uint8]
Slots = NDArray[np.int64]
Patches = Callable[[Image], NDArray[np.float32]]


class Sight(Protocol):
    """What looks at frames uint8 (H, W, 3)."""

    def picture(self, frame: Image, crop: tuple[int, int, int, int] | None = None) -> Image:
        """As `Preprocessor.picture`, for the host to read."""
        ...

    def patches(self, slots: Slots, cells: Slots) -> Patches:
        """Makes, of a frame, normalised patches float32 (fine + coarse, 3·p·p): those of the slots, and those of the
        2×2 cells given by their first slots."""
        ...


class OnCpu:
    """By the host's own code."""

    def __init__(self, preprocessor: Preprocessor) -> None:
        self._preprocessor = preprocessor

    def picture(self, frame: Image, crop: tuple[int, int, int, int] | None = None) -> Image:
        return self._preprocessor.picture(frame, crop=crop)

    def patches(self, slots: Slots, cells: Slots) -> Patches:
        pre = self._preprocessor

        def make(frame: Image) -> NDArray[np.float32]:
            picture = pre.picture(frame)
            return np.concatenate([pre.patches(picture, slots), pre.coarse_patches(picture, cells)])

        return make


class OnGpu:
    """By kernels; patches straight from the frame, on another stream than the picture, as the encoder has them."""

    def __init__(self, ops: JetsonOps, pictures: DevicePictures[Placement], preprocessor: Preprocessor) -> None:
        self._gpu, self._pictures, self._preprocessor = ops.gpu, pictures, preprocessor

    def picture(self, frame: Image, crop: tuple[int, int, int, int] | None = None) -> Image:
        picture = self._pictures.picture(frame, crop=crop)
        made = on_device(picture)
        if made is None:
            raise EngineFault("the picture was made by the CPU")
        made.settle()
        return picture

    def patches(self, slots: Slots, cells: Slots) -> Patches:
        pre, gpu = self._preprocessor, self._gpu
        wanted = gpu.mapped((len(slots) + len(cells),), np.int32)
        wanted[:] = np.concatenate([slots, cells])
        found = gpu.mapped((len(wanted), 3 * pre.patch_size**2), np.float32)
        cols = pre.image_size // pre.patch_size

        def make(frame: Image) -> NDArray[np.float32]:
            made, there = on_device(self._pictures.picture(frame)), (gpu.address(wanted), gpu.address(found))
            if made is None or there[0] is None or there[1] is None:
                raise EngineFault("the picture was made by the CPU")
            made.gather(
                there[0],
                len(slots),
                len(cells),
                there[1],
                gpu.beside,
                patch=pre.patch_size,
                cols=cols,
                scale=pre.scale,
                shift=pre.shift,
            )
            with gpu.working():
                gpu.beside.synchronize()
            return np.array(found)

        return make
