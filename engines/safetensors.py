"""Where the tensors of a safetensors file lie.

Format: 8 bytes little-endian header length, JSON {name: {dtype, shape, data_offsets}}, then the data, tensor after
tensor without a gap (https://huggingface.co/docs/safetensors). A file that breaks any of it is refused, so that a graph
never points at bytes that belong to something else.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, NonNegativeInt, TypeAdapter, ValidationError

from config.errors import ModelError

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
_LONGEST_HEADER = 100_000_000  # as the safetensors library has it


class _Entry(BaseModel):
    dtype: str
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt] = Field(min_length=2)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of the weight file: dtype (`F16`, `BF16`, `F32`, …), shape, bytes [offset, offset + length)."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Tensors by name. Raises ModelError, which says what is wrong with a damaged file."""
    try:
        with file.open("rb") as stream:
            total = stream.seek(0, 2)
            stream.seek(0)
            size = int.from_bytes(stream.read(8), "little")
            if size > min(_LONGEST_HEADER, total - 8):
                raise ValueError(f"a header of {size} bytes in a file of {total}")
            header = json.loads(stream.read(size))
        header.pop("__metadata__", None)
        entries = TypeAdapter(dict[str, _Entry]).validate_python(header)
    except FileNotFoundError:
        raise ModelError(f"{file}: not found; expected weights in the safetensors format") from None
    except (OSError, ValueError, AttributeError) as error:
        reason = _first_fault(error) if isinstance(error, ValidationError) else error
        raise ModelError(f"{file}: not a safetensors file, or its beginning is damaged ({reason})") from error
    start = 8 + size
    _check_layout(file, entries, total - start)
    return {
        name: StoredTensor(e.dtype, e.shape, start + e.data_offsets[0], e.data_offsets[1] - e.data_offsets[0])
        for name, e in entries.items()
    }


def floats(content: bytes, dtype: str) -> NDArray[np.float32]:
    """Values stored as `F32`, `F16` or `BF16`, as float32; a bfloat16 is the upper half of one."""
    if dtype == "BF16":
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, {"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float32)


def _check_layout(file: Path, entries: dict[str, _Entry], stored: int) -> None:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        first, last = entry.data_offsets
        if entry.dtype not in ITEM_BYTES:
            raise ModelError(f"{file}: tensor `{name}`: unknown dtype {entry.dtype!r}")
        expected = math.prod(entry.shape) * ITEM_BYTES[entry.dtype]
        if last - first != expected:
            raise ModelError(
                f"{file}: tensor `{name}`: found {last - first} bytes, expected {expected} for {entry.dtype} "
                f"{list(entry.shape)}: the header is damaged"
            )
        if first != end:
            fault = "overlaps the tensor before it" if first < end else "leaves a gap before it"
            raise ModelError(f"{file}: tensor `{name}` begins at byte {first}, expected {end}: it {fault}")
        end = last
    if stored != end:
        fault = "the file is cut short; fetch or copy it again" if stored < end else "something follows the last tensor"
        raise ModelError(f"{file}: holds {stored} bytes of data, expected {end}: {fault}")


def _first_fault(error: ValidationError) -> Any:
    fault = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
