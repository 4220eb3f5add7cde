"""`stillwatch self-check` and `stillwatch state export | reset | delete`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from config.errors import StillwatchError

if TYPE_CHECKING:
    from config.settings import Settings

AgentFile = Annotated[Path | None, typer.Option("--config", help="The agent's file, for its events.dir.")]
Folder = Annotated[Path | None, typer.Option("--state", help="The state folder, instead of that of --config.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, say what would be done.")]


def register(app: typer.Typer, settings: Callable[..., Settings]) -> None:
    """Add the commands to `stillwatch`. settings: (file, options) → the settings they come to."""
    state = typer.Typer(help="What an agent keeps: take it away, or forget it.", no_args_is_help=True)

    def folder_of(config: Path | None, folder: Path | None) -> Path:
        if (config is None) == (folder is None):
            raise typer.BadParameter("give either --config or --state")
        return folder or settings(config, {}).events.dir

    @app.command("self-check")
    def self_check(
        config: Annotated[Path | None, typer.Option(help="The configuration that the agent runs with.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="The checks as JSON.")] = False,
    ) -> None:
        """Say whether this version can run this configuration on this state; before and after an upgrade.

        Status 78 for configuration, model or a state folder of a newer version, 1 for anything else that is bad.
        """
        from agent.service.selfcheck import self_check as look

        options = {} if config else {("cameras", "cam1", "source"): ("self-check", "scene:street")}
        checks = look(lambda: settings(config, options))
        if as_json:
            found = [{"name": c.name, "good": not c.exit_code, "text": c.text} for c in checks]
            typer.echo(json.dumps({"passed": not any(c.exit_code for c in checks), "checks": found}, indent=2))
        else:
            typer.echo("\n".join(map(str, checks)))
        status = max(check.exit_code for check in checks)
        if status:
            raise typer.Exit(status)

    @state.command("export")
    def export(
        to: Annotated[Path, typer.Argument(metavar="FILE.tar.gz")],
        config: AgentFile = None,
        folder: Folder = None,
        media: Annotated[bool, typer.Option("--media", help="Pictures and clips, too.")] = False,
    ) -> None:
        """Write the state folder into an archive; the agent may run meanwhile."""
        from agent.service import keeping

        typer.echo(f"{to}: {keeping.export(folder_of(config, folder), to, media=media)} bytes")

    @state.command("reset")
    def reset(
        config: AgentFile = None,
        folder: Folder = None,
        events: Annotated[bool, typer.Option("--events", help="Events, pictures, clips.")] = False,
        learned: Annotated[bool, typer.Option("--learned", help="What is normal for each camera.")] = False,
        configuration: Annotated[bool, typer.Option("--configuration", help="What came from afar.")] = False,
        yes: Yes = False,
    ) -> None:
        """Forget parts of what the agent keeps; it must not run."""
        from agent.service import keeping

        wanted = {"events": events, "learned": learned, "configuration": configuration}
        parts = [part for part, chosen in wanted.items() if chosen]
        if not parts:
            raise typer.BadParameter("say what: --events, --learned or --configuration")
        where = folder_of(config, folder)
        if not yes:
            raise StillwatchError(f"{where}: {', '.join(parts)} would be forgotten; nothing was done: add --yes")
        typer.echo(f"{where}: removed {', '.join(keeping.reset(where, parts)) or 'nothing: there was none'}")

    @state.command("delete")
    def delete(config: AgentFile = None, folder: Folder = None, yes: Yes = False) -> None:
        """Remove all that the agent keeps, its identity too; it must not run."""
        from agent.service import keeping

        where = folder_of(config, folder)
        if not yes:
            raise StillwatchError(f"{where}: {keeping.summary(where)} would be removed; nothing was done: add --yes")
        removed, left = keeping.delete(where)
        typer.echo(f"{where}: removed {', '.join(removed)}")
        if left:
            typer.echo(f"not the agent's, and left: {', '.join(left)}")

    app.add_typer(state, name="state")
