"""`python -m engines.export FOLDER`: write graphs and manifest into a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from config.errors import StillwatchError
from engines.checkpoint import read_json
from engines.export import SMOLVLM_PROMPT, export_model, seal
from engines.manifest import MANIFEST

app = typer.Typer(add_completion=False)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Hugging Face folder: config.json, model.safetensors, tokenizer.json")],
    name: Annotated[str | None, typer.Option(help="name of the model")] = None,
    domain: Annotated[str | None, typer.Option(help="what the model knows, in words")] = None,
    prompt: Annotated[str | None, typer.Option(help="template with {image} and then {question}")] = None,
) -> None:
    """Write graphs and manifest into a checkpoint folder. What isn't given is taken from the manifest that is there;
    where there is none, name is the folder's and prompt SmolVLM's."""
    try:
        before = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
        model = export_model(
            folder,
            name=name or before.get("name") or folder.resolve().name,
            domain=domain or before.get("domain") or "photographs and video",
            prompt=prompt or before.get("prompt") or SMOLVLM_PROMPT,
            select_buckets=before.get("select_buckets") or (),
            yes_no=before.get("yes_no"),
            cache=before.get("cache", "float32"),
        )
        if before.get("files"):
            seal(folder)
    except StillwatchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    typer.echo(f"{folder}: {', '.join(sorted({graph.file for graph in model.manifest.graphs.values()}))}, {MANIFEST}")


if __name__ == "__main__":
    app()
