"""Every document that Stillwatch publishes, as a frozen model with a JSON Schema.

    News ──(an id, a number, a time)──▶ Event        what happened, not retained
    CameraState, BoxStatus                           how things are, retained
    CommandResult                                    the answer to a command

A part that sees something says it as `News` (`Anomaly`, `RuleAlert`, `SemanticChange`, `Health`); the event book turns
it into an `Event`. An event is told whole each time: `new`, any number of `update`s that complete it, and `end` where
it has one, all under one id and each under the camera's next `seq`. Boxes are `[x, y, w, h]` in source pixels beside
`frame_size`.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
)

from engines.plan import Mode


def _utc_milliseconds(stamp: datetime) -> datetime:
    utc = stamp.astimezone(timezone.utc)
    return utc.replace(microsecond=utc.microsecond // 1000 * 1000)


def rfc3339(stamp: datetime) -> str:
    """`2026-01-31T12:00:00.250Z`."""
    return stamp.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _well_formed(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


Timestamp = Annotated[
    AwareDatetime,
    AfterValidator(_utc_milliseconds),
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Text = Annotated[str, AfterValidator(_well_formed)]
Pixels = Annotated[int, Field(ge=0)]
Box = tuple[Pixels, Pixels, Pixels, Pixels]
Size = tuple[Pixels, Pixels]


class Severity(str, Enum):
    """How much an event matters; `rank` rises with it. A full outbox drops the lowest first."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class EventType(str, Enum):
    """Which telling of an event this is."""

    NEW = "new"
    UPDATE = "update"
    END = "end"


class Condition(str, Enum):
    """What can be wrong with a camera."""

    LOST = "lost"
    FROZEN = "frozen"
    COVERED = "covered"
    MOVED = "moved"
    DEGRADED = "degraded"


class Document(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )


class News(Document):
    """What a part of the agent has to say of one camera. Raises pydantic's ValidationError on a wrong field.

    regions: the most important box first. pending: what will follow in an update, e.g. `text`. evidence: the named
    numbers that led here. degraded: what is missing from this event and why, as sentences.
    """

    camera: str
    frame_ts: Timestamp | None = None
    frame_size: Size | None = None
    regions: tuple[Box, ...] = ()
    zones: tuple[str, ...] = ()
    score: Annotated[float, Field(ge=0)] | None = None
    severity: Severity = Severity.INFO
    text: Text = ""
    pending: tuple[str, ...] = ()
    evidence: dict[str, JsonValue] = Field(default_factory=dict)
    degraded: tuple[Text, ...] = ()


class Anomaly(News):
    """Something looks or moves as it never did here."""

    kind: Literal["anomaly"] = "anomaly"
    severity: Severity = Severity.MEDIUM


class RuleAlert(News):
    """A question that people have this camera asked was answered with yes. rule: its name. score: probability of yes,
    0 to 1."""

    kind: Literal["rule"] = "rule"
    severity: Severity = Severity.MEDIUM
    rule: str
    ask: Text


class SemanticChange(News):
    """The scene means something else than when it was last described. new_text, gone_text: the sentences of after_text
    that before_text does not have, and the other way round."""

    kind: Literal["semantic_change"] = "semantic_change"
    before_text: Text = ""
    after_text: Text = ""
    new_text: Text = ""
    gone_text: Text = ""
    distance: Annotated[float, Field(ge=0)]


class Health(News):
    """A camera can't be trusted now; `end` says that it can again."""

    kind: Literal["health"] = "health"
    severity: Severity = Severity.MEDIUM
    condition: Condition


class Media(Document):
    """Files beside the event, relative to the folder of events; null where there is none.

    snapshot: the picture with the regions outlined; clean: the same as it was. clip_at_s: how far into the clip that
    picture is.
    """

    snapshot: str | None = None
    clean: str | None = None
    clip: str | None = None
    clip_at_s: Annotated[float, Field(ge=0)] | None = None

    def with_files_of(self, other: Media) -> Media:
        """This, with what the other has."""
        return self.model_copy(update=other.model_dump(exclude_none=True))


class _Heading(Document):
    v: Literal[1] = 1
    id: str
    kind: str
    type: EventType
    seq: Annotated[int, Field(ge=0)]
    ts: Timestamp
    device: str


class Event(News, _Heading):
    """One telling of an event.

    seq: rises by one with every telling of this camera, over restarts too; 0 when the disk refused to keep it.
    ts: when this was said; frame_ts: when the picture was captured. region: the first of `regions`.
    dedupe_key: the same for events that a person would want one notification of. duration_s: from onset to end, null
    until it has ended. acknowledged: when somebody said that they have seen it.
    replayed: sent late (`age_s` seconds after `ts`) or by a later run of the agent than the one that saw it.
    """

    region: Box | None = None
    dedupe_key: str
    duration_s: Annotated[float, Field(ge=0)] | None = None
    acknowledged: Timestamp | None = None
    media: Media = Media()
    replayed: bool = False
    age_s: Annotated[float, Field(ge=0)] = 0.0


class AnomalyEvent(Anomaly, Event):
    """`<camera>/alert`."""

    kind: Literal["anomaly"] = "anomaly"


class RuleEvent(RuleAlert, Event):
    """`<camera>/alert`."""

    kind: Literal["rule"] = "rule"


class SemanticChangeEvent(SemanticChange, Event):
    """`<camera>/change`."""

    kind: Literal["semantic_change"] = "semantic_change"


class HealthEvent(Health, Event):
    """`<camera>/health`."""

    kind: Literal["health"] = "health"


AnyNews = Anomaly | RuleAlert | SemanticChange | Health
AnyEvent = Annotated[AnomalyEvent | RuleEvent | SemanticChangeEvent | HealthEvent, Field(discriminator="kind")]
EVENT: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)


def event(news: AnyNews, *, event_id: str, type: EventType, ts: datetime, device: str) -> AnyEvent:
    """One telling of `news`, not numbered yet (`seq` 0)."""
    heading = {"id": event_id, "type": type, "seq": 0, "ts": ts, "device": device, "dedupe_key": _dedupe_key(news)}
    region = news.regions[0] if news.regions else None
    return EVENT.validate_python({**dict(news), **heading, "region": region})


def _dedupe_key(news: AnyNews) -> str:
    """Camera and kind; with the condition, the rule, or else the first zone that it touches."""
    if isinstance(news, Health):
        matter: str | None = news.condition.value
    else:
        matter = news.rule if isinstance(news, RuleAlert) else next(iter(news.zones), None)
    return "/".join(part for part in (news.camera, news.kind, matter) if part)


class EventForm(Document):
    """`<camera>/event`: a telling as Home Assistant's event entity reads it. The fields are those of the event."""

    event_type: str
    v: Literal[1] = 1
    id: str
    kind: str
    type: EventType
    seq: Annotated[int, Field(ge=0)]
    ts: Timestamp
    camera: str
    frame_ts: Timestamp | None = None
    score: Annotated[float, Field(ge=0)] | None = None
    severity: Severity
    text: Text = ""
    zones: tuple[str, ...] = ()
    dedupe_key: str
    duration_s: Annotated[float, Field(ge=0)] | None = None
    replayed: bool = False
    age_s: Annotated[float, Field(ge=0)] = 0.0
    snapshot: str | None = None
    clip: str | None = None


class CameraState(Document):
    """`<camera>/state`: how things are in front of one camera, for dashboards. Retained.

    motion: mean flow per patch / 20 px, 0 to 1. learning: the anomaly model does not judge yet. fidelity: mean cosine
    with a full encode, null until measured. mode: how the last frame was handled, null before the first. muted_until:
    no alerts and changes of this camera until then.
    """

    v: Literal[1] = 1
    ts: Timestamp
    device: str
    camera: str
    enabled: bool
    motion: Annotated[float, Field(ge=0, le=1)] = 0.0
    anomaly: bool = False
    score: Annotated[float, Field(ge=0)] | None = None
    learning: bool = True
    text: Text = ""
    mode: Mode | None = None
    fps: Annotated[float, Field(ge=0)] = 0.0
    fidelity: float | None = None
    muted_until: Timestamp | None = None


class DescriberStatus(Document):
    """The vision server that pictures of this box go to.

    server: `host:port`. breaker: open = it fails and is left alone for a while. requests, failures: since the start.
    left_this_hour: requests that the budget still allows.
    """

    server: Text
    model: Text
    breaker: Literal["closed", "open", "half_open"]
    requests: Annotated[int, Field(ge=0)]
    failures: Annotated[int, Field(ge=0)]
    left_this_hour: Annotated[int, Field(ge=0)]


class FrameTimes(Document):
    """Milliseconds that a camera's frames took: median, 95th percentile and longest."""

    p50: Annotated[float, Field(ge=0)]
    p95: Annotated[float, Field(ge=0)]
    max: Annotated[float, Field(ge=0)]


class PowerStatus(Document):
    """Power and heat of the box.

    step: how much less is done because of them, 0 = nothing less. reason: what made it so, empty at 0. watts: of the
    whole board. hottest, celsius: the zone nearest to its limit. throttled: what firmware holds back now.
    """

    step: Annotated[int, Field(ge=0)] = 0
    reason: Text = ""
    watts: Annotated[float, Field(ge=0)] | None = None
    hottest: Text | None = None
    celsius: float | None = None
    throttled: tuple[Text, ...] = ()


class BoxStatus(Document):
    """`status`: the agent itself. Retained. boot_id changes and seq restarts with every start of the agent.

    backend: what encodes, `cpu` or `tensorrt`. degraded: what does not work as it should, as sentences. queue_depth:
    messages that wait for the broker. dropped: what was lost, by cause. describer: the vision server that gets
    pictures; null: no pixels leave the box. frame_ms: what frames have taken since the start, by camera. memory: bytes
    by part, of all cameras together; `resident` is the whole process. power: null on a machine without sensors.
    """

    v: Literal[1] = 1
    ts: Timestamp
    device: str
    version: str
    boot_id: str
    seq: Annotated[int, Field(ge=0)]
    uptime_s: Annotated[float, Field(ge=0)]
    backend: str
    degraded: tuple[Text, ...] = ()
    queue_depth: Annotated[int, Field(ge=0)] = 0
    dropped: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    describer: DescriberStatus | None = None
    frame_ms: dict[str, FrameTimes] = Field(default_factory=dict)
    memory: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    power: PowerStatus | None = None


class CommandResult(Document):
    """`cmd/<name>/result`, or the response topic of the command. error: a sentence, null when ok."""

    v: Literal[1] = 1
    ts: Timestamp
    device: str
    command: str
    request_id: str | None = None
    ok: bool
    result: dict[str, JsonValue] = Field(default_factory=dict)
    error: Text | None = None


class AnswerPart(Document):
    """`cmd/<name>/part`, or the response topic of the command: a piece of an answer that is being made. part: counts
    from 0. at: the moment in front of the camera that it is about, null for now."""

    v: Literal[1] = 1
    ts: Timestamp
    device: str
    command: str
    request_id: str | None = None
    part: Annotated[int, Field(ge=0)]
    text: Text
    at: Timestamp | None = None


class RuleStatus(Document):
    """One rule of a camera. source: `file`, the configuration, or `command`. watching: its schedule lets it. answer:
    probability of yes, null before the first. alert: one is open."""

    name: str
    ask: Text
    zone: str | None
    threshold: Annotated[float, Field(gt=0, lt=1)]
    severity: Severity
    source: Literal["file", "command"]
    watching: bool
    answer: Annotated[float, Field(ge=0, le=1)] | None
    alert: bool


class CameraRulesState(Document):
    """`<camera>/rules`: the rules of one camera and where they stand. Retained. degraded: why they are not asked."""

    v: Literal[1] = 1
    device: str
    camera: str
    rules: tuple[RuleStatus, ...]
    degraded: tuple[Text, ...] = ()


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema of every published document as it is sent, by name."""
    adapters: dict[str, TypeAdapter[Any]] = {
        "event": EVENT,
        **{
            name: TypeAdapter(model)
            for name, model in {
                "anomaly": AnomalyEvent,
                "rule": RuleEvent,
                "semantic_change": SemanticChangeEvent,
                "health": HealthEvent,
                "event_form": EventForm,
                "camera_state": CameraState,
                "status": BoxStatus,
                "command_result": CommandResult,
                "answer_part": AnswerPart,
                "rules": CameraRulesState,
            }.items()
        },
    }
    return {name: adapter.json_schema(mode="serialization") for name, adapter in adapters.items()}


def new_id(now_ns: Callable[[], int] = time.time_ns, random_bits: Callable[[int], int] = secrets.randbits) -> str:
    """A UUID version 7 (RFC 9562): unique, and ids sort by the millisecond they were made in."""
    milliseconds = now_ns() // 1_000_000 & (1 << 48) - 1
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | random_bits(12) << 64 | 2 << 62 | random_bits(62)))


def made_at_s(event_id: str) -> float:
    """When an id of `new_id` was made, seconds since the epoch."""
    return (uuid.UUID(event_id).int >> 80) / 1000
