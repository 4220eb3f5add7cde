"""An event as one line for a terminal."""

from __future__ import annotations

from rich.text import Text

from agent.events.model import AnyEvent, EventType

STYLES = {"anomaly": "bold red", "rule": "bold magenta", "semantic_change": "cyan", "health": "yellow"}
WORDS = {"semantic_change": "change"}


def word(kind: str) -> str:
    """What a kind is called on a line."""
    return WORDS.get(kind, kind)


def event_line(event: AnyEvent) -> Text:
    """`12:00:03  street  change   A red car on the left.  at [120, 80, 60, 40]`."""
    line = Text()
    at = event.ts if event.type is EventType.END or event.frame_ts is None else event.frame_ts
    line.append(at.astimezone().strftime("%H:%M:%S"), "dim")
    line.append(f"  {event.camera}")
    line.append(f"  {word(event.kind):<8} ", STYLES.get(event.kind, ""))
    line.append(said(event))
    if event.region is not None and event.type is not EventType.END:
        line.append(f"  at {list(event.region)}", "dim")
    if event.degraded:
        line.append(f"  ({'; '.join(event.degraded)})", "dim")
    return line


def said(event: AnyEvent) -> str:
    """What an event comes to, in words."""
    if event.type is EventType.END and event.kind != "semantic_change":
        name = f"{event.rule} " if event.kind == "rule" else ""
        lasted = "" if event.duration_s is None else f" after {event.duration_s:.1f} s"
        return "back" if event.kind == "health" else f"{name}over{lasted}" + (f": {event.text}" if event.text else "")
    if event.kind == "anomaly":
        if event.evidence.get("test") is True:
            return f"test: {event.text}"
        streams = " and ".join(str(stream) for stream in _as_list(event.evidence.get("streams")))
        unusual = " ".join(part for part in ("unusual", streams) if part)
        return f"{unusual}, score {event.score or 0:.1f}" + (f": {event.text}" if event.text else "")
    if event.kind == "rule":
        return f"{event.rule}, {event.score or 0:.0%} yes" + (f": {event.text}" if event.text else "")
    if event.kind == "health":
        return f"{event.condition.value}: {event.text}"
    return event.text or ("the scene has changed" if event.kind == "semantic_change" else "")


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
