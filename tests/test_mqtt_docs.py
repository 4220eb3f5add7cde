"""docs/mqtt.md shows what is really published."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agent.events.model import (
    Anomaly,
    AnomalyEvent,
    AnswerPart,
    BoxStatus,
    CameraRulesState,
    CameraState,
    CommandResult,
    Condition,
    EventForm,
    EventType,
    Health,
    HealthEvent,
    RuleEvent,
    SemanticChange,
    SemanticChangeEvent,
    event,
)
from agent.mqtt.topics import Topics

PAGE = (Path(__file__).parents[1] / "docs/mqtt.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"^### `([^`]+)`\n(?:[^`#]*?\n)?```json\n(.*?)\n```", re.MULTILINE | re.DOTALL)
EXAMPLES = dict(EXAMPLE.findall(PAGE))
DOCUMENTS: dict[str, type[BaseModel]] = {
    "<cam>/alert": AnomalyEvent,
    "<cam>/change": SemanticChangeEvent,
    "<cam>/health": HealthEvent,
    "<cam>/event": EventForm,
    "<cam>/state": CameraState,
    "<cam>/rules": CameraRulesState,
    "status": BoxStatus,
    "cmd/<name>/result": CommandResult,
    "cmd/<name>/part": AnswerPart,
}


def test_there_is_an_example_of_every_document() -> None:
    assert set(EXAMPLES) == set(DOCUMENTS)


@pytest.mark.parametrize("topic", DOCUMENTS)
def test_an_example_is_a_document_as_it_is_sent(topic: str) -> None:
    shown: dict[str, Any] = json.loads(EXAMPLES[topic])
    parsed = DOCUMENTS[topic].model_validate(shown)
    assert list(parsed.model_dump(mode="json").items()) == list(shown.items())


def test_every_field_of_events_is_explained() -> None:
    table = PAGE[PAGE.index("| field | meaning |") : PAGE.index("## States")]
    explained = {
        name for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    events = (AnomalyEvent, RuleEvent, SemanticChangeEvent, HealthEvent)
    published = {name for model in events for name in model.model_fields}
    assert explained == published


def test_the_topics_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*\| (yes|no) \| (\d) \|$", PAGE, re.MULTILINE)
    topics = Topics("R", "D")
    published = {
        topics.event(event(news, event_id="i", type=EventType.NEW, ts=datetime.now(timezone.utc), device="D"))
        for news in (
            Anomaly(camera="C"),
            SemanticChange(camera="C", distance=0.0),
            Health(camera="C", condition=Condition.LOST),
        )
    }
    published |= {topics.state("C"), topics.camera_availability("C"), topics.analysis_state("C")}
    published |= {topics.motion("C"), topics.event_form("C"), topics.image("C", "N")}
    published |= {topics.availability, topics.status, topics.result("N"), topics.part("N"), topics.rules("C")}
    published |= {topics.desired, topics.reported}
    taken = {"R/D/cmd/N", "R/D/C/analysis/set"}
    assert all(topics.command(topic) is not None for topic in taken)
    told = {"R/D/" + topic.replace("<cam>", "C").replace("<name>", "N") for topic, _, _ in rows}
    assert told == published | taken
