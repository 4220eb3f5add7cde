"""What people may ask of rules and cameras over MQTT, and what the broker keeps of rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from agent.camera import Camera
from agent.mqtt.client import MqttLink
from agent.mqtt.commands import Handler
from agent.mqtt.topics import Topics
from agent.questions.answering import Answering
from agent.rules.book import RuleBook
from agent.rules.commanding import RuleCommands

_ANSWERS_EVERY_S = 10.0
"""Where nothing but probabilities has changed, they are told so often."""


class Attending:
    """For all cameras of one agent."""

    def __init__(
        self,
        cameras: Mapping[str, Camera],
        book: RuleBook,
        topics: Topics,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cameras, self._topics, self._monotonic = cameras, topics, monotonic
        self._told: dict[str, tuple[object, float]] = {}
        self._rules, self._answering = RuleCommands(cameras, book, topics.device), Answering(cameras)

    @property
    def handlers(self) -> dict[str, Handler]:
        """By the name of the command."""
        return {"ask": self._answering.ask, "rules": self._rules.rules}

    def tell(self, link: MqttLink) -> None:
        """Have the broker keep where the rules stand. Never waits."""
        for name, camera in self._cameras.items():
            state, now = self._rules.state(camera), self._monotonic()
            essence = [rule.model_copy(update={"answer": None}) for rule in state.rules]
            before, told_s = self._told.get(name, (None, 0.0))
            if essence != before or now - told_s >= _ANSWERS_EVERY_S:
                self._told[name] = essence, now
                link.keep(self._topics.rules(name), state.model_dump_json())
