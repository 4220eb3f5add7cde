"""`stillwatch ask --config`: a question to a running agent, its answer as it comes, and what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from agent.events.model import AnswerPart
from agent.mqtt.address import BrokerAddress
from agent.mqtt.asking import ask_agent
from agent.mqtt.topics import Topics
from config.errors import ConfigError, StillwatchError
from config.identity import device_id
from config.settings import Settings

_PATIENCE_S = 45.0


@dataclass(frozen=True, slots=True)
class Answer:
    """text: the whole answer. lines: when it was so, and what is missing."""

    text: str
    lines: Sequence[str]


def running_agent(settings: Settings, config: Path) -> tuple[BrokerAddress, Topics]:
    """Where the agent that runs with this configuration can be asked. Raises ConfigError."""
    if settings.mqtt is None:
        raise ConfigError(f"{config}: no mqtt.url: without a broker an agent can't be asked")
    from agent.mqtt.address import BrokerAddress

    topics = Topics(settings.mqtt.root, device_id(settings.device.id, settings.events.dir))
    return BrokerAddress.of(settings.mqtt), topics


def ask_running(
    settings: Settings, config: Path, question: str, camera: str | None, last_s: float, heard: Callable[[str], None]
) -> Answer:
    """heard: called with the words about now as they come. Raises ConfigError, BrokerError, and StillwatchError with
    what the agent has against the question."""
    address, topics = running_agent(settings, config)
    arguments: dict[str, JsonValue] = {"question": question, "last_s": last_s}
    if camera is not None:
        arguments["camera"] = camera

    def told(part: AnswerPart) -> None:
        if part.at is None:
            heard(part.text)

    answer = ask_agent(address, topics, "ask", arguments, timeout_s=_PATIENCE_S, heard=told)
    if not answer.ok:
        raise StillwatchError(answer.error or "the agent gave no reason")
    evidence = answer.result.get("evidence")
    found = [each for each in evidence if isinstance(each, dict)] if isinstance(evidence, list) else []
    degraded = answer.result.get("degraded")
    text = str(answer.result.get("text", ""))
    notes = [str(note) for note in degraded if note != text] if isinstance(degraded, list) else []
    return Answer(text, [*(map(_line, found) if last_s else ()), *notes])


def _line(evidence: dict[str, JsonValue]) -> str:
    """`12:00:03–12:00:07  Yes. (97 %)`, on the clock of this machine."""
    at, until = (_clock(str(evidence[key])) for key in ("at", "until"))
    probability = evidence.get("probability")
    sure = f" ({probability:.0%} yes)" if isinstance(probability, float) else ""
    return f"{at if at == until else f'{at}–{until}'}  {evidence['text']}{sure}"


def _clock(stamp: str) -> str:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).astimezone().strftime("%H:%M:%S")
