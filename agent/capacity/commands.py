"""`stillwatch capacity`: how many cameras this machine carries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from config.errors import ConfigError

if TYPE_CHECKING:
    from config.settings import Settings


def register(app: typer.Typer, settings: Callable[..., Settings]) -> None:
    """Add the command to `stillwatch`. settings: (file, options) → the settings they come to."""

    @app.command()
    def capacity(
        config: Annotated[
            Path | None,
            typer.Option(help="An agent's file: its model is measured, and the figures are kept in its state folder."),
        ] = None,
        fps: Annotated[float, typer.Option(min=0.5, max=60.0, help="Frames a second of each camera.")] = 5.0,
        seconds: Annotated[float, typer.Option(min=2.0, help="Of each measurement.")] = 20.0,
        cameras: Annotated[
            int | None, typer.Option(min=1, max=64, help="Run so many rendered cameras, too, and count their frames.")
        ] = None,
        json_to: Annotated[Path | None, typer.Option("--json", help="Write the numbers here.")] = None,
    ) -> None:
        """Measure what a frame costs here, by kind of content, and say how many cameras that makes; with --cameras, try
        it."""
        from agent.capacity import costs
        from agent.capacity.running import Running

        said = None if config is None else settings(config, {})
        model = "reference" if said is None else said.model
        found = costs.measure(
            fps=fps, seconds=seconds, model=model, told=lambda content: typer.echo(f"measuring: {content}", err=True)
        )
        have = costs.processors()
        typer.echo(f"{have} processors, of which cameras may take {costs.USABLE * have:.1f}; ms of one for a frame:\n")
        typer.echo(f"{'content':15}{'agent':>8}{'capture':>9}   cameras at {fps:g} frames a second")
        for content, cost in found.items():
            carried = costs.carried(cost, fps)
            typer.echo(f"{content:15}{cost.agent_ms:8.1f}{cost.capture_ms:9.1f}   {carried}")
        report: dict[str, object] = {
            "processors": have,
            "fps": fps,
            "costs": {
                name: {"agent_ms": cost.agent_ms, "capture_ms": cost.capture_ms, "cameras": costs.carried(cost, fps)}
                for name, cost in found.items()
            },
        }
        if said is not None:
            costs.keep(said.events.dir, found)
            typer.echo(f"\n{config}: {costs.crowding(said) or 'its cameras fit'}")
        if cameras is not None:
            scene = costs.CONTENTS[costs.USUAL]
            sections = {
                f"cam{number}": {"source": f"{scene}{number}&fps={fps:g}&width=640&height=360", "capture": "process"}
                for number in range(1, cameras + 1)
            }
            with Running(sections, model=model) as agent:
                agent.wait(round(4 * fps), 60.0 + 10.0 * cameras)
                rates = agent.rates(seconds)
            typer.echo(f"\nmeasured with {cameras}: {min(rates.values()):.1f} to {max(rates.values()):.1f} a second")
            report["measured"] = rates
        if json_to is not None:
            try:
                json_to.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"--json {json_to}: can't be written: {error.strerror}") from None
