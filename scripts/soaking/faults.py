"""What happens to the agent, its broker and its configuration while it runs."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from agent.mqtt.broker import LocalBroker
from scripts.soaking.process import Agent

FAULTS: Mapping[str, int] = {"kill": 1, "cut": 3, "restart": 2, "freeze": 1, "slow": 2, "configure": 3, "spoil": 1}
"""How often each happens against the others."""


class Faults:
    """One after another, about every `every_s`: each once, then at random. The agent is left alone for `settle_s` of
    each life before it is killed again, or memory would never be seen to settle."""

    def __init__(
        self, agent: Agent, broker: LocalBroker, config: Path, random: Random, *, every_s: float, settle_s: float
    ) -> None:
        self._agent, self._broker, self._config, self._random = agent, broker, config, random
        self._every_s, self._settle_s = every_s, settle_s
        self._good: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        self._over = threading.Event()
        self.happened: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Everything is well again after this."""
        self._over.set()
        self._thread.join()
        self._agent.send(signal.SIGCONT)
        self._write(json.dumps(self._good))

    def _run(self) -> None:
        order = self._random.sample([*FAULTS], len(FAULTS))
        while not self._over.wait(self._random.uniform(0.5, 1.5) * self._every_s):
            what = order.pop() if order else self._random.choices([*FAULTS], [*FAULTS.values()])[0]
            if what == "kill" and self.happened["kill"] and self._agent.age_s() < self._settle_s:
                continue
            getattr(self, f"_{what}")()
            self.happened[what] += 1

    def _kill(self) -> None:
        self._agent.send(signal.SIGKILL)

    def _cut(self) -> None:
        """The broker goes and comes back at once; what it knew is on its disk."""
        self._broker.stop()
        self._broker.start()

    def _restart(self) -> None:
        """The broker is away for a while."""
        self._broker.stop()
        self._over.wait(self._random.uniform(3, 20))
        self._broker.start()

    def _freeze(self) -> None:
        """The machine sleeps."""
        self._agent.send(signal.SIGSTOP)
        self._over.wait(self._random.uniform(1, 8))
        self._agent.send(signal.SIGCONT)

    def _slow(self) -> None:
        """A third of the processor, for a while."""
        for _ in range(self._random.randint(10, 30)):
            self._agent.send(signal.SIGSTOP)
            self._over.wait(0.2)
            self._agent.send(signal.SIGCONT)
            if self._over.wait(0.1):
                return

    def _configure(self) -> None:
        """Another zone and another rate; the camera that has them is built anew."""
        name = self._random.choice([*self._good["cameras"]])
        edge = self._random.randint(60, 300)
        camera = {**self._good["cameras"][name], "zones": {"all": [[0, 0], [edge, 0], [edge, 170], [0, 170]]}}
        self._write(json.dumps({**self._good, "cameras": {**self._good["cameras"], name: camera}}))

    def _spoil(self) -> None:
        """A file that no agent can use."""
        self._write("cameras: {front: {source: [" if self._random.random() < 0.5 else '{"camera": {}}')

    def _write(self, text: str) -> None:
        self._config.write_text(text, encoding="utf-8")
        self._agent.send(signal.SIGHUP)
