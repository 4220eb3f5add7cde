"""Weights of a checkpoint, in one file or in shards, written into one safetensors file in the precision asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import ModelError
from engines.checkpoint import WEIGHTS, Checkpoint, read_config, read_json
from engines.export.parameters import HEAD, TEXT, needed
from engines.safetensors import ITEM_BYTES, StoredTensor, floats, read_header

INDEX = "model.safetensors.index.json"
BLOCK = 1 << 24  # bytes read at once; a multiple of every item's size
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Weights:
    """The parameters that the graphs need. file: by parameter, the file that holds it; tensors: where in that file."""

    files: dict[str, Path]
    tensors: dict[str, StoredTensor]

    def bytes_as(self, dtype: str | None) -> int:
        """Size of all parameters when stored as `F32`, `F16`, or (None) as they are."""
        return sum(t.length // ITEM_BYTES[t.dtype] * ITEM_BYTES[dtype or t.dtype] for t in self.tensors.values())


def find_weights(folder: Path) -> Weights:
    """Every parameter of a checkpoint, in its one file or its shards, checked against config.json. Raises ModelError,
    also for a truncated or damaged file and for parameters of another shape, before anything is written."""
    config = read_config(folder / "config.json")
    shards = {folder / WEIGHTS: None} if (folder / WEIGHTS).is_file() else _shards(folder)
    files: dict[str, Path] = {}
    tensors: dict[str, StoredTensor] = {}
    for shard, expected in shards.items():
        header = read_header(shard)
        if absent := sorted((expected or set()) - set(header)):
            raise ModelError(
                f"{shard}: holds no parameter `{absent[0]}`; expected it by {INDEX}; fetch the shard again"
            )
        for name in header if expected is None else expected:
            files[name], tensors[name] = shard, header[name]
    if config.tie_word_embeddings and _same(HEAD, f"{TEXT}.embed_tokens.weight", files, tensors):
        del tensors[HEAD]
    wanted = needed(Checkpoint(folder, config, tensors))
    return Weights({name: files[name] for name in wanted}, {name: tensors[name] for name in wanted})


def _same(first: str, second: str, files: dict[str, Path], tensors: dict[str, StoredTensor]) -> bool:
    """Are two parameters there, and the same bit for bit?"""
    if first not in tensors or second not in tensors or tensors[first].length != tensors[second].length:
        return False
    left = tensors[first].length
    with files[first].open("rb") as one, files[second].open("rb") as other:
        one.seek(tensors[first].offset)
        other.seek(tensors[second].offset)
        while left:
            size = min(BLOCK, left)
            if one.read(size) != other.read(size):
                return False
            left -= size
    return True


def _shards(folder: Path) -> dict[Path, set[str] | None]:
    """Names of the parameters in each shard."""
    if not (folder / INDEX).is_file():
        pickles = sorted(file.name for file in folder.glob("*.bin")) + sorted(
            file.name for file in folder.glob("*.pt*")
        )
        found = f"found {', '.join(pickles[:3])}, which can run code when loaded" if pickles else "found no weights"
        raise ModelError(f"{folder}: {found}; expected {WEIGHTS}, or {INDEX} and the shards that it names")
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{folder / INDEX}: expected the key `weight_map`, parameter → file")
    shards: dict[Path, set[str] | None] = {}
    for name, file in names.items():
        if not isinstance(file, str) or not _PLAIN.fullmatch(file):
            raise ModelError(f"{folder / INDEX}: parameter `{name}`: found {file!r}, expected the name of a file here")
        held = shards.setdefault(folder / file, set())
        assert held is not None
        held.add(name)
    return shards


def write_weights(
    weights: Weights, target: Path, *, dtype: str | None, progress: Callable[[float], object] = lambda done: None
) -> float:
    """Write all parameters, sorted by name, into one file, as `F32` or `F16`, or (None) as they are. Returns the
    largest rounding error in proportion to the largest value of its parameter. Raises ModelError when one doesn't fit.
    """
    names = sorted(weights.tensors)
    total, done, worst = weights.bytes_as(dtype), 0, 0.0
    with target.open("wb") as out:
        out.write(_header((name, weights.tensors[name], dtype) for name in names))
        for name in names:
            with weights.files[name].open("rb") as stored:
                error, written = _copy(name, stored, weights.tensors[name], dtype, out)
            worst, done = max(worst, error), done + written
            progress(done / total)
    return worst


def _header(tensors: Iterable[tuple[str, StoredTensor, str | None]]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor, dtype in tensors:
        length = tensor.length // ITEM_BYTES[tensor.dtype] * ITEM_BYTES[dtype or tensor.dtype]
        header[name] = {
            "dtype": dtype or tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + length],
        }
        end += length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _copy(name: str, stored: Any, tensor: StoredTensor, dtype: str | None, out: Any) -> tuple[float, int]:
    stored.seek(tensor.offset)
    left, written, error, largest = tensor.length, 0, 0.0, 0.0
    while left:
        block = stored.read(min(BLOCK, left))
        if not block:
            raise ModelError(f"{stored.name}: ended within parameter `{name}`; the file changed while it was read")
        left -= len(block)
        if dtype in (None, tensor.dtype):
            written += out.write(block)
            continue
        values = floats(block, tensor.dtype)
        if dtype == "F32":
            written += out.write(values.tobytes())
            continue
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if not np.isfinite(halves).all():
            raise ModelError(
                f"{stored.name}: parameter `{name}` reaches {np.abs(values).max():g}, expected at most 65504 for fp16; "
                "import it with --dtype fp32"
            )
        error = max(error, float(np.abs(halves.astype(np.float32) - values).max()))
        largest = max(largest, float(np.abs(values).max()))
        written += out.write(halves.tobytes())
    return (error / largest if largest else 0.0), written
