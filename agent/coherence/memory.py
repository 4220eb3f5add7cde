"""Where memory goes: the bytes of every array that is reachable from a part, each counted once.

What native libraries hold besides (graphs, thread pools, a decoder's pictures) no array tells of; `resident` is the
whole process as the kernel sees it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines.manifest import Model

_OURS = ("agent", "engines", "vpi_ops")
_ATOMS = (str, bytes, int, float, bool, complex, type(None))


def by_part(holders: Mapping[str, object]) -> dict[str, int]:
    """Bytes by part. holders: what holds a part's memory, objects of this program or containers of them. An array that
    two parts can reach counts with the first."""
    counted: dict[int, object] = {}
    return {part: sum(_sizes(holder, counted)) for part, holder in holders.items()}


def line(sizes: Mapping[str, int]) -> str:
    """Bytes by part, for people."""
    return "memory, MB: " + ", ".join(f"{part} {size / 1e6:.1f}" for part, size in sizes.items())


def weights(model: Model) -> int:
    """Bytes of a model's weight files, which all cameras share."""
    return sum((model.folder / name).stat().st_size for name in model.manifest.weights)


def resident() -> int:
    """Bytes of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _sizes(root: object, counted: dict[int, object]) -> Iterator[int]:
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        while isinstance(thing, np.ndarray) and isinstance(thing.base, np.ndarray):
            thing = thing.base  # a view; its memory belongs to another array
        if isinstance(thing, _ATOMS) or id(thing) in counted:
            continue
        counted[id(thing)] = thing  # kept, so that no other object comes by the same id
        size = getattr(thing, "nbytes", None)  # arrays of any library say it, on whatever device they are
        if isinstance(size, int):
            yield size
        else:
            waiting += _within(thing)


def _within(thing: Any) -> list[object]:
    """What a container or an object of ours holds. Copied in one step each: other threads go on meanwhile."""
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, list | tuple | set | frozenset | deque):
        return list(thing)
    kind = type(thing)
    if kind.__module__.partition(".")[0] not in _OURS:
        return []
    slots = {name for each in kind.__mro__ for name in getattr(each, "__slots__", ())}
    return [*getattr(thing, "__dict__", {}).values(), *(getattr(thing, name, None) for name in slots)]
