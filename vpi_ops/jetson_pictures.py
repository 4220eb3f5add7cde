"""Model pictures, made by a kernel from the frame on the device.

A picture is an array in mapped memory, as long-lived as whoever keeps it: the patch pyramid is made of it, and the host
may read it once something has waited for the GPU. Patches for the encoder come straight from the frame, in one pass:
letterbox or crop, resizing, normalising and gathering are one kernel, which writes what the encoder reads.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vpi_ops.cuda import Kernels, PatchFormat, Sampled
from vpi_ops.jetson import JetsonOps
from vpi_ops.jetson_frames import DeviceFrames
from vpi_ops.jetson_memory import Gpu, MappedPool, lease_of
from vpi_ops.kernels.resampling import Resampling

Image = NDArray[np.uint8]
Crop = tuple[int, int, int, int]


class Placement(Protocol):
    """What is needed of `engines.preprocess.Placement`."""

    @property
    def crop(self) -> Crop: ...

    @property
    def seen(self) -> Crop: ...


Place = TypeVar("Place", bound=Placement, covariant=True)


class Preprocessor(Protocol[Place]):
    """What is needed of `engines.preprocess.Preprocessor`."""

    @property
    def image_size(self) -> int: ...

    @property
    def padding(self) -> tuple[int, int, int]: ...

    def placement(self, frame_size: tuple[int, int]) -> Place: ...

    def picture(self, image: Image, out: Image | None = None, crop: Crop | None = None) -> Image: ...


class DevicePictures(Generic[Place]):
    """Model pictures of one camera. Where the GPU can't make one, the host does, in the same memory."""

    def __init__(self, ops: JetsonOps, preprocessor: Preprocessor[Place]) -> None:
        self._preprocessor = preprocessor
        self._gpu, self._kernels, self._frames, self._greys = ops.gpu, ops.kernels, ops.frames, ops.greys
        side = preprocessor.image_size
        self._pool = MappedPool(ops.gpu, (side, side, 3), "pictures")

    def placement(self, frame_size: tuple[int, int]) -> Place:
        return self._preprocessor.placement(frame_size)

    def picture(self, image: Image, *, crop: Crop | None = None) -> Image:
        """As `Preprocessor.picture`; queued, not waited for. Raises EngineFault."""
        with self._gpu.sparing():
            return self._picture(image, crop)

    def _picture(self, image: Image, crop: Crop | None) -> Image:
        picture = self._pool.take()
        place = self._frames.place(image)
        lease = lease_of(picture)
        if place is None or lease is None:
            return self._preprocessor.picture(image, out=picture, crop=crop)
        self._greys.entered(image)
        height, width = image.shape[:2]
        placement = self._preprocessor.placement((width, height))
        x0, y0, x1, y1 = crop or placement.crop
        side, part = self._preprocessor.image_size, (x1 - x0, y1 - y0)
        make = partial(Resampling.shrinking, part, (side, side), placement.seen)
        geometry = ("picture", part, placement.seen)
        sampled = self._frames.sampled(place, width, geometry, make, (x0, y0), self._preprocessor.padding)
        with self._gpu.working():
            self._kernels.picture(sampled, lease.address, self._gpu.stream)
        self._gpu.launched(picture)
        lease.on_device = DevicePicture(self._gpu, self._kernels, self._frames, place, sampled)
        return picture


class DevicePicture:
    """A model picture for an encoder on the GPU: `engines.preprocess.OnDevice`."""

    def __init__(
        self, gpu: Gpu, kernels: Kernels, frames: DeviceFrames, place: tuple[int, int], sampled: Sampled
    ) -> None:
        self._gpu, self._kernels, self._frames, self._place, self._sampled = gpu, kernels, frames, place, sampled

    @property
    def there(self) -> bool:
        return self._gpu.lost is None and self._frames.holds(self._place)

    def settle(self) -> None:
        self._gpu.settle()

    def gather(
        self,
        slots: int,
        fine: int,
        coarse: int,
        out: int,
        stream: Any,
        *,
        patch: int,
        cols: int,
        scale: tuple[float, float, float],
        shift: tuple[float, float, float],
        half: bool = False,
    ) -> None:
        format = PatchFormat(patch, cols, scale, shift, half)
        with self._gpu.working():
            self._gpu.before(stream)  # the frame may still be on its way
            self._kernels.patches(self._sampled, slots, fine, coarse, format, out, stream)
