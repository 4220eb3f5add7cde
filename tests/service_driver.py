"""An agent whose loops can be made to hang: `service_driver.py FILE ARGUMENTS…` runs `stillwatch ARGUMENTS…`.

A loop named in FILE hangs the next time it comes by, once: it moves FILE away, with the moment it did (monotonic s).
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from functools import wraps
from pathlib import Path
from typing import Any

LOOPS = {
    "capture cam1": "agent.capture.ring:Ring.put",
    "frames cam1": "agent.watching:CameraWatch.see",
    "describing 0": "agent.describing:DescribingThread._say",
    "events": "agent.events.outbox:Outbox.append",
    "evidence": "agent.evidence.archive:Archive._do",
    "mqtt": "agent.mqtt.exchange:Exchange.step",
    "mqtt network": "agent.mqtt.session:Session._on_publish",
    "main": "agent.states:StateTeller.tell",
    "watchdog": "agent.service.watchdog:Watchdog._look",
    "encode cam1": "agent.evidence.encoding:FrameFeed._encode",
    "rules": "agent.rules.asking:Asking._answer",
    "remote configuration": "agent.remote.desk:RemoteConfig._work",
    "command-0": "agent.mqtt.commands:CommandDesk._obey",
    "describer": "agent.describer.server:VisionServer._pause",
    "apply": "agent.applying.journal:Journal.stage",
}
"""What each loop calls in every round, or with everything it is given."""
_SHARED = ("command-0",)
"""Several threads call that; they are called like their loops."""


def begin_file(file: Path) -> Path:
    return file.with_suffix(".begun")


def _prepare(loop: str, place: str, file: Path) -> None:
    module, _, path = place.partition(":")
    owner, name = path.split(".")
    kind = getattr(importlib.import_module(module), owner)
    original = getattr(kind, name)

    @wraps(original)
    def maybe_hang(*args: Any, **kwargs: Any) -> Any:
        mine = loop not in _SHARED or threading.current_thread().name == loop
        if mine and file.exists() and file.read_text() == loop:
            half = file.with_suffix(".half")
            half.write_text(str(time.monotonic()))
            file.unlink()
            half.replace(begin_file(file))
            while True:
                time.sleep(3600)
        return original(*args, **kwargs)

    setattr(kind, name, maybe_hang)


def main() -> None:
    file = Path(sys.argv[1])
    sys.path.insert(0, str(Path(__file__).parents[1]))
    for loop, place in LOOPS.items():
        _prepare(loop, place, file)
    from agent.cli import command

    sys.argv = ["stillwatch", *sys.argv[2:]]
    command()


if __name__ == "__main__":
    main()
