"""`stillwatch demo`: a rendered street, a broker on this machine, and events on the screen as they come."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from agent import __version__
from agent.camera import Camera
from agent.daemon import Daemon, RunOptions
from agent.events.model import AnyEvent, EventType
from agent.insight.anomaly import AnomalySettings
from agent.mqtt.broker import LocalBroker
from agent.signals import stopped_by_signals
from config.errors import BrokerError
from config.settings import Camera as CameraSettings
from config.settings import Events, Mqtt, Settings

SOURCE = "scene:street?seed=7"
_CAMERA = "street"
_STYLES = {"anomaly": "bold red", "semantic_change": "cyan", "health": "yellow"}
_WORDS = {"anomaly": "anomaly", "semantic_change": "change", "health": "health"}
_PIPE_EVERY_S = 10.0


class EventLines:
    """A sink that prints one line an event: time, kind, text. What is still being described waits for its words."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.counts: Counter[str] = Counter()

    def append(self, topic: str, event: AnyEvent) -> None:
        if event.type is EventType.NEW:
            self.counts[event.kind] += 1
        if not event.pending:
            self._console.print(event_line(event))

    def close(self) -> None:
        """Nothing to give back."""


def event_line(event: AnyEvent) -> Text:
    """`12:00:03  change   a red car is driving on the left  at [120, 80, 60, 40]`."""
    said = event.text
    if event.kind == "anomaly":
        streams = " and ".join(str(stream) for stream in _as_list(event.evidence.get("streams")))
        said = f"unusual {streams}, score {event.score or 0:.1f}" + (f": {event.text}" if event.text else "")
        if event.type is EventType.END:
            said = f"over after {event.evidence.get('seen_for_s', 0)} s"
    elif event.kind == "health":
        said = "back" if event.type is EventType.END else f"{event.condition.value}: {event.text}"
    elif event.kind == "semantic_change" and not event.text:
        said = "the scene has changed"
    line = Text()
    line.append((event.frame_ts or event.ts).astimezone().strftime("%H:%M:%S"), "dim")
    line.append(f"  {_WORDS[event.kind]:<8} ", _STYLES[event.kind])
    line.append(said)
    if event.region is not None and event.type is not EventType.END:
        line.append(f"  at {list(event.region)}", "dim")
    if event.degraded:
        line.append(f"  ({'; '.join(event.degraded)})", "dim")
    return line


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


class ProgressLine:
    """How the watching goes, once a second in place on a terminal, now and then as a line in a pipe."""

    def __init__(self, console: Console, camera: Camera) -> None:
        self._console, self._camera = console, camera
        self._began = time.monotonic()
        self._before = (self._began, 0)
        self._next_line = self._began + _PIPE_EVERY_S
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> ProgressLine:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tick(self) -> None:
        if self._live is not None:
            self._live.update(self._line(), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line += _PIPE_EVERY_S
            self._console.print(self._line())

    def _line(self) -> Text:
        watch = self._camera.watch
        now, (then, before) = time.monotonic(), self._before
        self._before = (now, watch.frames)
        minutes, seconds = divmod(int(now - self._began), 60)
        learned = watch.learned
        parts = [
            f"{minutes:02d}:{seconds:02d}",
            f"{(watch.frames - before) / max(1e-3, now - then):.0f} frames/s",
            f"{saved(watch.encoded, watch.tokens):.0%} of tokens kept",
            f"mode {watch.reading.mode.value if watch.reading.mode else '-'}",
            f"learning what is normal: {learned:.0%}"
            if learned < 1
            else f"anomaly score {watch.reading.score or 0:.1f}",
        ]
        return Text("  " + " · ".join(parts), "dim", no_wrap=True, overflow="ellipsis")


def saved(encoded: int, tokens: int) -> float:
    """Share of tokens that did not have to run through the network, 0–1."""
    return 1 - encoded / tokens if tokens else 0.0


def run_demo(console: Console, seconds: float | None, state: Path, model: str = "reference") -> None:
    """Run it until the time is over or Ctrl-C. Raises what `Daemon` raises."""
    with ExitStack() as stack:
        stop = threading.Event()
        stack.enter_context(stopped_by_signals(stop))
        console.print(Text(f"Stillwatch {__version__} · a rendered street ({SOURCE}), watched by the model `{model}`"))
        mqtt = _broker(console, stack)
        settings = Settings(
            model=model, mqtt=mqtt, events=Events(dir=state), cameras={_CAMERA: CameraSettings(source=SOURCE)}
        )
        lines = EventLines(console)
        options = RunOptions(seconds=seconds, sinks=(lines,), anomaly=AnomalySettings(learn_s=20.0))
        daemon = Daemon(settings, options)
        camera = daemon.cameras[_CAMERA]
        console.print(f"  kept in  {state}/ (outbox, snapshots)   stop with Ctrl-C\n", highlight=False)
        try:
            with ProgressLine(console, camera) as progress:
                daemon.run(stop, progress.tick)
        finally:
            daemon.close()
        _summary(console, camera, lines, daemon)


def _broker(console: Console, stack: ExitStack) -> Mqtt | None:
    try:
        broker = stack.enter_context(LocalBroker())
    except BrokerError as error:
        console.print(Text(f"  no broker: {error}", "yellow"))
        console.print("  events go to this screen and to the outbox only", highlight=False)
        return None
    console.print(f"  broker   {broker.url} (mosquitto, started for this demo)", highlight=False)
    console.print(Text(f"  follow   mosquitto_sub -h 127.0.0.1 -p {broker.port} -t 'stillwatch/#' -v", "bold"))
    return Mqtt(url=broker.url)


def _summary(console: Console, camera: Camera, lines: EventLines, daemon: Daemon) -> None:
    watch = camera.watch
    modes = ", ".join(f"{mode} {count}" for mode, count in watch.modes.most_common())
    events = ", ".join(f"{count} {_WORDS[kind]}" for kind, count in lines.counts.most_common()) or "none"
    sent = "" if daemon.link is None else f", {daemon.unsent} not yet taken by the broker"
    console.print(f"\n  frames   {watch.frames} ({camera.dropped} skipped to keep up)", highlight=False)
    console.print(f"  tokens   {1 - saved(watch.encoded, watch.tokens):.1%} re-encoded", highlight=False)
    console.print(f"  modes    {modes}", highlight=False)
    console.print(f"  events   {events}{sent}", highlight=False)
