"""The vision tower in C, for the tokens that changed. It computes what the graph `select_inplace` does, into the same
cache, to rounding.

The weights are read from the model folder and laid out anew, as floats, in place of those that ONNX Runtime would hold
for that graph.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_float, c_int, c_int32, c_void_p
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config.errors import EngineFault, ModelError
from engines.checkpoint import WEIGHTS, Checkpoint
from engines.manifest import Model
from engines.safetensors import floats
from vpi_ops import native

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SOURCE = native.Source(Path(__file__).parent / "tower.c", ("-ffp-contract=fast", "-fno-trapping-math"))
_TOWER = "model.vision_model"
_ALIGNED = 64
_ROUNDING = 1e-3
"""Of the largest feature: sums in another order differ by a hundredth of it."""


class _Shape(ctypes.Structure):
    """`Shape` of tower.c."""

    _fields_ = [
        *((name, c_int32) for name in ("layers", "heads", "dim", "inner", "tokens", "pixels")),
        ("epsilon", c_float),
    ]


class _Call(ctypes.Structure):
    """`Call` of tower.c."""

    _fields_ = [
        *((name, c_void_p) for name in ("patches", "position", "index", "source", "cache", "features")),
        ("n", c_int32),
        ("rows", c_int32),
    ]


class NativeTower:
    """The tower of one model. Safe to use from several threads, one after the other: each call has all `threads`, which
    are this one's caller and helpers that sleep between calls."""

    def __init__(self, library: ctypes.CDLL, model: Model, threads: int) -> None:
        """Raises ModelError when there is something in the model that it has no code for."""
        panel = library.tower_panel()
        checkpoint = Checkpoint.open(model.folder)
        shape = _shape(checkpoint, model, panel)
        self._weights = _aligned(list(_laid_out(checkpoint, panel, shape.inner)))
        library.tower_new.restype = c_void_p
        library.tower_new.argtypes = (c_void_p, c_void_p, c_int)
        self._encode = library["tower_encode"]
        self._encode.argtypes = (c_void_p, c_void_p)
        self._tower = library.tower_new(ctypes.addressof(shape), self._weights.ctypes.data, threads)
        if not self._tower:
            raise MemoryError("no memory for a tower")
        free = library["tower_free"]
        free.argtypes, free.restype = (c_void_p,), None
        weakref.finalize(self, free, self._tower).atexit = False  # a thread may be encoding then

    def encode(
        self, patches: Floats, position: Ints, index: Ints, source: Ints, cache: Floats, features: Floats
    ) -> None:
        """Arguments as those of the graph: patches (n, 3·p·p), position (n, 4), index and source (r,); cache (L, 2, H,
        T, dh) gets the new keys and values, features (n, D) what comes out. All contiguous; places are not checked.
        Raises EngineFault."""
        call = _Call(
            *(each.ctypes.data for each in (patches, position, index, source, cache, features)),
            len(features),
            len(index),
        )
        if fault := self._encode(self._tower, ctypes.byref(call)):
            raise EngineFault(f"the tower in C failed: {os.strerror(fault)}")


def open_tower(model: Model, threads: int, truth: Callable[[Floats], Floats]) -> NativeTower | str:
    """The tower, or a sentence why there is none. truth: features (T, D) of all patches (T, 3·p·p) by another runtime,
    against which it is proved first; compilers have faults."""
    library = native.opened(SOURCE)
    if isinstance(library, str):
        return library
    try:
        tower = NativeTower(library, model, threads)
    except (ModelError, OSError, MemoryError) as error:
        return str(error)
    manifest = model.manifest
    patches = np.random.default_rng(0).uniform(-1, 1, (manifest.tokens, 3 * manifest.patch_size**2))
    every = np.arange(manifest.tokens)
    features = np.empty((manifest.tokens, manifest.dim), np.float32)
    cache = np.zeros((manifest.layers, 2, *manifest.cache_layout[2:]), np.float32)
    given = patches.astype(np.float32)
    tower.encode(given, np.repeat(every[:, None], 4, axis=1), every, every, cache, features)
    expected = truth(given)
    apart = float(np.abs(features - expected).max() / np.abs(expected).max())
    if not apart <= _ROUNDING:  # not a number is apart, too
        return f"what the compiler made of it gives other features than ONNX Runtime ({apart:.2g} apart)"
    return tower


def _shape(checkpoint: Checkpoint, model: Model, panel: int) -> _Shape:
    """Raises ModelError."""
    config, manifest = checkpoint.config.vision_config, model.manifest
    size = config.hidden_size // config.num_attention_heads
    for true, fault in (
        (manifest.cache == "float32", f"keys and values are kept as {manifest.cache}"),
        (config.hidden_act == "gelu_pytorch_tanh", f"the activation is {config.hidden_act}"),
        (size % panel == 0, f"heads of {size} numbers are no multiple of {panel}"),
        (not any(map(checkpoint.is_int8, _linears(0))), "its weights have 8 bits"),
    ):
        if not true:
            raise ModelError(f"there is none for {manifest.name}: {fault}")
    return _Shape(
        config.num_hidden_layers,
        config.num_attention_heads,
        config.hidden_size,
        config.intermediate_size + -config.intermediate_size % panel,  # what is added is and stays zero
        manifest.tokens,
        3 * config.patch_size**2,
        config.layer_norm_eps,
    )


def _linears(layer: int) -> list[str]:
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
    return [f"{_TOWER}.encoder.layers.{layer}.{part}.weight" for part in parts]


def _laid_out(checkpoint: Checkpoint, panel: int, inner: int) -> Iterator[Floats]:
    """All weights in the order in which `tower_new` takes them, each a multiple of `panel` floats long."""
    with (checkpoint.folder / WEIGHTS).open("rb") as file:

        def stored(name: str) -> Floats:
            found = checkpoint.tensor(name)
            file.seek(found.offset)
            return floats(file.read(found.length), found.dtype).reshape(found.shape)

        def padded(*values: Floats) -> Floats:
            flat = np.concatenate([value.ravel() for value in values])
            return np.pad(flat, (0, -len(flat) % panel))

        def norm(name: str) -> Floats:
            return padded(stored(f"{name}.weight"), stored(f"{name}.bias"))

        def linear(*names: str, inputs: int | None = None) -> Iterator[Floats]:
            """Panels (outputs / panel, inputs, panel), then the biases."""
            weight = np.concatenate([(rows := stored(f"{name}.weight")).reshape(len(rows), -1) for name in names])
            more = (inputs or weight.shape[1]) - weight.shape[1]
            weight = np.pad(weight, ((0, -len(weight) % panel), (0, more)))
            yield weight.reshape(-1, panel, weight.shape[1]).transpose(0, 2, 1).ravel()
            yield padded(*(_bias(checkpoint, name, stored) for name in names))

        yield from linear(f"{_TOWER}.embeddings.patch_embedding")
        yield padded(stored(f"{_TOWER}.embeddings.position_embedding.weight"))
        for i in range(checkpoint.config.vision_config.num_hidden_layers):
            q, k, v, out, fc1, fc2 = (name.removesuffix(".weight") for name in _linears(i))
            layer = f"{_TOWER}.encoder.layers.{i}"
            yield norm(f"{layer}.layer_norm1")
            yield from linear(q, k, v)
            yield from linear(out)
            yield norm(f"{layer}.layer_norm2")
            yield from linear(fc1)
            yield from linear(fc2, inputs=inner)
        yield norm(f"{_TOWER}.post_layernorm")


def _bias(checkpoint: Checkpoint, name: str, stored: Callable[[str], Floats]) -> Floats:
    if f"{name}.bias" in checkpoint:
        return stored(f"{name}.bias")
    return np.zeros(checkpoint.tensor(f"{name}.weight").shape[0], np.float32)


def _aligned(parts: Sequence[Floats]) -> Floats:
    """One after the other, beginning at a line of the processor's cache."""
    room = np.empty(sum(map(len, parts)) + _ALIGNED // 4, np.float32)
    first = -room.ctypes.data % _ALIGNED // 4
    return np.concatenate(parts, out=room[first : first + sum(map(len, parts))])
