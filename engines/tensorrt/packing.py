"""Arrays side by side in one buffer, so that all inputs of a frame go to the GPU in one copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.tensorrt.memory import aligned

Fields = Mapping[str, tuple[tuple[int, ...], "np.dtype[Any]"]]


def size_of(fields: Fields) -> int:
    """Bytes of all fields, each at a multiple of 256."""
    return sum(aligned(int(np.prod(shape)) * dtype.itemsize) for shape, dtype in fields.values())


class Packed:
    """Views into a staging buffer, uint8 (at least `size_of(fields)`,), and the addresses of their copies on the GPU,
    which begin at `address`. used: what is to be copied; but_last: without the last field."""

    def __init__(self, fields: Fields, staging: NDArray[Any], address: int) -> None:
        self.views: dict[str, NDArray[Any]] = {}
        self.addresses: dict[str, int] = {}
        start = 0
        for name, (shape, dtype) in fields.items():
            nbytes = int(np.prod(shape)) * dtype.itemsize
            self.views[name] = staging[start : start + nbytes].view(dtype).reshape(shape)
            self.addresses[name] = address + start
            start += aligned(nbytes)
        self.used = staging[:start]
        self.but_last = staging[: self.addresses[name] - address]
        self.address = address
