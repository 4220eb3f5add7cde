"""`python -m engines.export FOLDER`: write graphs and manifest into a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from config.errors import StillwatchError
from engines.export import SMOLVLM_PROMPT, export_model

app = typer.Typer(add_completion=False)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Hugging Face folder: config.json, model.safetensors, tokenizer.json")],
    name: Annotated[str | None, typer.Option(help="name of the model; the folder's name by default")] = None,
    domain: Annotated[str, typer.Option(help="what the model knows, in words")] = "photographs and video",
    prompt: Annotated[str, typer.Option(help="template with {image} and then {question}")] = SMOLVLM_PROMPT,
) -> None:
    """Write graphs and manifest into a checkpoint folder."""
    try:
        model = export_model(folder, name=name or folder.resolve().name, domain=domain, prompt=prompt)
    except StillwatchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    typer.echo(
        f"{folder}: {', '.join(sorted({graph.file for graph in model.manifest.graphs.values()}))}, manifest.json"
    )


if __name__ == "__main__":
    app()
