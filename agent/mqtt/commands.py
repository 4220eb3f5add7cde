"""Commands: from a topic and a hostile payload to a handler, and always an answer.

`cmd/<name>` takes a JSON object (or nothing); `request_id` is echoed, the rest are the handler's arguments.
`<camera>/analysis/set` takes `ON` or `OFF`. The answer goes to the MQTT 5 response topic when there is one outside our
own topics, else to `cmd/<name>/result`. Retained commands are orders of another day: they are ignored.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import count

import structlog
from pydantic import JsonValue, TypeAdapter, ValidationError

from agent.events.model import AnswerPart, CommandResult
from agent.mqtt.session import Incoming
from agent.mqtt.topics import ANALYSIS, Topics
from agent.service.progress import Beat
from config.errors import StillwatchError

log = structlog.get_logger()

_MAX_PAYLOAD = 64 * 1024
_MAX_REQUEST_ID = 128
_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class CommandError(StillwatchError):
    """A command that can't be done as it was given; the message is the answer."""


Tell = Callable[[str, datetime | None], None]
Allow = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Command:
    """One command, checked as far as its form goes. camera, enabled: of `<camera>/analysis/set` only. tell: sends a
    piece of the answer ahead of the result: words, and the moment that they are about. allow: says that what follows is
    known to take up to so many seconds; who does not say so is late sooner."""

    name: str
    arguments: Mapping[str, JsonValue]
    request_id: str | None = None
    tell: Tell = lambda _text, _at: None
    allow: Allow = lambda _seconds: None

    def only(self, *known: str) -> None:
        """Refuse arguments that would be passed over in silence. Raises CommandError."""
        unknown = sorted(self.arguments.keys() - set(known))
        if unknown:
            raise CommandError(f"{self.name}: unknown argument {unknown[0]!r:.80}; expected {', '.join(known)}")

    def text(self, key: str, default: str | None = None) -> str:
        """The argument, which must be a text. Raises CommandError."""
        value = self.arguments.get(key, default)
        if not isinstance(value, str) or not value:
            raise CommandError(f"{self.name}: expected a text for {key!r}, found {value!r:.80}")
        return value


Handler = Callable[[Command], Mapping[str, JsonValue]]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer on its way. named: it tells which request it is for. part: a piece; the whole comes after it."""

    topic: str
    payload: str
    correlation: bytes | None
    named: bool
    part: bool


class CommandDesk:
    """Takes what arrives and runs it on its own threads, one handler call each; a handler may take its time, and says
    what is wrong by raising CommandError (or any StillwatchError). `send` is called with each answer. loop: gives each
    thread a heart."""

    def __init__(
        self,
        topics: Topics,
        handlers: Mapping[str, Handler],
        *,
        send: Callable[[Reply], None],
        threads: int = 2,
        waiting: int = 16,
        loop: Callable[[str], Beat] = Beat,
    ) -> None:
        self._topics = topics
        self._handlers = dict(handlers)
        self._send = send
        self._queue: queue.Queue[Incoming] = queue.Queue(waiting)
        for number in range(threads):
            beat = loop(f"command-{number}")
            threading.Thread(target=self._run, name=beat.name, args=(beat,), daemon=True).start()

    def take(self, message: Incoming) -> None:
        """Never waits: a message beyond those that wait is answered with an error."""
        if message.retained:
            log.warning("a retained command is ignored; publish commands without retain", topic=message.topic)
            return
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._answer(message, self._result(message, None, error="busy: too many commands wait; try again"))

    def _run(self, beat: Beat) -> None:
        while True:
            beat.idle()
            message = self._queue.get()
            beat.beat()
            try:
                self._answer(message, self._obey(message, beat.beat))
            except Exception:  # a message that breaks the answer itself must not end the desk
                log.exception("a command could not be answered", topic=message.topic)

    def _obey(self, message: Incoming, allow: Allow) -> CommandResult:
        request_id: str | None = None
        try:
            command = self._read(message)
            request_id = command.request_id
            handler = self._handlers.get(command.name)
            if handler is None:
                known = ", ".join(sorted(self._handlers.keys() - {ANALYSIS})) or "none"
                raise CommandError(f"unknown command {command.name!r:.80}; known: {known}")
            numbers = count()
            tell: Tell = lambda text, at: self._part(message, request_id, next(numbers), text, at)  # noqa: E731
            command = replace(command, tell=tell, allow=allow)
            return self._result(message, request_id, result=dict(handler(command)))
        except StillwatchError as error:
            return self._result(message, request_id, error=str(error))
        except Exception as error:  # a request enters here
            log.exception("a command failed", topic=message.topic)
            return self._result(message, request_id, error=f"internal error: {type(error).__name__}; see the log")

    def _read(self, message: Incoming) -> Command:
        """Raises CommandError for anything that is not a command."""
        named = self._topics.command(message.topic)
        if named is None:
            raise CommandError(f"{message.topic}: not a command topic")
        name, camera = named
        if camera is not None:
            wanted = message.payload.strip().upper()
            if wanted not in (b"ON", b"OFF"):
                raise CommandError(f"{message.topic}: expected ON or OFF, found {message.payload[:40]!r}")
            return Command(ANALYSIS, {"camera": camera, "enabled": wanted == b"ON"})
        if name == ANALYSIS:
            raise CommandError(f"{name}: publish ON or OFF to <camera>/{ANALYSIS}/set")
        if len(message.payload) > _MAX_PAYLOAD:
            raise CommandError(f"{name}: {len(message.payload)} bytes; expected at most {_MAX_PAYLOAD}")
        try:
            arguments = _OBJECT.validate_json(message.payload) if message.payload.strip() else {}
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise CommandError(f"{name}: expected a JSON object or nothing: {first}") from None
        request_id = arguments.pop("request_id", None)
        if not (request_id is None or (isinstance(request_id, str) and len(request_id) <= _MAX_REQUEST_ID)):
            raise CommandError(f"{name}: expected a text of at most {_MAX_REQUEST_ID} characters for 'request_id'")
        return Command(name, arguments, request_id)

    def _result(
        self,
        message: Incoming,
        request_id: str | None,
        *,
        result: dict[str, JsonValue] | None = None,
        error: str | None = None,
    ) -> CommandResult:
        name, _ = self._topics.command(message.topic) or ("unknown", None)
        return CommandResult(
            ts=datetime.now(timezone.utc),
            device=self._topics.device,
            command=name,
            request_id=request_id,
            ok=error is None,
            result=result or {},
            error=error,
        )

    def _part(self, message: Incoming, request_id: str | None, number: int, text: str, at: datetime | None) -> None:
        name, _ = self._topics.command(message.topic) or ("unknown", None)
        part = AnswerPart(
            ts=datetime.now(timezone.utc),
            device=self._topics.device,
            command=name,
            request_id=request_id,
            part=number,
            text=text,
            at=at,
        )
        self._reply(message, self._topics.part(name), part)

    def _answer(self, message: Incoming, result: CommandResult) -> None:
        self._reply(message, self._topics.result(result.command), result)

    def _reply(self, message: Incoming, otherwise: str, said: CommandResult | AnswerPart) -> None:
        """To the topic that the message asks for, where it is not one of ours."""
        topic = message.reply_to
        if not topic or any(sign in topic for sign in "+#\0") or topic.startswith("$") or self._topics.owns(topic):
            topic = otherwise
        named = said.request_id is not None or message.correlation is not None
        self._send(Reply(topic, said.model_dump_json(), message.correlation, named, part=isinstance(said, AnswerPart)))
