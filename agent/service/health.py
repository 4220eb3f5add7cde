"""How the agent is, for people and programs: in words, and as yes or no with reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pydantic import JsonValue

from agent.capture.worker import CaptureState, Phase
from agent.service.progress import Progress

if TYPE_CHECKING:
    from agent.events.outbox import Outbox
    from agent.mqtt.client import MqttLink

READY_DEPTH = 10_000
"""Events that may wait while the broker is away before the agent calls itself not ready."""
_DELIVERING = (Phase.STREAMING, Phase.ENDED)


class Watched(Protocol):
    """What tells how its capture is; `agent.camera.Camera` is one."""

    @property
    def capture(self) -> CaptureState: ...


class Answer(NamedTuple):
    """What a probe is told. well: the yes or no."""

    well: bool
    document: dict[str, JsonValue]


class Health:
    """From any thread; never waits. cameras: may change while the agent runs. link: as it is now, None = no broker."""

    def __init__(
        self,
        progress: Progress,
        cameras: Mapping[str, Watched],
        outbox: Outbox,
        link: Callable[[], MqttLink | None] = lambda: None,
    ) -> None:
        self._progress, self._cameras, self._outbox, self._link = progress, cameras, outbox, link

    def alive(self) -> Answer:
        """Does every loop go on? Cameras and brokers that are away are no reason for no."""
        late = self._progress.late()
        loops: dict[str, JsonValue] = {name: round(silent_s, 1) for name, silent_s in self._progress.loops.items()}
        return Answer(not late, {"alive": not late, "reasons": [str(one) for one in late], "silent_s": loops})

    def ready(self) -> Answer:
        """Do all cameras give frames, and is what they bring delivered, or at least safe?"""
        states = self._states()
        reasons = [
            f"camera {name}: {state.phase.value}{f': {state.reason}' if state.reason else ''}"
            for name, state in states.items()
            if state.phase not in _DELIVERING
        ]
        link = self._link()
        if link is not None and not link.state.connected and self._outbox.depth > READY_DEPTH:
            reasons.append(f"broker: not connected, and {self._outbox.depth} events wait")
        phases: dict[str, JsonValue] = {name: state.phase.value for name, state in states.items()}
        return Answer(not reasons, {"ready": not reasons, "reasons": [*reasons], "cameras": phases})

    def status(self) -> str:
        """Such as `2 cameras, 1 lost; broker connected; 0 events wait`."""
        states = self._states()
        lost = sum(state.phase in (Phase.RECONNECTING, Phase.FAILED) for state in states.values())
        cameras = f"{len(states)} camera{'' if len(states) == 1 else 's'}{f', {lost} lost' if lost else ''}"
        depth = self._outbox.depth
        waiting = f"{depth} event{'' if depth == 1 else 's'} wait{'s' if depth == 1 else ''}"
        link = self._link()
        broker = "no broker" if link is None else f"broker {'connected' if link.state.connected else 'away'}"
        return f"{cameras}; {broker}; {waiting}"

    def _states(self) -> dict[str, CaptureState]:
        return {name: camera.capture for name, camera in dict(self._cameras).items()}
