"""Where everything is published: `<root>/<device>/…`.

Devices and cameras are one level each, `[A-Za-z0-9_-]{1,64}`. What the broker is to keep (retained) is how things are;
what happened is not kept. The agent subscribes to `cmd/+` and `+/analysis/set` only, which match nothing that it
publishes itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.events.model import AnyEvent
from config.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ROOT = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_RESERVED = frozenset({"availability", "status", "cmd", "config", "metrics"})
_EVENT_TOPIC = {"anomaly": "alert", "rule": "alert", "semantic_change": "change", "health": "health"}

ONLINE, OFFLINE = "online", "offline"
ON, OFF = "ON", "OFF"
ANALYSIS = "analysis"
EVENT_FORM = "event"
IMAGES = ALERT_IMAGE, ASKED_IMAGE = "alert", "snapshot"
"""Pictures that are published where that is wanted: of the last alert, and the one that was asked for last."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one device. Raises ConfigError for a device or root that can't be part of a topic."""

    root: str
    device: str

    def __post_init__(self) -> None:
        if not _ROOT.fullmatch(self.root):
            raise ConfigError(f"mqtt.root: expected levels of letters, digits, _ or -, found {self.root!r}")
        if not _NAME.fullmatch(self.device):
            raise ConfigError(f"device.id: expected 1 to 64 letters, digits, _ or -, found {self.device!r}")

    @property
    def base(self) -> str:
        return f"{self.root}/{self.device}"

    @property
    def availability(self) -> str:
        return f"{self.base}/availability"

    @property
    def status(self) -> str:
        return f"{self.base}/status"

    def camera(self, camera: str, leaf: str) -> str:
        """`<base>/<camera>/<leaf>`. Raises ConfigError for a camera that can't be a level, or is one of ours."""
        if not _NAME.fullmatch(camera) or camera in _RESERVED:
            taken = ", ".join(sorted(_RESERVED))
            raise ConfigError(
                f"cameras.{camera}: expected 1 to 64 letters, digits, _ or -, and none of {taken}, found {camera!r}"
            )
        return f"{self.base}/{camera}/{leaf}"

    def camera_availability(self, camera: str) -> str:
        return self.camera(camera, "availability")

    def state(self, camera: str) -> str:
        return self.camera(camera, "state")

    def analysis_state(self, camera: str) -> str:
        return self.camera(camera, "analysis/state")

    def motion(self, camera: str) -> str:
        return self.camera(camera, "motion")

    def image(self, camera: str, name: str) -> str:
        return self.camera(camera, f"image/{name}")

    def kept(self, camera: str) -> tuple[str, ...]:
        """All that the broker keeps of a camera, pictures excepted."""
        states = (self.state(camera), self.camera_availability(camera), self.analysis_state(camera))
        return (*states, self.motion(camera), self.rules(camera))

    def event_form(self, camera: str) -> str:
        """`<camera>/event`: each telling of any kind once more, in Home Assistant's form."""
        return self.camera(camera, EVENT_FORM)

    def event(self, event: AnyEvent) -> str:
        """`<camera>/alert`, `change` or `health`, by the event's kind."""
        return self.camera(event.camera, _EVENT_TOPIC[event.kind])

    @property
    def desired(self) -> str:
        """Configuration from afar; the agent listens here where its owner wants that."""
        return f"{self.base}/config/desired"

    @property
    def reported(self) -> str:
        """What became of it."""
        return f"{self.base}/config/reported"

    def result(self, command: str) -> str:
        return f"{self.base}/cmd/{command}/result"

    def part(self, command: str) -> str:
        return f"{self.base}/cmd/{command}/part"

    def rules(self, camera: str) -> str:
        return self.camera(camera, "rules")

    @property
    def commands(self) -> tuple[str, str]:
        """What the agent subscribes to."""
        return f"{self.base}/cmd/+", f"{self.base}/+/{ANALYSIS}/set"

    def command(self, topic: str) -> tuple[str, str | None] | None:
        """`cmd/ask` → ("ask", None); `front/analysis/set` → ("analysis", "front"); None for any other topic."""
        match topic.removeprefix(f"{self.base}/").split("/"):
            case ["cmd", name]:
                return name, None
            case [camera, "analysis", "set"]:
                return ANALYSIS, camera
        return None

    def owns(self, topic: str) -> bool:
        """Is it one of this device's own topics?"""
        return topic == self.base or topic.startswith(f"{self.base}/")
