"""Image operations on the CPU: in C where a compiler was found, else with OpenCV and NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from vpi_ops import native
from vpi_ops.host import HostOps
from vpi_ops.native.ops import Library, NativeOps

Shrink = Callable[[NDArray[np.uint8], NDArray[np.uint8]], bool]


def host_ops(*, width: int = 320, threads: int = 1, finest_scale: int = 2) -> HostOps:
    """The operations of one camera; arguments as for `HostOps`."""
    found = library()
    if isinstance(found, str):
        return HostOps(width=width, threads=threads, finest_scale=finest_scale)
    return NativeOps(found, width=width, threads=threads, finest_scale=finest_scale)


def host_shrink() -> Shrink | None:
    """What shrinks pictures faster than OpenCV does, None where nothing does; see `Library.shrunk`."""
    found = library()
    return None if isinstance(found, str) else found.shrunk


def host_kind() -> str:
    """What compares patches on the CPU, in words."""
    opencv = f"OpenCV {cv2.__version__} on the CPU"
    return opencv if host_why() else f"C compiled on this machine, and {opencv}"


def host_why() -> str | None:
    """Why OpenCV does it all; None where it does not."""
    found = library()
    return f"Patches are compared faster by C that is compiled here: {found}." if isinstance(found, str) else None


@cache
def library() -> Library | str:
    """The library, or a sentence why there is none."""
    loaded = native.opened()
    return loaded if isinstance(loaded, str) else Library(loaded)
