"""`stillwatch demo`: two rendered cameras, a broker on this machine, and events on the screen as they come.

The street is busy: its meaning changes all the time. The office is quiet: once it is known that nothing happens there,
whoever comes in is an anomaly.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
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
from agent.lines import event_line, word
from agent.mqtt.broker import LocalBroker
from agent.reporting import TEXT
from agent.signals import stopped_by_signals
from agent.watching import CameraWatch
from config.errors import BrokerError
from config.settings import Camera as CameraSettings
from config.settings import Events, Mqtt, Settings

SOURCES = {
    "street": "scene:street?seed=7&light=day&fps=10",
    "office": "scene:office?seed=141&light=day&objects=1&fps=5",
}
_PIPE_EVERY_S = 10.0


class EventLines:
    """A sink that prints one line an event: time, camera, kind, text. What is still being described waits for it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.counts: Counter[str] = Counter()
        self._printed: set[tuple[str, bool]] = set()

    def append(self, topic: str, event: AnyEvent) -> None:
        if event.type is EventType.NEW:
            self.counts[event.kind] += 1
        telling = event.id, event.type is EventType.END
        if TEXT not in event.pending and telling not in self._printed:
            self._printed.add(telling)
            self._console.print(event_line(event))

    def close(self) -> None:
        """Nothing to give back."""


class ProgressLine:
    """How the watching goes, once a second in place on a terminal, now and then as a line in a pipe."""

    def __init__(self, console: Console, cameras: Sequence[Camera]) -> None:
        self._console, self._watches = console, [camera.watch for camera in cameras]
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
        now, frames, (then, before) = time.monotonic(), sum(watch.frames for watch in self._watches), self._before
        self._before = (now, frames)
        minutes, seconds = divmod(int(now - self._began), 60)
        learned = min(watch.learned for watch in self._watches)
        parts = [
            f"{minutes:02d}:{seconds:02d}",
            f"{(frames - before) / max(1e-3, now - then):.0f} frames/s",
            f"{kept(self._watches):.0%} of tokens kept",
            f"learning what is normal: {learned:.0%}" if learned < 1 else "watching for what is not normal",
        ]
        return Text("  " + " · ".join(parts), "dim", no_wrap=True, overflow="ellipsis")


def kept(watches: Sequence[CameraWatch]) -> float:
    """Share of tokens that did not have to run through the network, 0–1."""
    tokens = sum(watch.tokens for watch in watches)
    return 1 - sum(watch.encoded for watch in watches) / tokens if tokens else 0.0


def run_demo(console: Console, seconds: float | None, state: Path, model: str = "reference") -> None:
    """Run it until the time is over or Ctrl-C. Raises what `Daemon` raises."""
    with ExitStack() as stack:
        stop = threading.Event()
        stack.enter_context(stopped_by_signals(stop))
        console.print(Text(f"Stillwatch {__version__}: a rendered street and office, watched by the model `{model}`\n"))
        mqtt = _broker(console, stack)
        settings = Settings(
            model=model,
            mqtt=mqtt,
            events=Events(dir=state),
            cameras={name: CameraSettings(source=source) for name, source in SOURCES.items()},
        )
        lines = EventLines(console)
        options = RunOptions(seconds=seconds, sinks=(lines,), anomaly=AnomalySettings(learn_s=20.0))
        daemon = Daemon(settings, options)
        cameras = list(daemon.cameras.values())
        console.print(f"  kept in  {state}/ (outbox, snapshots)   stop with Ctrl-C\n", highlight=False)
        try:
            with ProgressLine(console, cameras) as progress:
                daemon.run(stop, progress.tick)
        finally:
            daemon.close()
        _summary(console, cameras, lines, daemon)


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


def _summary(console: Console, cameras: Sequence[Camera], lines: EventLines, daemon: Daemon) -> None:
    watches = [camera.watch for camera in cameras]
    modes = sum((watch.modes for watch in watches), Counter[str]())
    events = ", ".join(f"{count} {word(kind)}" for kind, count in lines.counts.most_common()) or "none"
    unsent = "" if daemon.link is None else f"; {daemon.unsent or 'none'} not yet taken by the broker"
    dropped = sum(camera.dropped for camera in cameras)
    rows = {
        "frames": f"{sum(watch.frames for watch in watches)}, {dropped} more skipped to keep up",
        "tokens": f"{1 - kept(watches):.1%} encoded, the others kept from earlier frames",
        "modes": ", ".join(f"{mode} {count}" for mode, count in modes.most_common()),
        "events": events + unsent,
    }
    console.print()
    for name, value in rows.items():
        console.print(f"  {name:<8} {value}", highlight=False)
