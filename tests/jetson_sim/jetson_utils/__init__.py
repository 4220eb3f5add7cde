"""Stand-in for jetson_utils as it is since 2025-05: the C extension's names, then Python functions that replace two of
them, and a failed extension that nobody is told of."""

from __future__ import annotations

import os
from typing import Any

HAS_JETSON_UTILS_EXT = False
if os.environ.get("JETSON_SIM_EXTENSION") != "broken":
    from jetson_utils_python import *  # noqa: F403

    HAS_JETSON_UTILS_EXT = True


def cudaToNumpy(ptr: int, shape: Any, dtype: Any) -> Any:
    """Not the C function of this name: other arguments."""
    raise NameError("name 'ctypes' is not defined")


def cudaAllocMapped(shape: Any, dtype: Any = float) -> Any:
    """Not the C function of this name: calls what is not defined."""
    raise NameError("name 'cudaAllocMappedPtr' is not defined")
