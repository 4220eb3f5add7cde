"""What a frame costs on this machine, by kind of content: measured with a whole agent, and kept beside its state."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.capacity.running import Counted, Running
from agent.capacity.sharing import Load, fair_rates
from config.settings import Camera, Settings

FILE = "capacity.json"
"""In the state folder."""
CONTENTS: Mapping[str, str] = {
    "still": "scene:office?seed=3&objects=0",
    "street": "scene:street?seed=2",
    "moving camera": "scene:street?seed=2&camera=pan",
}
USUAL = "street"
"""The content that a camera is taken for when nobody has seen it."""
USABLE = 0.8
"""Of the processors: the rest is for the system, for words, clips and peaks."""
_UNKNOWN_FPS = 25.0
_WARM_S = 5.0
_STARTED_WITHIN_S = 180.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one frame, milliseconds of one processor: in the agent, and in the process that captures."""

    agent_ms: float
    capture_ms: float

    @property
    def frame_ms(self) -> float:
        return self.agent_ms + self.capture_ms


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def measure(
    *, fps: float, seconds: float, model: str = "reference", told: Callable[[str], None] = lambda _content: None
) -> dict[str, Cost]:
    """The cost of each kind of content, by processor time: other work on the machine hardly matters. Raises
    StillwatchError when the agent does not run."""
    found = {}
    for content, scene in CONTENTS.items():
        told(content)
        section = {"source": f"{scene}&fps={fps:g}&width=640&height=360", "capture": "process"}
        with Running({"camera": section}, model=model) as agent:
            agent.wait(round(_WARM_S * fps), _STARTED_WITHIN_S)
            found[content] = _cost(*agent.window(seconds))
    return found


def _cost(first: Counted, last: Counted) -> Cost:
    frames = max(1, sum(last.frames.values()) - sum(first.frames.values()))
    return Cost(
        round((last.agent_s - first.agent_s) / frames * 1000, 2),
        round((last.capture_s - first.capture_s) / frames * 1000, 2),
    )


def keep(folder: Path, costs: Mapping[str, Cost]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f"{FILE}.half"
    half.write_text(json.dumps({content: asdict(cost) for content, cost in costs.items()}, indent=1), encoding="utf-8")
    half.replace(folder / FILE)


def kept(folder: Path) -> dict[str, Cost]:
    """What was measured here, {} when nothing was or it can't be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {content: Cost(float(cost["agent_ms"]), float(cost["capture_ms"])) for content, cost in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def carried(cost: Cost, fps: float) -> int:
    """How many cameras of this content this machine carries at so many frames a second."""
    return int(USABLE * processors() * 1000 / (fps * cost.frame_ms))


def crowding(settings: Settings) -> str | None:
    """A sentence when these cameras want more than this machine has, and what each would get; None when they fit, or
    nobody has measured here."""
    cost = kept(settings.events.dir).get(USUAL)
    if cost is None:
        return None
    loads = {name: Load(_fps(camera), cost.frame_ms) for name, camera in settings.cameras.items()}
    have = USABLE * processors()
    rates = fair_rates(loads, have)
    slowed = [f"{name} {rates[name]:.1f} of {loads[name].fps:g}" for name in loads if rates[name] < loads[name].fps]
    if not slowed:
        return None
    want = sum(load.processors for load in loads.values())
    return (
        f"{len(loads)} cameras want {want:.1f} processors, this machine has {have:.1f} for them; frames a second that "
        f"would be left on content as in a street: {_some(slowed)}"
    )


def _fps(camera: Camera) -> float:
    return camera.fps or _UNKNOWN_FPS


def _some(names: Iterable[str], most: int = 10) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
