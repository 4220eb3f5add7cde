"""What can be configured: one frozen pydantic model, exactly the keys that this version acts on.

Read it with `config.loading.load`. The page for people is docs/configuration.md; a test keeps the two together.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from config.schedule import Window, known_timezone
from config.values import Bytes, Identifier, Polygon, SecretReference


def _check_windows(times: list[str]) -> list[str]:
    for text in times:
        try:
            Window.of(text)
        except ValueError as error:
            found = {"reason": str(error), "text": text}
            raise PydanticCustomError("window", "{reason}, found {text}", found) from None
    return times


def _check_timezone(name: str) -> str:
    if not known_timezone(name):
        raise PydanticCustomError("timezone", "expected a time zone that this machine knows, such as Europe/Berlin")
    return name


def _check_share(text: str) -> str:
    """`K/N`: K of the last N answers."""
    k, slash, n = text.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n) <= 20):
        raise PydanticCustomError("share", "expected K/N, such as 4/5: K of the last N answers, N at most 20")
    return text


def _check_broker(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
        raise PydanticCustomError("broker", "expected mqtt://HOST:PORT or mqtts://HOST:PORT")
    try:
        _ = parts.port
    except ValueError:
        raise PydanticCustomError("broker", "expected a port between 1 and 65535") from None
    return url


def _check_server(url: str) -> str:
    wanted = "expected the address of an OpenAI-compatible server, such as http://HOST:8000/v1"
    try:
        parts = urlsplit(url)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:  # of the name, too: UnicodeError is one
        raise PydanticCustomError("server", wanted) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise PydanticCustomError("server", wanted)
    if "@" in parts.netloc:
        raise PydanticCustomError("server", "expected no user or password in the address; say in `key` where it is")
    if "?" in url or "#" in url:
        raise PydanticCustomError("server", "expected an address without ? and #")
    path = parts.path.rstrip("/")
    if path.endswith("/chat/completions"):
        raise PydanticCustomError("server", "expected the address without /chat/completions, which is added")
    return url.rstrip("/")


Profile = Literal["general", "webcam", "conversation", "sports", "movie", "security", "auto"]
BrokerUrl = Annotated[str, AfterValidator(_check_broker)]
ServerUrl = Annotated[str, AfterValidator(_check_server)]
TopicLevels = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")]
PromptText = Annotated[str, Field(min_length=1, max_length=4000)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Device(_Section):
    """The box. Without an id a random one is made once and kept in the state folder."""

    id: Identifier | None = None
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None


class ImageTopics(_Section):
    """Pictures on topics of their own. They leave this machine when, and only when, this section is there. max_bytes:
    of one JPEG; a larger picture is reduced."""

    max_bytes: Annotated[Bytes, Field(ge=10_000, le=10**7)] = 200_000


class Mqtt(_Section):
    """The broker that events go to. Without this section events go to the outbox and to --events-to only.

    discovery: Home Assistant's discovery prefix, by which it finds cameras by itself; null = not announced.
    """

    url: BrokerUrl
    root: TopicLevels = "stillwatch"
    user: Annotated[str, Field(min_length=1)] | None = None
    password: SecretReference | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: SecretReference | None = None
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    discovery: TopicLevels | None = None
    images: ImageTopics | None = None


class Retention(_Section):
    """How long events and their pictures are kept: whichever limit is met first."""

    days: Annotated[float, Field(gt=0, le=36500)] = 14.0
    bytes: Bytes = 5 * 10**9


class Clips(_Section):
    """The clip beside an alert: seconds before and after the frame that decided it.

    encode: make clips of frames where a camera has no packets (rendered scenes, images) or none that may be kept (a
    masked camera); without, such a camera has none.
    """

    pre_s: Annotated[float, Field(ge=0, le=60)] = 5.0
    post_s: Annotated[float, Field(ge=0, le=120)] = 10.0
    encode: bool = True


class Events(_Section):
    """Where events are kept on disk, and for how long. clips: null for none."""

    dir: Path = Path("state")
    retention: Retention = Retention()
    clips: Clips | None = Clips()


class Schedule(_Section):
    """When a rule watches: windows of the week on the clock on the wall of a time zone, this machine's without one."""

    times: Annotated[list[str], Field(min_length=1, max_length=32), AfterValidator(_check_windows)]
    timezone: Annotated[str, AfterValidator(_check_timezone)] | None = None


class Rule(_Section):
    """A question whose answer yes is an alert.

    zone: only what changes in it has the question asked again. of: K of the last N answers must be yes. for_s: for so
    long. clear_s: after so long without, it is over. cooldown_s: after that it is quiet for so long. threshold:
    probability from which an answer is a yes.
    """

    name: Identifier
    ask: Annotated[str, Field(min_length=1, max_length=200)]
    zone: Identifier | None = None
    of: Annotated[str, AfterValidator(_check_share)] = "2/3"
    for_s: Annotated[float, Field(ge=0, le=86400)] = 0.0
    clear_s: Annotated[float, Field(ge=0, le=86400)] = 5.0
    cooldown_s: Annotated[float, Field(ge=0, le=7 * 86400)] = 60.0
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    severity: Literal["info", "low", "medium", "high"] = "medium"
    schedule: Schedule | None = None

    @property
    def k_of_n(self) -> tuple[int, int]:
        k, _, n = self.of.partition("/")
        return int(k), int(n)


MOST_RULES = 16
"""Of one camera: so many questions are read in one run."""


class Camera(_Section):
    """One camera. Coordinates are source pixels.

    capture: who reads it, a process of its own or a thread of the agent; auto: see `agent.building.reads_apart`.
    """

    source: Annotated[str, Field(min_length=1)]
    capture: Literal["auto", "process", "thread"] = "auto"
    credentials: SecretReference | None = None
    fps: Annotated[float, Field(gt=0, le=240)] | None = None
    masks: dict[str, Polygon] = Field(default_factory=dict)
    ignore: dict[str, Polygon] = Field(default_factory=dict)
    zones: dict[Identifier, Polygon] = Field(default_factory=dict)
    rules: Annotated[list[Rule], Field(max_length=MOST_RULES)] = Field(default_factory=list)

    @field_validator("rules")
    @classmethod
    def _fit(cls, rules: list[Rule], info: ValidationInfo) -> list[Rule]:
        check_rules(rules, info.data.get("zones", {}))
        return rules


def check_rules(rules: Sequence[Rule], zones: Container[str]) -> None:
    """Raises PydanticCustomError for rules of one camera that can't stand together."""
    names = [rule.name for rule in rules]
    for rule in rules:
        if names.count(rule.name) > 1:
            raise PydanticCustomError("rules", "two rules are called {name}", {"name": rule.name})
        if rule.zone is not None and rule.zone not in zones:
            where = {"name": rule.name, "zone": rule.zone}
            raise PydanticCustomError("rules", "rule {name}: this camera has no zone {zone}", where)


class Anomaly(_Section):
    """How often normal life may raise an alarm, per camera."""

    false_alarms_per_day: Annotated[float, Field(gt=0, le=100)] = 1.0


class Metrics(_Section):
    """Prometheus metrics on http://127.0.0.1:PORT/metrics; off without a port."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = None


class Limits(_Section):
    """What the agent may take of the machine. memory_mb: without, MemoryHigh of the service where it has one."""

    memory_mb: Annotated[int, Field(ge=100)] | None = None


class Remote(_Section):
    """Configuration over the broker. Without this section none is taken. Never set from afar itself.

    keys: file with the public keys that are trusted. groups: names that documents for many boxes may be addressed to.
    """

    keys: Path | None = None
    require_signature: bool = True
    groups: list[Identifier] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_keys(self) -> Remote:
        if self.require_signature and self.keys is None:
            raise PydanticCustomError("keys", "expected keys: FILE, the public keys that are trusted")
        return self


class DescriberImage(_Section):
    """The picture that is sent. previous: with a change, also the one that was described last."""

    width: Annotated[int, Field(ge=64, le=4096)] = 768
    quality: Annotated[int, Field(ge=10, le=100)] = 85
    previous: bool = True


class DescriberPrompt(_Section):
    """What is asked of one picture, and of the picture described last and the one now."""

    describe: PromptText = (
        "Describe in one or two short, plain sentences what this camera sees: people, vehicles, animals and things, "
        "where they are and what they do. Say only what is visible."
    )
    change: PromptText = (
        "Two pictures of one camera: the first from before, the second from now. Say in one or two short, plain "
        "sentences what has changed and what is there now. Say only what is visible."
    )


class Describer(_Section):
    """A vision server that puts pictures into words. Pictures leave the box when, and only when, this section is there.

    timeout_s: for one description, further tries included. per_hour: requests in any hour, of all cameras together.
    """

    url: ServerUrl
    model: Annotated[str, Field(min_length=1, max_length=512)]
    key: SecretReference | None = None
    timeout_s: Annotated[float, Field(ge=1, le=600)] = 30.0
    per_hour: Annotated[int, Field(ge=1, le=1_000_000)] = 120
    parallel: Annotated[int, Field(ge=1, le=16)] = 1
    max_tokens: Annotated[int, Field(ge=1, le=8192)] = 160
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    image: DescriberImage = DescriberImage()
    prompt: DescriberPrompt = DescriberPrompt()
    fallback: Literal["builtin", "none"] = "builtin"


class Settings(_Section):
    """The whole configuration."""

    device: Device = Device()
    model: Annotated[str, Field(min_length=1)] = "reference"
    profile: Profile = "general"
    fidelity_floor: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    describer: Describer | None = None
    mqtt: Mqtt | None = None
    events: Events = Events()
    cameras: Annotated[dict[Identifier, Camera], Field(min_length=1)]
    anomaly: Anomaly = Anomaly()
    metrics: Metrics = Metrics()
    limits: Limits = Limits()
    remote: Remote | None = None
