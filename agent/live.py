"""`stillwatch watch`: what agents publish, in a terminal as it happens, or as plain lines for a pipe.

Above, one line an event once its words are there; below, what goes on now, kept up to date in place.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timezone

from pydantic import ValidationError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.events.model import EVENT, AnyEvent, EventType
from agent.lines import STYLES, event_line, said, word
from agent.mqtt.address import BrokerAddress
from agent.mqtt.following import Following

_TEXT = "text"
_LEAVES = ("alert", "change", "health")
_REMEMBERED = 2000
_LASTING = ("anomaly", "rule", "health")
_REFRESH_S = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be seen. Empty = all of them."""

    root: str = "stillwatch"
    device: str = "+"
    cameras: Collection[str] = ()
    kinds: Collection[str] = ()

    @property
    def topics(self) -> list[str]:
        cameras = sorted(set(self.cameras)) or ["+"]
        return [f"{self.root}/{self.device}/{camera}/{leaf}" for camera in cameras for leaf in _LEAVES]

    def read(self, payload: bytes) -> AnyEvent | None:
        """The event of a message, None when it is none or is not wanted."""
        try:
            event = EVENT.validate_json(payload)
        except ValidationError:
            return None
        return event if not self.kinds or event.kind in self.kinds else None


@dataclass
class Scene:
    """What has been told so far. A telling that comes twice, or after a later one, changes nothing."""

    open: OrderedDict[str, AnyEvent] = field(default_factory=OrderedDict)
    events: int = 0
    _seen: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _printed: set[tuple[str, bool]] = field(default_factory=set)

    def take(self, event: AnyEvent) -> AnyEvent | None:
        """Returns the event when it is time to print its line."""
        if event.seq and event.seq <= self._seen.get(event.id, -1):
            return None
        self.events += event.id not in self._seen
        self._seen[event.id] = event.seq
        over = event.type is EventType.END
        if event.kind in _LASTING and not over:
            self.open[event.id] = event
        else:
            self.open.pop(event.id, None)
        self._forget()
        telling = (event.id, over)
        if (_TEXT in event.pending and not over) or telling in self._printed:
            return None
        self._printed.add(telling)
        return event

    def _forget(self) -> None:
        while len(self._seen) > _REMEMBERED:
            oldest, _ = self._seen.popitem(last=False)
            self.open.pop(oldest, None)
            self._printed -= {(oldest, True), (oldest, False)}


def watch_lines(address: BrokerAddress, wanted: Wanted, stop: threading.Event, seconds: float | None = None) -> None:
    """One line of JSON a telling on stdout: the document with its topic. Ends at `stop`, after `seconds`, or when
    nobody reads any more. Raises BrokerError."""

    def received(topic: str, payload: bytes) -> None:
        event = wanted.read(payload)
        if event is None:
            return
        try:
            sys.stdout.write(json.dumps({**event.model_dump(mode="json"), "topic": topic}, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            stop.set()

    with Following(address, wanted.topics, received):
        stop.wait(seconds)


def watch_screen(
    address: BrokerAddress, wanted: Wanted, stop: threading.Event, console: Console, seconds: float | None = None
) -> None:
    """Lines as events are told, and a table of what goes on, until `stop` or for `seconds`. Raises BrokerError."""
    scene, lock = Scene(), threading.Lock()

    def received(_topic: str, payload: bytes) -> None:
        event = wanted.read(payload)
        if event is None:
            return
        with lock:
            finished = scene.take(event)
            if finished is not None:
                console.print(event_line(finished))

    until = time.monotonic() + (float("inf") if seconds is None else seconds)
    with Following(address, wanted.topics, received) as following:
        console.print(Text(f"listening to {address}, {', '.join(wanted.topics)}", "dim"))
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not stop.wait(max(0.0, min(_REFRESH_S, until - time.monotonic()))) and time.monotonic() < until:
                with lock:
                    live.update(_below(scene, following.connected, _now), refresh=console.is_terminal)
    console.print(Text(f"{scene.events} events seen, {len(scene.open)} still going on", "dim"))


def _below(scene: Scene, connected: bool, now: Callable[[], datetime]) -> Group:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for event in scene.open.values():
        since_s = max(0, int((now() - (event.frame_ts or event.ts)).total_seconds()))
        words = said(event) + (f"  … {', '.join(event.pending)}" if event.pending else "")
        severity = "bold" if event.severity.rank >= 2 else ""
        table.add_row(
            Text(f"{since_s // 60:>3}:{since_s % 60:02}", "dim"),
            event.camera,
            Text(word(event.kind), STYLES.get(event.kind, "")),
            Text(event.severity.value, severity),
            Text(words, no_wrap=True, overflow="ellipsis"),
        )
    state = "connected" if connected else "connection lost, trying again"
    line = Text(f"  {state} · {scene.events} events · {len(scene.open)} going on", "dim" if connected else "yellow")
    return Group(table, line) if scene.open else Group(line)


def _now() -> datetime:
    return datetime.now(timezone.utc)
