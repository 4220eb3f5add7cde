"""From a Hugging Face checkpoint to a model in the store: fetched, checked, converted, exported, verified, published.

Everything happens in a folder that nobody sees; a model that fails at any step leaves nothing. Neither torch nor
transformers is needed; where they are installed, the outcome is compared with theirs.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from config.errors import ModelError
from engines import store
from engines.checkpoint import WEIGHTS, VisionConfig, read_config, read_json
from engines.export import export_model, pixels_of, seal
from engines.export.quantize import quantize
from engines.export.vision import CacheType
from engines.fidelity import lod_loss
from engines.importing import hub, parity
from engines.importing.template import prompt_of
from engines.importing.vocabulary import read_tokenizer
from engines.importing.weights import find_weights, write_weights
from engines.manifest import MANIFEST, Model, load_model
from engines.text.prompt import IMAGE
from engines.verification import REPORT, Check, features_of, fidelity, own_checks, pictures

DOMAIN = "photographs and video"
SETTINGS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
)
_GRAPHS = 32_000_000  # bytes of room for graphs and settings beside the weights

Dtype = Literal["fp32", "fp16", "int8"]
Progress = Callable[[str, "float | None"], object]


@dataclass(frozen=True, slots=True)
class Imported:
    """A model that has been published, and what its verification.json says."""

    model: Model
    report: dict[str, Any]


def import_model(
    source: str,
    *,
    name: str | None = None,
    dtype: Dtype | None = None,
    cache: CacheType = "float32",
    select_buckets: Sequence[int] = (),
    revision: str | None = None,
    verify: bool = True,
    progress: Progress = lambda step, done: None,
) -> Imported:
    """Import a checkpoint folder, or one of a hub (`OWNER/NAME`). dtype: None keeps weights as they are stored. cache:
    how a camera's keys and values are kept (`export_model`). progress: called with each step's name, and with the share
    that is done of a long one.

    Raises ModelError when the checkpoint can't be used, SourceError when the hub can't be reached, StorageError when
    the disk is full. The store then holds what it held before; but what was fetched before a connection broke is kept.
    """
    folder = Path(source).expanduser()
    local = folder.is_dir()
    if not local and not hub.is_id(source):
        raise ModelError(f"{source}: found no such folder; expected a checkpoint folder, or a hub's OWNER/NAME")
    if local and revision is not None:
        raise ModelError(f"{source}: is a folder; --revision is for a hub's OWNER/NAME")
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", (folder.resolve() if local else folder).name)
    with store.building(name) as target:
        origin = {"folder": str(folder.resolve())}
        if not local:
            folder = store.download_folder(name)
            origin = _fetched(source, revision or "main", folder, progress)
        try:
            report = _build(folder, target, name, dtype, cache, tuple(select_buckets), verify, progress)
        except ModelError as error:
            if not local:  # fetching it again would not help
                shutil.rmtree(folder, ignore_errors=True)
            raise ModelError(str(error).replace(str(target), source)) from error  # what was copied is named as given
        except OSError as error:
            if error.filename is None or not Path(error.filename).is_relative_to(folder):
                raise  # of the store, which says what it means
            raise ModelError(
                f"{error.filename}: can't be read ({error.strerror}); expected a file of the checkpoint"
            ) from error
        report = {"model": name, "source": origin, **report}
        (target / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        seal(target)
    if not local:
        shutil.rmtree(folder, ignore_errors=True)
    return Imported(load_model(store.places()[0] / name), report)


def _fetched(source: str, revision: str, folder: Path, progress: Progress) -> dict[str, str]:
    """Fetch a checkpoint from the hub. A broken connection leaves what was fetched, every other fault nothing."""
    try:
        return hub.fetch(source, revision, folder, SETTINGS, _check_settings, progress)
    except (ModelError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_settings(source: Path) -> tuple[str, str]:
    """The prompt and the file it comes from. Raises ModelError when configuration, tokenizer or chat template can't be
    used."""
    tokenizer = read_tokenizer(source / "tokenizer.json", read_config(source / "config.json"))
    return prompt_of(source, tokenizer, IMAGE)


def _check_buckets(buckets: tuple[int, ...], tower: VisionConfig) -> None:
    tokens = (tower.image_size // tower.patch_size) ** 2
    if list(buckets) != sorted(set(buckets)) or not all(1 <= rows <= tokens for rows in buckets):
        raise ModelError(
            f"--select-buckets {','.join(map(str, buckets))}: expected ascending numbers of rows from 1 to {tokens}, "
            "the model's tokens"
        )


def _build(
    source: Path,
    target: Path,
    name: str,
    dtype: Dtype | None,
    cache: CacheType,
    buckets: tuple[int, ...],
    verify: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Fill `target`; returns the report."""
    progress("checking the checkpoint", None)
    prompt, prompt_file = _check_settings(source)
    _check_buckets(buckets, read_config(source / "config.json").vision_config)
    weights = find_weights(source)
    stored_as = {"fp32": "F32", "fp16": "F16"}.get(dtype or "")
    store.check_room(target, weights.bytes_as(stored_as) + _GRAPHS)

    for file in SETTINGS:
        if (source / file).is_file():
            shutil.copyfile(source / file, target / file)
    progress("writing weights", None)
    rounding = write_weights(
        weights, target / WEIGHTS, dtype=stored_as, progress=lambda done: progress("writing weights", done)
    )
    progress("writing graphs", None)
    model = export_model(target, name=name, domain=_domain(source), prompt=prompt, select_buckets=buckets, cache=cache)
    report: dict[str, Any] = {
        "dtype": dtype or "as stored",
        "prompt": prompt_file or "none in the checkpoint: SmolVLM's was taken",
        "pixels": pixels_of(target)[2] or "none in the checkpoint: mean and deviation 0.5 were taken",
        "rounding": rounding,
    }
    checks: list[Check] = []
    if verify:
        progress("comparing full and selective encoding", None)
        checks = own_checks(model)
        report["transformers"] = _compare(
            source, model, checks, weights.bytes_as("F32"), exact=rounding == 0, progress=progress
        )
    else:
        report["transformers"] = {"compared": False, "reason": "--no-verify"}
    if dtype == "int8":
        progress("rounding the vision tower to 8 bits", None)
        before = features_of(model)
        quantize(target)
        model = load_model(target)
        checks.append(fidelity(before, features_of(model)))
        checks += own_checks(model, suffix=" in 8 bits") if verify else []
    if verify:
        progress("measuring level of detail", None)
        report["level_of_detail"] = lod_loss(model, pictures(model.manifest.image_size))
    report["checks"] = [dataclasses.asdict(check) for check in checks]
    if failed := [check for check in checks if not check.passed]:
        raise ModelError(
            f"{source}: the import doesn't reproduce the checkpoint: {'; '.join(map(str, failed))}; nothing was kept"
        )
    return report


def _compare(
    source: Path, model: Model, checks: list[Check], size: int, *, exact: bool, progress: Progress
) -> dict[str, Any]:
    """Adds the comparison with transformers to the checks, or says why there is none. size: of all parameters in single
    precision, in bytes."""
    reason = parity.absent() or parity.lacking_memory(size)
    if reason:
        return {"compared": False, "reason": reason}
    more, version = parity.against_transformers(source, model, exact=exact, say=lambda step: progress(step, None))
    checks += more
    return {"compared": True, "version": version}


def _domain(source: Path) -> str:
    """What the model knows, in words: a model folder says so, a checkpoint doesn't."""
    said = read_json(source / MANIFEST).get("domain") if (source / MANIFEST).is_file() else None
    return said if isinstance(said, str) else DOMAIN
