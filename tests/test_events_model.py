"""The published documents: their schemas stay as they are, and every document survives the way over the wire."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.events.model import (
    EVENT,
    Anomaly,
    AnyNews,
    Condition,
    EventType,
    Health,
    RuleAlert,
    SemanticChange,
    Severity,
    event,
    json_schemas,
    new_id,
)

GOLDEN = Path(__file__).parent / "golden" / "event-schemas.json"


def _essence(schema: Any) -> Any:
    """Without prose, and without what pydantic versions write differently."""
    if isinstance(schema, list):
        return [_essence(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    repeated = ("enum", "type") if "const" in schema else ()
    prose = [key for key in ("title", "description") if isinstance(schema.get(key), str)]
    return {key: _essence(value) for key, value in schema.items() if key not in (*prose, *repeated)}


def test_schemas_are_those_that_subscribers_know() -> None:
    """Write them anew with STILLWATCH_WRITE_GOLDEN=1 when a change is meant, and say so in the changelog."""
    now = _essence(json_schemas())
    if os.environ.get("STILLWATCH_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert now == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_every_field_of_the_contract_is_always_there() -> None:
    contract = {"v", "id", "kind", "type", "seq", "ts", "frame_ts", "device", "camera", "frame_size", "region", "zones"}
    contract |= {"score", "severity", "text", "pending", "media", "evidence", "replayed", "age_s", "degraded"}
    for name in ("anomaly", "rule", "semantic_change", "health"):
        assert contract <= set(json_schemas()[name]["required"])


_boxes = st.lists(st.tuples(*[st.integers(0, 8192)] * 4), max_size=4).map(tuple)
_common = {
    "camera": st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    "frame_ts": st.none()
    | st.datetimes(
        min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.timezones()
    ),  # any zone must come out as UTC
    "frame_size": st.none() | st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
    "regions": _boxes,
    "score": st.none() | st.floats(0, 1e6),
    "severity": st.sampled_from(Severity),
    "text": st.text(alphabet=st.characters(), max_size=50),
    "evidence": st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
}
_news = st.one_of(
    st.builds(Anomaly, **_common),
    st.builds(RuleAlert, **_common, rule=st.just("visitor"), ask=st.text(max_size=20)),
    st.builds(SemanticChange, **_common, distance=st.floats(0, 2)),
    st.builds(Health, **_common, condition=st.sampled_from(Condition)),
)


@settings(max_examples=50, deadline=None)
@given(_news, st.sampled_from(EventType), st.timedeltas(timedelta(0), timedelta(days=40000)))
def test_an_event_comes_out_of_json_as_it_went_in(news: AnyNews, kind: EventType, since: timedelta) -> None:
    told = event(news, event_id=new_id(), type=kind, ts=datetime(1970, 1, 1, tzinfo=timezone.utc) + since, device="box")
    wire = told.model_dump_json()
    document = json.loads(wire)
    assert EVENT.validate_json(wire) == told
    assert document["ts"].endswith("Z") and len(document["ts"]) == len("2026-01-31T12:00:00.250Z")
    assert document["region"] == (document["regions"][0] if document["regions"] else None)


def test_text_of_a_model_can_be_sent_whatever_it_holds() -> None:
    told = Anomaly(camera="front", text="half a \ud83d surrogate")
    assert json.loads(told.model_dump_json())["text"] == "half a ? surrogate"


@pytest.mark.parametrize(
    "wrong", [{"score": float("nan")}, {"regions": [(0, 0, -1, 1)]}, {"frame_ts": datetime(2026, 1, 1)}, {"colour": 1}]
)
def test_a_wrong_field_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Anomaly(camera="front", **wrong)


@given(st.lists(st.integers(0, 2**47), min_size=2, max_size=20))
def test_ids_sort_by_the_millisecond_and_are_unique(milliseconds: list[int]) -> None:
    ids = [new_id(now_ns=lambda ms=ms: ms * 1_000_000) for ms in milliseconds]  # type: ignore[misc]
    assert len(set(ids)) == len(ids)
    by_id = [ms for _, ms in sorted(zip(ids, milliseconds, strict=True))]
    assert by_id == sorted(milliseconds)


def test_severity_ranks_rise() -> None:
    ranks = [severity.rank for severity in (Severity.INFO, Severity.LOW, Severity.MEDIUM, Severity.HIGH)]
    assert ranks == sorted(set(ranks))
