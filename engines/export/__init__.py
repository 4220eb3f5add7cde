"""Turns a Hugging Face checkpoint of the Idefics3 / SmolVLM family into a model folder.

The graphs are built node by node from the checkpoint's configuration: neither torch nor transformers is needed, and the
same checkpoint gives the same bytes. `python -m engines.export FOLDER` writes them beside the weights.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from config.errors import ModelError
from engines.checkpoint import WEIGHTS, Checkpoint, read_json
from engines.export import text, vision
from engines.export.parameters import needed
from engines.manifest import MANIFEST, GraphFile, Manifest, Model, faults, load_model, read_manifest, sha256

SMOLVLM_PROMPT = "<|im_start|>User:{image}{question}<end_of_utterance>\nAssistant:"
_DTYPES: dict[str, Literal["float16", "bfloat16", "float32", "int8"]] = {
    "I8": "int8",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
}


def export_model(
    folder: Path,
    *,
    name: str,
    domain: str,
    prompt: str = SMOLVLM_PROMPT,
    select_buckets: Sequence[int] = (),
    yes_no: Sequence[float] | None = None,
    cache: vision.CacheType = "float32",
) -> Model:
    """Write the graphs and manifest.json into a folder that holds config.json, model.safetensors and tokenizer.json
    (and maybe the processor's settings with mean and deviation of the pixels, else 0.5). cache: how ONNX Runtime keeps
    keys and values of the vision tower; half precision halves the memory of a camera and costs time. Raises ModelError
    and leaves the folder as it was when the checkpoint can't be exported; the manifest is written last."""
    checkpoint = Checkpoint.open(folder)
    needed(checkpoint)
    graphs = [*vision.graphs(checkpoint, cache), text.embed(checkpoint)]
    graphs += [text.decode(checkpoint), text.decode_rows(checkpoint)]
    files = {graph.name: graph.file for graph in graphs}
    decode = files.pop("decode")
    try:
        manifest = _manifest(
            checkpoint,
            {**files, "prefill": decode, "step": decode},
            name=name,
            domain=domain,
            prompt=prompt,
            select_buckets=tuple(select_buckets),
            yes_no=None if yes_no is None else tuple(yes_no),
            cache=cache,
        )
    except ValidationError as error:
        raise ModelError(f"{folder}: can't be exported: {faults(error)}") from error
    for graph in graphs:
        _replace(folder / graph.file.file, graph.content())
    write_manifest(folder, manifest)
    return load_model(folder)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, whole or not at all; what has its default is left out."""
    text = manifest.model_dump_json(indent=1, exclude_defaults=True)
    _replace(folder / MANIFEST, _lists_on_one_line(text + "\n").encode())


def seal(folder: Path) -> Model:
    """Put the hash of every file beside the weights into the manifest, so that a change of any is found."""
    manifest = read_manifest(folder)
    others = sorted({file.name for file in folder.iterdir()} - {MANIFEST, *manifest.weights})
    write_manifest(folder, manifest.model_copy(update={"files": {file: sha256(folder / file) for file in others}}))
    return load_model(folder)


def _replace(file: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = file.with_name(f"{file.name}.new")
    unfinished.write_bytes(content)
    unfinished.replace(file)


def _manifest(checkpoint: Checkpoint, graphs: dict[str, GraphFile], **given: Any) -> Manifest:
    folder, tower = checkpoint.folder, checkpoint.config.vision_config
    side, heads = tower.image_size // tower.patch_size, tower.num_attention_heads
    mean, std, _ = pixels_of(folder)
    stored = Counter[str]()
    for tensor in checkpoint.tensors.values():
        stored[tensor.dtype] += tensor.length
    most = "I8" if "I8" in stored else stored.most_common(1)[0][0]
    return Manifest(
        family="idefics3",
        image_size=tower.image_size,
        patch_size=tower.patch_size,
        grid=(side, side),
        resize="stretch",
        mean=mean,
        std=std,
        layers=tower.num_hidden_layers,
        heads=heads,
        dim=tower.hidden_size,
        merge=checkpoint.config.scale_factor,
        position="absolute",
        dtype=_DTYPES[most],
        cache_layout=(tower.num_hidden_layers, 2, heads, side * side, tower.hidden_size // heads),
        graphs=graphs,
        weights={WEIGHTS: sha256(folder / WEIGHTS)},
        eos=_end_tokens(checkpoint),
        **given,
    )


def pixels_of(folder: Path) -> tuple[Any, Any, str]:
    """Mean and deviation of the pixels, and the file of the image processor that says so: one of its own, or the
    processor's. Where there is none that is empty, and both are 0.5, as in every published model of the family."""
    own, within = folder / "preprocessor_config.json", folder / "processor_config.json"
    settings: dict[str, Any] = {}
    file = ""
    if own.is_file():
        settings, file = read_json(own), own.name
    elif within.is_file() and (found := read_json(within).get("image_processor")):
        settings, file = dict(found), within.name
    if settings.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), file
    half = (0.5, 0.5, 0.5)
    return tuple(settings.get("image_mean") or half), tuple(settings.get("image_std") or half), file


def _lists_on_one_line(text: str) -> str:
    """JSON strings hold no raw line break, so one within brackets is indentation."""
    return re.sub(r"\[\n[^\[\]]*\n\s*\]", lambda found: re.sub(r"\n\s*", " ", found[0]), text)


def _end_tokens(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Text of the tokens that end an answer: generation_config.json, else config.json. Raises ModelError."""
    file = checkpoint.folder / "generation_config.json"
    ids: Any = read_json(file).get("eos_token_id") if file.is_file() else None
    if ids is None:
        ids = checkpoint.config.eos_token_id
    if ids is None:
        ids = checkpoint.config.text_config.eos_token_id
    names = _token_names(checkpoint.folder / "tokenizer.json")
    wanted = [ids] if isinstance(ids, int) else list(ids or [])
    if not wanted or any(i not in names for i in wanted):
        raise ModelError(
            f"{checkpoint.folder}: found end-of-sequence ids {ids}, expected ids that tokenizer.json knows; set "
            "`eos_token_id` in generation_config.json"
        )
    return tuple(names[i] for i in wanted)


def _token_names(file: Path) -> dict[int, str]:
    content = read_json(file)
    names = {i: token for token, i in content["model"]["vocab"].items()}
    names.update({token["id"]: token["content"] for token in content.get("added_tokens", [])})
    return names
