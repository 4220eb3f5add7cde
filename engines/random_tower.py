"""Vision towers of true shapes with random weights: for measuring what encoding costs, where no weights are needed.

They are model folders without a language model, made in seconds and thrown away.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import ModelError
from engines.manifest import MANIFEST, Manifest, Model, find_model, load_model, sha256

TOWERS: Mapping[str, Mapping[str, int]] = {
    "vit-s-576": {"image_size": 384, "patch_size": 16, "hidden_size": 384, "num_attention_heads": 6},
    "vit-s-1024": {"image_size": 512, "patch_size": 16, "hidden_size": 384, "num_attention_heads": 6},
    "siglip-b-1024": {"image_size": 512, "patch_size": 16, "hidden_size": 768, "num_attention_heads": 12},
}
"""What differs, as `config.json` names it: 12 layers, and an MLP of four times the width, they have all."""
INT8 = "-int8"
"""End of the name of a tower with 8-bit weights."""


def is_tower(name: str | Path) -> bool:
    return str(name).removesuffix(INT8) in TOWERS


@contextmanager
def model_or_tower(name: str | Path) -> Iterator[Model]:
    """The model of this name or folder, or a random tower of `TOWERS` that lasts no longer than the block. Raises
    ModelError."""
    if not is_tower(name):
        yield load_model(find_model(name))
        return
    with tempfile.TemporaryDirectory(prefix="stillwatch-tower-") as folder:
        yield random_tower(str(name), Path(folder))


def random_tower(name: str, folder: Path) -> Model:
    """Make a tower of `TOWERS`, by its name or name-int8, in an empty folder. Raises ModelError where the package onnx
    is not installed."""
    try:
        from engines.checkpoint import WEIGHTS, Checkpoint, read_config
        from engines.export import vision
        from engines.export.parameters import parameters
        from engines.export.quantize import quantize_weights
    except ImportError as error:
        raise ModelError(f"the tower {name} is made here, and for that: {error}") from error
    shape = TOWERS[name.removesuffix(INT8)]
    tower = {**shape, "num_hidden_layers": 12, "intermediate_size": 4 * shape["hidden_size"]}
    config = {"model_type": "idefics3", "vision_config": tower, "text_config": {"model_type": "llama"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    wanted = parameters(read_config(folder / "config.json"), head=False)
    _write_random(folder / WEIGHTS, {key: size for key, size in wanted.items() if key.startswith(f"{vision.TOWER}.")})
    if name.endswith(INT8):
        quantize_weights(folder)
    checkpoint = Checkpoint.open(folder)
    graphs = vision.for_onnx_runtime(checkpoint)
    for graph in graphs:
        (folder / graph.file.file).write_bytes(graph.content())
    side, heads = shape["image_size"] // shape["patch_size"], shape["num_attention_heads"]
    manifest = Manifest(
        name=name,
        family="idefics3",
        domain="nothing: its weights are random",
        image_size=shape["image_size"],
        patch_size=shape["patch_size"],
        grid=(side, side),
        resize="stretch",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        layers=12,
        heads=heads,
        dim=shape["hidden_size"],
        merge=1,
        position="absolute",
        dtype="int8" if name.endswith(INT8) else "float32",
        cache_layout=(12, 2, heads, side * side, shape["hidden_size"] // heads),
        graphs={graph.name: graph.file for graph in graphs},
        weights={WEIGHTS: sha256(folder / WEIGHTS)},
        prompt="{image}{question}",
        eos=("none",),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(exclude_defaults=True), encoding="utf-8")
    return Model(folder, manifest)


def _write_random(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A safetensors file of float32: matrices that keep the size of what goes through them, norms that do nothing."""
    rng = np.random.default_rng(0)
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            if len(shape) > 1:
                values = rng.standard_normal(shape, np.float32)
                values *= 1 / math.sqrt(math.prod(shape[1:]))
            else:
                values = np.full(shape, "norm" in name and name.endswith("weight"), np.float32)
            stream.write(values.tobytes())
