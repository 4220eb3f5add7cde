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

_PROOFS = 4
_ROUNDING = 3.0
"""Grey levels: pictures may differ by one, of which the residual makes so much at most."""

Shrink = Callable[[NDArray[np.uint8], NDArray[np.uint8]], bool]


def host_ops(*, width: int = 320, threads: int = 1, finest_scale: int = 2) -> HostOps:
    """The operations of one camera; arguments as for `HostOps`."""
    found = library()
    if isinstance(found, str):
        return HostOps(width=width, threads=threads, finest_scale=finest_scale)
    return NativeOps(found, width=width, threads=threads, finest_scale=finest_scale)


def host_library() -> Library | None:
    """The operations on patches and tokens in C, None where there is no compiler."""
    found = library()
    return None if isinstance(found, str) else found


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
    if isinstance(loaded, str):
        return loaded
    found = Library(loaded)
    return (
        found
        if agrees(NativeOps(found, threads=cv2.getNumThreads()))
        else "what the compiler made of it gives other results than OpenCV"
    )


def agrees(ops: NativeOps) -> bool:
    """Whether it does what `HostOps` does with some noise; compilers have faults (GCC 12 counted bytes wrongly in an
    earlier form of ops.c), which should not show in what a camera reports."""
    host, rng = HostOps(threads=cv2.getNumThreads()), np.random.default_rng(0)
    mine, theirs = ([each.pyramid((20, 20), 14) for _ in range(2)] for each in (ops, host))
    for turn in range(_PROOFS):
        picture = rng.integers(0, 256, (280, 280, 3), dtype=np.uint8)
        for each, pyramids in ((ops, mine), (host, theirs)):
            each.fill(pyramids[turn % 2], picture)
        for a, b in zip(
            *((*pyramids[turn % 2].levels, pyramids[turn % 2].means) for pyramids in (mine, theirs)), strict=True
        ):
            if np.abs(a.astype(np.float32) - b).max() > 1:
                return False
        found, expected = ops.residual(*mine).patch, host.residual(*theirs).patch
        colours = ops.histogram(mine[0]) - host.histogram(theirs[0])
        if np.abs(found - expected).max() > _ROUNDING or np.abs(colours).sum() > 0.05:
            return False
    return True
