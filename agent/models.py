"""`stillwatch model …`: bring checkpoints in, see what is there, check it, take it away."""

from __future__ import annotations

import json
import signal
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from config.errors import EngineFault, ModelError, StillwatchError

app = typer.Typer(
    help="Import, list, check and remove vision-language models.", no_args_is_help=True, rich_markup_mode=None
)

AsJson = Annotated[bool, typer.Option("--json", help="The same as JSON.")]


class Precision(str, Enum):
    """How weights are stored."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class CachePrecision(str, Enum):
    """How a camera's keys and values are kept."""

    FP32 = "fp32"
    FP16 = "fp16"


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(metavar="DIR|HUB_ID", help="A checkpoint folder, or OWNER/NAME on a hub.")],
    name: Annotated[
        str | None, typer.Option(help="Name in the store; that of the folder or hub model if absent.")
    ] = None,
    dtype: Annotated[Precision | None, typer.Option(help="Store weights so; as the checkpoint does if absent.")] = None,
    cache: Annotated[
        CachePrecision, typer.Option(help="Keep a camera's keys and values so: fp16 takes half the memory, more time.")
    ] = CachePrecision.FP32,
    select_buckets: Annotated[
        str | None, typer.Option(metavar="N,N…", help="Row counts of the selective encoder, for TensorRT only.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Compare nothing; the report says so.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a Hugging Face checkpoint (SmolVLM, SmolVLM2, Idefics3) into a model that --model knows by its name."""
    try:
        from engines.importing import import_model
    except ImportError as error:
        raise ModelError(
            f"importing a model needs the packages onnx and jinja2 ({error}): pip install 'stillwatch[import]'"
        ) from error

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what is half-done is taken away
    with _Steps() as steps:
        imported = import_model(
            source,
            name=name,
            dtype=None if dtype is None else dtype.value,
            cache="float16" if cache is CachePrecision.FP16 else "float32",
            select_buckets=_counts(select_buckets),
            revision=revision,
            verify=not no_verify,
            progress=steps,
        )
    report = imported.report
    if as_json:
        _print_json(report)
        return
    manifest = imported.model.manifest
    typer.echo(f"{manifest.name}: {imported.model.folder}")
    _print_checks(report)
    typer.echo(f"  use it with --model {manifest.name}, or `model: {manifest.name}` in the configuration")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the models that are here."""
    from engines import store
    from engines.manifest import find_model

    rows = [_row(name, find_model(name)) for name in ["reference", *store.names()]]
    unfinished = store.unfinished_downloads()
    if as_json:
        _print_json(rows)
        return
    columns = ("name", "family", "tokens", "dtype", "size", "domain")
    table = [columns, *(tuple(str(row[column]) for column in columns) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for name, size in unfinished.items():
        typer.echo(
            f"{name}: {_megabytes(size)} of an unfinished download; import it again to go on, or remove it", err=True
        )


@app.command()
def show(name: str, as_json: AsJson = False) -> None:
    """Say what a model is: its manifest and how it was imported."""
    from engines import store
    from engines.manifest import find_model, read_manifest
    from engines.verification import read_report

    folder = find_model(name)
    manifest, report = read_manifest(folder), read_report(folder)
    if as_json:
        _print_json({"folder": str(folder), **manifest.model_dump(mode="json"), "verification": report})
        return
    facts = {
        "folder": folder,
        "family": manifest.family,
        "knows": manifest.domain,
        "picture": f"{manifest.image_size}×{manifest.image_size} px, {manifest.resize}",
        "tokens": f"{manifest.tokens} of {manifest.patch_size} px; {manifest.visual_tokens} reach the language model",
        "tower": f"{manifest.layers} layers, {manifest.heads} heads, {manifest.dim} wide",
        "weights": f"{manifest.dtype}, {_megabytes(store.size_of(folder))} in all",
        "prompt": repr(manifest.prompt),
        "answer ends": " ".join(manifest.eos),
        "cache": f"{manifest.cache}, {_megabytes(manifest.cache_bytes)} a camera",
        "TensorRT rows": ", ".join(map(str, manifest.select_buckets)) or "the usual ones",
    }
    for key, value in facts.items():
        typer.echo(f"{key + ':':<15}{value}")
    if report:
        typer.echo(f"{'imported from:':<15}{_origin(report)}")
        _print_checks(report)


@app.command()
def verify(name: str, as_json: AsJson = False) -> None:
    """Check a model: hashes, that its graphs load and run, and that selective encoding gives what a full one gives.
    Status 78 when it can't be used."""
    from dataclasses import asdict

    from engines.manifest import find_model, load_model
    from engines.verification import own_checks

    folder = find_model(name)
    try:
        model = load_model(folder)
        checks = own_checks(model)
    except StillwatchError as error:
        raise ModelError(f"{error}{_again(folder)}") from error
    if as_json:
        _print_json({"model": name, "checks": [asdict(check) for check in checks]})
    else:
        hashed = len(model.manifest.weights) + len(model.manifest.files)
        typer.echo(f"{name}: {hashed} {'file has' if hashed == 1 else 'files have'} the hash of the manifest")
        typer.echo("\n".join(f"  {check}" for check in checks))
    if failed := [check for check in checks if not check.passed]:
        raise ModelError(f"{folder}: {'; '.join(map(str, failed))}{_again(folder)}")


@app.command()
def build(
    name: str,
    precision: Annotated[
        str | None, typer.Option(metavar="fp16|bf16|fp32", help="Only this one; what suits the device if absent.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Build even what is there, and what was refused.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build a model's TensorRT engines for this machine, compare them with ONNX Runtime, and keep them. Takes minutes.
    Status 1 when encoder or decoder has none at the end."""
    from dataclasses import asdict

    from agent.notify import extend_start
    from agent.runtimes import open_tensorrt
    from engines.manifest import find_model, load_model
    from engines.tensorrt.building import Watch
    from engines.tensorrt.purpose import DECODER
    from engines.verification import Check

    model = load_model(find_model(name))
    fault: EngineFault | None = None
    with _Steps() as steps:
        watch = Watch(steps, lambda: extend_start(60))
        encoder = open_tensorrt(model, precision=precision, again=again, watch=watch)
        made = [encoder]
        try:
            made.append(
                open_tensorrt(model, purpose=DECODER, gpu=encoder.gpu, precision=precision, again=again, watch=watch)
            )
        except EngineFault as error:
            fault = error
    if as_json:
        parts: dict[str, Any] = {
            runtime.purpose.name: {
                "precision": runtime.precision.value,
                "rows": runtime.rows,
                "checks": runtime.checks,
                "notes": runtime.notes,
                "memory_bytes": {part: asdict(usage) for part, usage in runtime.memory.parts().items()},
            }
            for runtime in made
        }
        if fault is not None:
            parts[DECODER.name] = {"fault": str(fault)}
        _print_json({"tensorrt": encoder.version, "folder": str(encoder.folder), **parts})
    else:
        typer.echo(f"{name}: TensorRT {encoder.version} on {encoder.gpu.name}, {encoder.folder}")
        for runtime in made:
            typer.echo(f"  {runtime.purpose.name}: {runtime.precision.value}, rows {', '.join(map(str, runtime.rows))}")
            for check in runtime.checks:
                typer.echo(f"    {Check(**check)}")
            for note in runtime.notes:
                typer.echo(f"    {note}")
    if fault is not None:
        raise fault


@app.command()
def remove(name: str) -> None:
    """Take an imported model away, with its engines, or what an unfinished download left."""
    from engines import store
    from engines.tensorrt import enginefile

    typer.echo(f"removed {store.remove(name)}")
    enginefile.discard(name)


class _Steps:
    """Progress on stderr: on a terminal one line that is written over, elsewhere a line a step."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._step = ""
        self._shown = ""

    def __call__(self, step: str, done: float | None) -> None:
        text = step if done is None else f"{step}: {done:.0%}"
        if self._terminal and text != self._shown:
            typer.echo(f"\r{text:<{len(self._shown)}}", nl=False, err=True)
        elif not self._terminal and step != self._step:
            typer.echo(step, err=True)
        self._step, self._shown = step, text

    def __enter__(self) -> _Steps:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and self._shown:
            typer.echo("\r" + " " * len(self._shown) + "\r", nl=False, err=True)


def _counts(text: str | None) -> list[int]:
    try:
        return [] if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"expected numbers with commas between, found {text!r}", param_hint="--select-buckets"
        ) from None


def _row(name: str, folder: Path) -> dict[str, Any]:
    """What the list says of a model; of one whose manifest can't be read, that."""
    from engines import store
    from engines.manifest import read_manifest

    size = store.size_of(folder)
    row: dict[str, Any] = {"name": name, "folder": str(folder), "bytes": size, "size": _megabytes(size)}
    try:
        manifest = read_manifest(folder)
    except ModelError as error:
        return {**row, "family": "?", "tokens": "?", "dtype": "?", "domain": f"can't be used: {error}"}
    return {
        **row,
        "family": manifest.family,
        "tokens": manifest.tokens,
        "dtype": manifest.dtype,
        "domain": manifest.domain,
    }


def _origin(report: dict[str, Any]) -> str:
    source = report.get("source", {})
    return source.get("folder") or f"{source.get('hub')}/{source.get('model')} at {source.get('commit')}"


def _again(folder: Path) -> str:
    """How to get a damaged model back."""
    from engines.verification import read_report

    report = read_report(folder)
    if report is None:
        return ""
    source = report.get("source", {})
    which = source.get("folder") or f"{source.get('model')} --revision {source.get('commit')}"
    return f"; or `stillwatch model remove {folder.name}` and `stillwatch model import {which} --name {folder.name}`"


def _print_checks(report: dict[str, Any]) -> None:
    from engines.verification import Check

    for check in report["checks"]:
        typer.echo(f"  {Check(**check)}")
    if detail := report.get("level_of_detail"):
        typer.echo(
            f"  level of detail, cosine to a full encode: coarse tokens {detail['coarse_mean']:.3f}, fine ones beside "
            f"them {detail['fine_mean']:.3f}"
        )
    compared = report["transformers"]
    if not compared["compared"]:
        typer.echo(f"  not compared with transformers: {compared['reason']}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
