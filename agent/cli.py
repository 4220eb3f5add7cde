"""The command `stillwatch`. Heavy modules are imported inside the commands, so that help and completion stay quick."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import typer

from config.errors import StillwatchError

app = typer.Typer(
    name="stillwatch",
    help="Watches live video with a vision-language model, re-computes only what changed, and reports over MQTT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(
    help="Check, show and describe configuration files.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(config_app, name="config")


def main() -> None:
    """Exit status: 0 · 1 failure · 2 usage · 69 unavailable · 74 corrupt input · 78 configuration or model."""
    try:
        app()
    except StillwatchError as error:
        from config.redact import redact

        typer.echo(redact(str(error)), err=True)
        sys.exit(error.exit_code)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@config_app.command("check")
def config_check(file: Path) -> None:
    """Say whether FILE can be run: every key, every secret. Exit status 78 when it can't."""
    from config.loading import check_secrets, load

    settings = load(file, os.environ)
    check_secrets(settings)
    cameras = ", ".join(settings.cameras)
    typer.echo(f"{file}: good; cameras: {cameras}")


@config_app.command("show")
def config_show(file: Path) -> None:
    """Print what FILE and the environment come to, defaults included, as YAML. Secrets are not shown."""
    import yaml

    from config.loading import load, shown

    typer.echo(yaml.safe_dump(shown(load(file, os.environ)), sort_keys=False, allow_unicode=True), nl=False)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from config.loading import json_schema

    _print_json(json_schema())


if __name__ == "__main__":
    main()
