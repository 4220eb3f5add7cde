"""Memory whose end is the end of what may be touched: reading or writing past it ends the process."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


def guarded(values: Any) -> NDArray[Any]:
    """A copy of an array right before a page that can't be read or written."""
    array = np.ascontiguousarray(values)
    pages = -(-max(array.nbytes, 1) // _PAGE)
    memory = mmap.mmap(-1, (pages + 1) * _PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if _libc.mprotect(ctypes.c_void_p(start + pages * _PAGE), ctypes.c_size_t(_PAGE), 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    copy = np.frombuffer(memory, array.dtype, array.size, pages * _PAGE - array.nbytes).reshape(array.shape)
    copy[...] = array
    return copy


def address(array: NDArray[Any]) -> int:
    """Where an array lies."""
    return int(array.ctypes.data)
