"""8-bit weights for the linear layers of the vision tower.

Each output has a scale of its own; each row that goes in is rounded by a scale of its own when it comes
(`Graph.linear`), so that a token's result doesn't depend on which others it is encoded with. Weights keep to 7 bits:
processors without VNNI add two products in 16 bits, and 2 · 255 · 64 fits where 2 · 255 · 127 doesn't.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from engines.checkpoint import INT8, SCALE, WEIGHTS, Checkpoint
from engines.export import export_model, seal
from engines.export.vision import linear_layers
from engines.manifest import read_manifest
from engines.safetensors import StoredTensor, floats

LARGEST = 64


def quantize(folder: Path) -> None:
    """Replace the weights of a model folder's vision tower by 8-bit ones, and write graphs and manifest anew. Raises
    ModelError when they are that already. The weights are replaced before the graphs: interrupted in between, the
    folder is refused by its hashes."""
    manifest = read_manifest(folder)
    quantize_weights(folder)
    export_model(
        folder,
        name=manifest.name,
        domain=manifest.domain,
        prompt=manifest.prompt,
        select_buckets=manifest.select_buckets,
        yes_no=manifest.yes_no,
        cache=manifest.cache,
    )
    if manifest.files:
        seal(folder)


def quantize_weights(folder: Path) -> None:
    """`quantize` without graphs and manifest."""
    checkpoint = Checkpoint.open(folder)
    chosen = {f"{layer}.weight" for layer in linear_layers(checkpoint.config.vision_config)}
    if any(checkpoint.is_int8(name) for name in chosen):
        raise ModelError(f"{folder / WEIGHTS}: holds 8-bit weights already")
    unfinished = folder / f"{WEIGHTS}.new"
    _write(folder / WEIGHTS, unfinished, {name: (t, name in chosen) for name, t in checkpoint.tensors.items()})
    unfinished.replace(folder / WEIGHTS)


def rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 (in, out), as integer products want it, and the scale of each output (out,), of a weight (out, in)."""
    scale = np.maximum(np.abs(weight).max(axis=1), np.finfo(np.float32).tiny) / LARGEST
    return np.ascontiguousarray(np.rint(weight / scale[:, None]).astype(np.int8).T), scale.astype(np.float32)


def _write(source: Path, target: Path, tensors: dict[str, tuple[StoredTensor, bool]]) -> None:
    """Copy a safetensors file; what is chosen becomes two tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0

    def declare(name: str, dtype: str, shape: tuple[int, ...], length: int) -> None:
        nonlocal end
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (end, end + length)}
        end += length

    for name, (tensor, chosen) in tensors.items():
        if chosen:
            out, into = tensor.shape
            declare(name + SCALE, "F32", (out,), 4 * out)
            declare(name + INT8, "I8", (into, out), into * out)
        else:
            declare(name, tensor.dtype, tensor.shape, tensor.length)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with source.open("rb") as stored, target.open("wb") as out_file:
        out_file.write(len(text).to_bytes(8, "little") + text)
        for tensor, chosen in tensors.values():
            stored.seek(tensor.offset)
            block = stored.read(tensor.length)
            if chosen:
                codes, scale = rounded(floats(block, tensor.dtype).reshape(tensor.shape))
                out_file.write(scale.tobytes() + codes.tobytes())
            else:
                out_file.write(block)
