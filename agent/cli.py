"""The command `stillwatch`. Heavy modules are imported inside the commands, so that help and completion stay quick."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import __version__, models
from agent.capacity import commands as capacity_commands
from agent.remote import commands as remote_commands
from agent.service import commands as service_commands
from config.errors import StillwatchError

if TYPE_CHECKING:
    from agent.coherence.settings import CoherenceSettings
    from config.layers import Layers
    from config.settings import Camera as CameraSettings
    from config.settings import Settings

app = typer.Typer(
    name="stillwatch",
    help="Watches live video with a vision-language model, re-computes only what changed, and reports over MQTT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(
    help="Check, show and describe configuration files; change a box from afar.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(config_app, name="config")
remote_commands.register(config_app)
anomaly_app = typer.Typer(help="Score how unusual clips are.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(anomaly_app, name="anomaly")
app.add_typer(models.app, name="model")

rules_app = typer.Typer(help="Try rules on clips.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(rules_app, name="rules")

ModelName = Annotated[str, typer.Option("--model", help="A name from `stillwatch model list`, or a folder.")]
Seconds = Annotated[float | None, typer.Option("--seconds", min=0.0, help="End after so many seconds.")]


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stillwatch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Watches live video with a vision-language model, re-computes only what changed, and reports over MQTT."""


def command() -> None:
    """The process: `main`, and an end that no thread can hold up or spoil.

    A thread that is inside a native library (a model at work, a camera that doesn't answer) can't be stopped; letting
    the interpreter take itself apart around it aborts the process. All that matters is flushed by then.
    """
    status: str | int | None = 0
    try:
        main()
    except SystemExit as end:
        status = end.code
    if threading.active_count() == 1:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def main() -> None:
    """Exit status: 0 · 1 failure · 2 usage · 69 unavailable · 74 corrupt input · 78 configuration or model."""
    try:
        app()
    except StillwatchError as error:
        from config.redact import redact

        typer.echo(redact(str(error)), err=True)
        sys.exit(error.exit_code)


@app.command()
def run(
    source: Annotated[
        str | None, typer.Option(help="One camera: a file, rtsp://…, http://…, /dev/video0, scene:street?seed=7.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; docs/configuration.md lists its keys.")
    ] = None,
    broker: Annotated[str | None, typer.Option(help="mqtt://HOST:PORT or mqtts://HOST:PORT.")] = None,
    events_to: Annotated[
        str | None, typer.Option(help="NDJSON of all events: a file, or - for stdout (the default without a broker).")
    ] = None,
    seconds: Seconds = None,
    no_retry: Annotated[
        bool, typer.Option("--no-retry", help="End with status 69 when a camera or the broker is not there.")
    ] = False,
    state: Annotated[Path | None, typer.Option(help="Folder for outbox, snapshots and what was learned.")] = None,
    model: Annotated[str | None, typer.Option(help="A name from `stillwatch model list`, or a folder.")] = None,
) -> None:
    """Watch cameras and report what happens, until stopped."""
    if (source is None) == (config is None):
        raise typer.BadParameter("give either --source or --config")
    from agent.service.memory import take_from_few_pools

    take_from_few_pools()
    if config is not None:
        from agent.signals import ignore_reloads

        ignore_reloads()
    layers = _layers(
        config,
        {
            ("cameras", "cam1", "source"): ("--source", source),
            ("mqtt", "url"): ("--broker", broker),
            ("events", "dir"): ("--state", None if state is None else str(state)),
            ("model",): ("--model", model),
        },
    )
    from contextlib import ExitStack

    from agent.applying.starting import settings_at_start
    from agent.daemon import Daemon, RunOptions
    from agent.logs import set_up_logs
    from agent.signals import reloaded_by_signal, stopped_by_signals

    set_up_logs()
    settings = settings_at_start(layers)
    if events_to is None and settings.mqtt is None:
        events_to = "-"
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(stopped_by_signals(stop))
        options = RunOptions(events_to=events_to, seconds=seconds, retry=not no_retry)
        daemon = Daemon(settings, options, layers)
        if config is not None:
            stack.enter_context(reloaded_by_signal(daemon.reload))
        daemon.run(stop)


@app.command()
def demo(
    seconds: Seconds = None,
    state: Annotated[Path, typer.Option(help="Folder for outbox and snapshots.")] = Path("state/demo"),
    model: ModelName = "reference",
) -> None:
    """Watch a rendered street and print events as they come, with an MQTT broker on this machine."""
    import logging

    from rich.console import Console

    from agent.demo import run_demo
    from agent.logs import set_up_logs

    set_up_logs(logging.ERROR)
    run_demo(Console(soft_wrap=True), seconds, state, model)


@app.command()
def watch(
    broker: Annotated[str | None, typer.Option(help="mqtt://HOST:PORT or mqtts://HOST:PORT.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="The configuration that an agent runs with: its broker, root and credentials.")
    ] = None,
    device: Annotated[str, typer.Option(help="Only this box.")] = "+",
    root: Annotated[str | None, typer.Option(help="First level of the topics, when it is not `stillwatch`.")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Only this camera; may be given more than once.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only anomaly, rule, semantic_change or health; may be given more than once."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a telling, for a pipe.")] = False,
    seconds: Seconds = None,
) -> None:
    """Follow what agents tell, live: events as they come, and what goes on now; until Ctrl-C."""
    from rich.console import Console

    from agent.events.form import kinds
    from agent.live import Wanted, watch_lines, watch_screen
    from agent.mqtt.address import BrokerAddress
    from agent.signals import stopped_by_signals
    from config.errors import ConfigError

    if (broker is None) == (config is None):
        raise typer.BadParameter("give either --broker or --config")
    if unknown := [name for name in kind or () if name not in kinds()]:
        raise typer.BadParameter(f"expected one of {', '.join(kinds())}, found {unknown[0]!r}", param_hint="--kind")
    if broker is not None:
        address = BrokerAddress.parse(broker)
    else:
        mqtt = _settings(config, {}).mqtt
        if mqtt is None:
            raise ConfigError(f"{config}: no mqtt.url: there is no broker to listen to")
        address, root = BrokerAddress.of(mqtt), root or mqtt.root
    wanted = Wanted(root or "stillwatch", device, camera or (), kind or ())
    stop = threading.Event()
    with stopped_by_signals(stop):
        if as_json:
            watch_lines(address, wanted, stop, seconds)
        else:
            watch_screen(address, wanted, stop, Console(soft_wrap=True), seconds)


@app.command()
def describe(
    source: Annotated[str, typer.Argument(metavar="IMAGE|CLIP")],
    seconds: Seconds = None,
    model: ModelName = "reference",
) -> None:
    """Say what is to be seen: in a picture, or in a clip at its start and each time its meaning changes."""
    from agent.asking import knows, remarks
    from engines.manifest import find_model, load_model

    loaded = load_model(find_model(model))
    _warn(knows(loaded, source), loaded.manifest.name)
    for remark in remarks(loaded, source, seconds):
        if remark.media_s is not None:
            minutes, rest = divmod(remark.media_s, 60)
            typer.echo(f"{int(minutes)}:{rest:04.1f}  ", nl=False)
        _stream(remark.pieces)


@app.command()
def ask(
    question: str,
    source: Annotated[str | None, typer.Option(help="What to look at: a picture, a file, a camera.")] = None,
    model: ModelName = "reference",
    config: Annotated[
        Path | None, typer.Option(help="Ask the agent that runs with this configuration, through its broker.")
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="With --config: its name; not needed where there is only one.")
    ] = None,
    last: Annotated[
        float, typer.Option(min=0.0, max=3600.0, help="With --config: about so many seconds until now.")
    ] = 0.0,
) -> None:
    """Answer a question about what a source shows now, or what a running agent sees or has seen of late."""
    if (source is None) == (config is None):
        raise typer.BadParameter("give either --source or --config")
    if config is not None:
        _ask_running(config, question, camera, last)
        return
    assert source is not None
    from agent.asking import answer, knows
    from engines.manifest import find_model, load_model

    loaded = load_model(find_model(model))
    _warn(knows(loaded, source), loaded.manifest.name)
    _stream(answer(loaded, source, question))


def _ask_running(config: Path, question: str, camera: str | None, last_s: float) -> None:
    from agent.questions.remote import ask_running

    settings = _settings(config, {})
    said = False

    def heard(text: str) -> None:
        nonlocal said
        said = True
        typer.echo(text, nl=False)

    answer = ask_running(settings, config, question, camera, last_s, heard)
    typer.echo() if said else typer.echo(answer.text)
    for line in answer.lines:
        typer.echo(line)


@app.command()
def bench(
    clips: Annotated[
        list[str] | None, typer.Argument(metavar="CLIP…", help="Videos, folders of images, scene:… with seconds=.")
    ] = None,
    json_to: Annotated[
        Path | None, typer.Option("--json", help="Write the numbers here: one clip an object, several a list.")
    ] = None,
    model: ModelName = "reference",
    profile: Annotated[str, typer.Option(help="Starting values for a kind of content.")] = "general",
    floor: Annotated[
        float | None, typer.Option("--fidelity-floor", help="Mean fidelity to hold, instead of the profile's.")
    ] = None,
    against: Annotated[
        str,
        typer.Option(help="Rivals to run beside it: full,every-n,motion-gate,previous-frame-gate,eventful or some."),
    ] = "full",
    pan: Annotated[
        str | None, typer.Option(metavar="DX,DY", help="Slide a window over each clip by so many pixels a frame.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Encode at least so many frames of a clip in full.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop a clip after so many frames.")] = None,
    text: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At every N-th frame, compare what the model says.")
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Draw speed-up against fidelity here, by content.")] = None,
    engine: Annotated[
        bool, typer.Option("--engine", help="Measure the encoder alone, by the share of dirty tokens; takes no clips.")
    ] = False,
    towers: Annotated[
        str | None,
        typer.Option(
            help="With --engine: models, or vit-s-576,vit-s-1024,siglip-b-1024 (random weights; also with -int8)."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="With --engine: for each tower, about so long.")] = 45.0,
) -> None:
    """Measure a full encode of every frame against the whole coherent path, and rivals beside both, in one run."""
    from rich.console import Console

    if engine == bool(clips):
        raise typer.BadParameter("give either clips or --engine", param_hint="CLIP…")
    if engine:
        _bench_engine(towers, seconds, json_to, png)
        return
    from agent.bench import NAMES, Clip, Wanted, render, write_chart
    from agent.bench import bench as measure

    settings = _coherence(profile, floor)
    rivals = tuple(name.strip() for name in against.split(","))
    if unknown := [name for name in rivals if name not in NAMES]:
        raise typer.BadParameter(f"expected some of {', '.join(NAMES)}, found {unknown[0]!r}", param_hint="--against")
    for clip in clips or ():
        if Clip.of(clip, frames).endless:
            raise typer.BadParameter(f"{clip} never ends; add seconds=… to it, or --frames N", param_hint="CLIP…")
    wanted = Wanted(rivals, _pair(pan, "--pan"), sample, frames, text)
    reports = measure(clips or [], model=model, settings=settings, wanted=wanted)
    if json_to is not None:
        _write_json(json_to, reports[0] if len(reports) == 1 else reports)
    if png is not None:
        write_chart(reports, png)
    Console(width=None if sys.stdout.isatty() else 160).print(render(reports))


@app.command()
def cuts(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video, a folder of images, scene:… with seconds=.")],
    json_to: Annotated[Path | None, typer.Option("--json", help="Write the cuts here.")] = None,
    detector: Annotated[
        str, typer.Option(help="adaptive, or one that looks at two frames only: histogram, features, combined.")
    ] = "adaptive",
    model: Annotated[
        str | None, typer.Option(help="For features and combined: a name from `stillwatch model list`, or a folder.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
) -> None:
    """Say where a clip cuts, dissolves or fades to another shot."""
    from agent.cutting import DETECTORS, MODEL_DETECTORS, find_cuts

    if detector not in DETECTORS:
        raise typer.BadParameter(f"expected one of {', '.join(DETECTORS)}, found {detector!r}", param_hint="--detector")
    if model is not None and detector not in MODEL_DETECTORS:
        raise typer.BadParameter(f"the detector {detector} asks no model", param_hint="--model")
    if clip.startswith("scene:") and "seconds=" not in clip and frames is None:
        raise typer.BadParameter(f"{clip} never ends; add seconds=… to it, or --frames N", param_hint="CLIP")
    found = []
    for cut in find_cuts(clip, detector=detector, model=model or "reference", frames=frames):
        found.append(cut.as_json())
        typer.echo(str(cut))
    if json_to is not None:
        _write_json(json_to, {"cuts": found})


@app.command()
def inspect(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video, a folder of images, scene:… with seconds=.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pictures and the video.")],
    frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    json_to: Annotated[Path | None, typer.Option("--json", help="Write what was measured here.")] = None,
    model: ModelName = "reference",
    profile: Annotated[str, typer.Option(help="Starting values for a kind of content.")] = "general",
    floor: Annotated[
        float | None, typer.Option("--fidelity-floor", help="Mean fidelity to hold, instead of the profile's.")
    ] = None,
) -> None:
    """Draw what the coherent path sees, decides and keeps: residual, flow, encoded, age, ghosting, cuts, modes."""
    from rich.console import Console
    from rich.progress import Progress

    from agent.bench.clips import Clip
    from agent.coherence.memory import line
    from agent.coherence.profile import table
    from agent.inspecting import inspect_clip

    wanted = Clip.of(clip, frames)
    if wanted.endless:
        raise typer.BadParameter(f"{clip} never ends; add seconds=… to it, or --frames N", param_hint="CLIP")
    settings = _coherence(profile, floor)
    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(wanted.name, total=None)
        report = inspect_clip(
            wanted,
            out,
            model=model,
            settings=settings,
            progress=lambda done, total: shown.update(task, completed=done, total=total),
        )
    if json_to is not None:
        _write_json(json_to, report)
    Console(width=None if sys.stdout.isatty() else 160).print(table(report["profile"]))
    typer.echo(line(report["memory"]))
    typer.echo(f"{report['frames']} frames of {wanted.name}: {', '.join(report['files'])} in {out}")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    model: Annotated[str | None, typer.Option(help="Examine this model instead of the configured one.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file whose model and describer to examine.")
    ] = None,
    acceptance: Annotated[
        bool,
        typer.Option("--acceptance", help="Test this machine thoroughly instead, and write a report; needs --out."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="With --acceptance: file for the report, JSON.")] = None,
    soak_s: Annotated[
        float, typer.Option("--soak-seconds", min=1.0, help="With --acceptance: how long the whole agent runs.")
    ] = 300.0,
    each_s: Annotated[
        float, typer.Option("--stage-seconds", min=0.0, help="With --acceptance: how long each part is timed.")
    ] = 1.0,
) -> None:
    """Say what is used, what better was not taken and why, how fast it is, and whether pixels leave this machine.

    Status 78 when it can't work. With --acceptance: what is used is compared with the host's own parts, timed, and run
    for some minutes; status 1 when something does not hold.
    """
    from agent.doctor import examine, lines
    from config.errors import ModelError

    options: dict[tuple[str, ...], tuple[str, str | None]] = {("model",): ("--model", model)}
    if config is None:  # what `run --source` would make of the environment; the source doesn't matter
        options["cameras", "cam1", "source"] = ("doctor", "scene:street")
    settings = _settings(config, options)
    if acceptance:
        if out is None:
            raise typer.BadParameter("say with --out where the report is to go", param_hint="--acceptance")
        _accept(settings.model, soak_s, each_s, out)
        return
    report = examine(settings.model, describer=settings.describer)
    if as_json:
        _print_json(report.as_json())
    else:
        typer.echo("\n".join(lines(report)))
    if not report.healthy:
        raise typer.Exit(ModelError.exit_code)


@app.command("test-alert")
def test_alert(
    config: Annotated[Path, typer.Option(help="The configuration that the agent runs with.")],
    camera: Annotated[str | None, typer.Option(help="Its name; not needed where there is only one.")] = None,
    text: Annotated[str, typer.Option(help="What the alert says.")] = "This is a test.",
) -> None:
    """Have a running agent tell an alert, clip and all, to see that it arrives where it should."""
    from agent.mqtt.asking import ask_agent
    from agent.questions.remote import running_agent

    address, topics = running_agent(_settings(config, {}), config)
    arguments = {"text": text} | ({} if camera is None else {"camera": camera})
    answer = ask_agent(address, topics, "test-alert", arguments)
    if not answer.ok:
        raise StillwatchError(answer.error or "the agent gave no reason")
    _print_json(answer.result)


@app.command()
def schema() -> None:
    """Print the JSON Schema of everything that is published, and of remote configuration, by name."""
    from agent.events.model import json_schemas
    from agent.remote.documents import json_schemas as remote_schemas

    _print_json(json_schemas() | remote_schemas())


@anomaly_app.command("score")
def anomaly_score(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video, a folder of images, scene:… with seconds=.")],
    json_to: Annotated[Path, typer.Option("--json", help="Write scores and regions here.")],
    fit: Annotated[
        list[str] | None,
        typer.Option(metavar="CLIP[:FIRST-LAST]", help="Learn normal from this; may be given more than once."),
    ] = None,
    model: ModelName = "reference",
) -> None:
    """Score every frame by how unusual it is for its camera; without --fit, by what the clip has shown so far."""
    from agent.bench.clips import Clip
    from agent.scoring import Scorer

    for name in (clip, *(fit or ())):
        if Clip.of(name).endless:
            raise typer.BadParameter(f"{name} never ends; add seconds=… to it, or :FIRST-LAST")
    scorer = Scorer(model)
    for name in fit or ():
        scorer.fit(name)
    scores = scorer.score(clip)
    _write_json(json_to, scores.as_json())
    highest = max(range(len(scores.scores)), key=scores.scores.__getitem__)
    where = ", ".join(str(number) for number in scores.regions[highest])
    typer.echo(f"{len(scores.scores)} frames; the most unusual is {highest}: {scores.scores[highest]:.2f} at {where}")


@rules_app.command("test")
def rules_test(
    clip: Annotated[str, typer.Argument(metavar="CLIP", help="A video, a folder of images, scene:… with seconds=.")],
    config: Annotated[Path, typer.Option(help="The configuration that has the rules.")],
    camera: Annotated[str | None, typer.Option(help="Whose rules; not needed where there is only one camera.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help='What is true: {"RULE": [[from, to], …]}, seconds of the clip.')
    ] = None,
    json_to: Annotated[Path | None, typer.Option("--json", help="Write probabilities and alerts here.")] = None,
) -> None:
    """Say when each rule would have fired, and which threshold would have been best. Schedules don't count."""
    from rich.console import Console
    from rich.progress import Progress

    from agent.asking import knows
    from agent.bench.clips import Clip
    from agent.rules.backtest import BackTest, read_truth
    from agent.rules.showing import lines, table
    from engines.manifest import find_model, load_model

    if Clip.of(clip).endless:
        raise typer.BadParameter(f"{clip} never ends; add seconds=… to it, or :FIRST-LAST", param_hint="CLIP")
    settings = _settings(config, {})
    name, chosen = _camera_with_rules(settings, config, camera)
    known = None if truth is None else read_truth(truth, chosen.rules)
    model = load_model(find_model(settings.model))
    _warn(knows(model, clip), model.manifest.name)
    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(clip, total=None)
        reports = BackTest(model, chosen).run(clip, known, lambda done: shown.update(task, completed=done))
    if json_to is not None:
        _write_json(json_to, {"clip": clip, "camera": name, "rules": [report.as_json() for report in reports]})
    Console(width=None if sys.stdout.isatty() else 160).print(table(reports))
    for report in reports:
        for line in lines(report):
            typer.echo(line)


def _camera_with_rules(settings: Settings, config: Path, camera: str | None) -> tuple[str, CameraSettings]:
    """Raises ConfigError when it is not clear which camera is meant, or it has no rules."""
    from config.errors import ConfigError

    names = [name for name, each in settings.cameras.items() if each.rules]
    if camera is None and len(names) == 1:
        camera = names[0]
    if camera not in names:
        found = "none" if camera is None else repr(camera)
        raise ConfigError(
            f"{config}: --camera: expected one with rules ({', '.join(names) or 'none has'}), found {found}"
        )
    return camera, settings.cameras[camera]


@config_app.command("check")
def config_check(
    file: Path,
    cameras: Annotated[
        bool, typer.Option("--cameras", help="Open every camera, too, and see whether polygons lie in its picture.")
    ] = False,
) -> None:
    """Say whether FILE can be run: every key, every secret, the model. Exit status 78 when it can't."""
    from agent.remote.keys import key_troubles
    from config.errors import ConfigError
    from config.loading import check_secrets
    from engines.manifest import find_model

    settings = _settings(file, {})
    check_secrets(settings)
    for trouble in key_troubles(settings.remote):
        raise ConfigError(f"{file}: {trouble}")
    find_model(settings.model)
    if cameras:
        _check_cameras(settings)
    away = "" if settings.describer is None else f"; pictures are sent to {settings.describer.url}"
    typer.echo(f"{file}: good; cameras: {', '.join(settings.cameras)}{away}")
    from agent.capacity.costs import crowding

    if (crowded := crowding(settings)) is not None:
        typer.echo(f"{file}: {crowded}", err=True)


def _check_cameras(settings: Settings) -> None:
    """Raises ConfigError."""
    from agent.applying.checking import check
    from agent.applying.contract import Refused
    from config.errors import ConfigError

    try:
        check(None, settings, {})
    except Refused as error:
        raise ConfigError(str(error)) from None


@config_app.command("show")
def config_show(file: Path) -> None:
    """Print what FILE and the environment come to, defaults included, as YAML. Secrets are not shown."""
    import yaml

    from config.loading import shown

    typer.echo(yaml.safe_dump(shown(_settings(file, {})), sort_keys=False, allow_unicode=True), nl=False)


@config_app.command("explain")
def config_explain(
    key: Annotated[str, typer.Argument(help="Such as cameras.front.fps, a section, or nothing for all.")] = "",
    config: Annotated[Path, typer.Option(help="The file that the agent runs with.")] = Path(
        "/etc/stillwatch/agent.yaml"
    ),
    state: Annotated[Path | None, typer.Option(help="The state folder, as for `run`.")] = None,
) -> None:
    """Say what a key is and who says so: file and line, variable, what was sent from afar, profile or default."""
    from agent.applying.journal import Journal
    from agent.coherence.settings import PROFILES
    from config.explaining import explain
    from config.layers import with_overlay
    from config.loading import validate

    layers = _layers(config, {("events", "dir"): ("--state", None if state is None else str(state))})
    stages = layers.stages(layers.text())
    sent = Journal(validate(stages[-1]).events.dir / "config").committed
    floors = {name: {"fidelity_floor": profile.fidelity_floor} for name, profile in PROFILES.items()}
    for explained in explain((*stages, with_overlay(stages[-1], sent.overlay, sent.version)), key, floors):
        typer.echo(str(explained))


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from config.loading import json_schema

    _print_json(json_schema())


def _settings(file: Path | None, options: dict[tuple[str, ...], tuple[str, str | None]]) -> Settings:
    """Settings of a file, the environment and options (key path → (option, value)), the later ones winning."""
    from config.loading import validate

    layers = _layers(file, options)
    return validate(layers.document(layers.text()))


service_commands.register(app, _settings)
capacity_commands.register(app, _settings)


def _layers(file: Path | None, options: dict[tuple[str, ...], tuple[str, str | None]]) -> Layers:
    from config.layers import Layers

    return Layers(
        file, os.environ, {path: (name, value) for path, (name, value) in options.items() if value is not None}
    )


def _coherence(profile: str, floor: float | None) -> CoherenceSettings:
    """Settings of a profile, with another floor of fidelity where one is given. Raises ConfigError."""
    from dataclasses import replace

    from agent.coherence.settings import PROFILES

    if profile not in PROFILES:
        raise typer.BadParameter(f"expected one of {', '.join(PROFILES)}, found {profile!r}", param_hint="--profile")
    return PROFILES[profile] if floor is None else replace(PROFILES[profile], fidelity_floor=floor)


def _pair(text: str | None, option: str) -> tuple[float, float] | None:
    """Two numbers with a comma between them."""
    if text is None:
        return None
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise typer.BadParameter(f"expected two numbers, such as 2,0.5, found {text!r}", param_hint=option) from None
    return x, y


def _bench_engine(towers: str | None, seconds: float, json_to: Path | None, png: Path | None) -> None:
    from rich.console import Console

    from agent.engine_bench import DEFAULT_TOWERS, bench_engine, render, write_chart

    names = DEFAULT_TOWERS if towers is None else tuple(name.strip() for name in towers.split(","))
    with Console(stderr=True).status("") as status:
        report = bench_engine(names, seconds=seconds, progress=lambda text: status.update(text))
    if json_to is not None:
        _write_json(json_to, report)
    if png is not None:
        write_chart(report, png)
    Console(width=None if sys.stdout.isatty() else 160).print(render(report))


def _accept(model: str, soak_s: float, each_s: float, out: Path) -> None:
    import logging

    from rich.console import Console

    from agent.acceptance import accept, lines
    from agent.logs import set_up_logs

    _write_json(out, {"passed": False, "failures": ["the test has not come to its end"]}, "--out")
    set_up_logs(logging.ERROR)
    with Console(stderr=True).status("") as status:
        report = accept(model, soak_s=soak_s, each_s=each_s, progress=lambda text: status.update(text))
    _write_json(out, report, "--out")
    typer.echo("\n".join(lines(report)))
    if not report["passed"]:
        raise typer.Exit(1)


def _warn(knows: bool, model: str) -> None:
    if not knows:
        typer.echo(f"the model `{model}` knows rendered scenes only; do not believe what it says of this one", err=True)


def _stream(pieces: Any) -> None:
    for piece in pieces:
        typer.echo(piece, nl=False)
    typer.echo()


def _write_json(path: Path, value: Any, option: str = "--json") -> None:
    from config.errors import ConfigError

    try:
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{option} {path}: can't be written: {error.strerror}") from None


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    command()
