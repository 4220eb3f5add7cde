"""The MQTT link: keeps one connection to the broker, and through it tells events, states and answers to commands.

One thread owns the connection: it connects (with back-off and jitter, for ever), announces what is so, sends what is
due and settles what was acknowledged. Everything else only puts things down and wakes it.

    CONNECT ─▶ subscribe ─▶ states (availability, cameras, status) ─▶ events from the outbox, oldest first ─▶ … ─▶ lost
       ▲                                                                                                       │
       └───────────────────────────── back-off, jitter, the reason in `state` ─────────────────────────────────┘
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import TracebackType

import structlog

from agent.capture.backoff import Backoff
from agent.events.model import BoxStatus, CameraState
from agent.events.outbox import Outbox
from agent.mqtt.address import BrokerAddress
from agent.mqtt.answers import Answers
from agent.mqtt.commands import CommandDesk, Handler, Reply
from agent.mqtt.delivery import Delivery
from agent.mqtt.exchange import Exchange
from agent.mqtt.session import Incoming, OtherVersion, Refused, Session, Will
from agent.mqtt.states import Payload, StateBoard
from agent.mqtt.topics import OFF, OFFLINE, ON, ONLINE, Topics
from agent.service.progress import Beat
from config.errors import BrokerError

log = structlog.get_logger()

_STATE_INTERVAL_S = 1.0
_STALLED_S = 30.0
_STEADY_S = 10.0
_TOO_OFTEN = 3
_GOODBYE_S = 0.5
_CONNECTING_S = 60.0
"""The look-up of a name can't be interrupted, and without a network it takes long."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """How the link is. trouble: sentences for `degraded` and doctor, empty when all is well. connections: how often a
    connection was made."""

    connected: bool
    trouble: tuple[str, ...]
    in_flight: int
    connections: int


Listener = Callable[[Incoming], None]


class MqttLink:
    """Starts connecting at once and in the background; `wait_connected` for who must know. Close it, or the broker will
    say `offline` for us only after `will_delay_s`.

    handlers: by command name; `analysis` is called for `<camera>/analysis/set` with arguments `camera` (a text, as it
    came) and `enabled` (true or false), and shall then call `set_analysis`. retracted: called, from the link's thread,
    with each topic that the broker has forgotten for us. loop: gives each thread a heart. Raises ConfigError for files
    that hold no certificate.
    """

    def __init__(
        self,
        address: BrokerAddress,
        topics: Topics,
        outbox: Outbox,
        *,
        handlers: Mapping[str, Handler] | None = None,
        delivery: Delivery | None = None,
        answers: Answers | None = None,
        backoff: Backoff | None = None,
        will_delay_s: int = 5,
        connect_timeout_s: float = 10.0,
        retracted: Callable[[str], None] = lambda _topic: None,
        monotonic: Callable[[], float] = time.monotonic,
        loop: Callable[[str], Beat] = Beat,
    ) -> None:
        if address.tls:
            address.tls_context()
        self._address = address
        self._speaks = "3.1.1" if address.protocol == "3.1.1" else "5"
        self._version_known = address.protocol != "auto"
        self._listeners: dict[str, Listener] = {}
        self._topics = topics
        self._delivery = delivery or Delivery(outbox)
        self._backoff = backoff or Backoff(limit_s=30.0)
        self._will = Will(topics.availability, OFFLINE, will_delay_s)
        self._connect_timeout_s = connect_timeout_s
        self._monotonic = monotonic
        self._states = StateBoard(retracted)
        self._states.put(topics.availability, ONLINE)
        self._cameras: set[str] = set()
        self._answers = answers or Answers(monotonic)
        self._desk = CommandDesk(topics, handlers or {}, send=self._reply, loop=loop)
        self._wake = threading.Event()
        self._stop_by: float | None = None
        self._changed = threading.Condition()
        self._connected = False
        self._failure: str | None = None
        self._refused = False
        self._exchange: Exchange | None = None
        self._connections = 0
        self._short_lived = 0
        self._beat = monotonic()
        self._heart, self._network = loop("mqtt"), loop("mqtt network")
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    @property
    def state(self) -> LinkState:
        """Never waits."""
        denied = dict(self._exchange.denied) if self._exchange is not None else {}
        trouble = [f"the broker does not take {topic}: {reason}" for topic, reason in sorted(denied.items())]
        trouble += self._delivery.trouble
        if self._failure is not None:
            trouble.insert(0, self._failure)
        if self._short_lived >= _TOO_OFTEN:
            trouble.append(
                f"{self._address} keeps ending our connection; "
                f"does another agent use the device id {self._topics.device}?"
            )
        return LinkState(self._connected, tuple(trouble), self._delivery.in_flight, self._connections)

    def alive(self, within_s: float = 60.0) -> bool:
        """Does the link's thread run and make progress? For a watchdog; a broker that is away is no reason for no."""
        return self._thread.is_alive() and self._monotonic() - self._beat < within_s

    def wait_connected(self, timeout_s: float) -> None:
        """Wait for the first connection. Raises BrokerError at once when the broker refuses us, and when it can't be
        reached in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._refused, timeout_s)
            if not self._connected:
                raise BrokerError(self._failure or f"{self._address} gave no answer in {timeout_s:g} s")

    def notify(self) -> None:
        """Something new is in the outbox."""
        self._wake.set()

    def set_camera_state(self, state: CameraState) -> None:
        """The latest wins; at most one a second goes out."""
        self._put(self._topics.state(state.camera), state.model_dump_json(), interval_s=_STATE_INTERVAL_S)

    def set_camera_available(self, camera: str, available: bool) -> None:
        self._cameras.add(camera)
        self._put(self._topics.camera_availability(camera), ONLINE if available else OFFLINE)

    def set_analysis(self, camera: str, enabled: bool) -> None:
        self._put(self._topics.analysis_state(camera), ON if enabled else OFF)

    def set_motion(self, camera: str, moving: bool) -> None:
        self._put(self._topics.motion(camera), ON if moving else OFF)

    def keep(self, topic: str, payload: Payload) -> None:
        """Have the broker keep this, retained; the latest wins. An empty text takes it back."""
        self._put(topic, payload)

    def tell(self, topic: str, payload: str) -> None:
        """Like `keep`, but what was told before goes out too, in order."""
        self._states.put(topic, payload, each=True)
        self._wake.set()

    def repeat(self, topics: Collection[str]) -> None:
        """Send what was last given to `keep` on these topics once more."""
        self._states.repeat(topics)
        self._wake.set()

    def listen(self, topic: str, listener: Listener) -> None:
        """Have each message on this topic, retained ones included, given to `listener`, which must not wait: it is
        called on the network's thread."""
        self._listeners[topic] = listener
        self._wake.set()

    def forget_camera(self, camera: str) -> None:
        """This camera is no more: what the broker keeps of its states is taken back."""
        self._cameras.discard(camera)
        for topic in self._topics.kept(camera):
            self._put(topic, "")

    def set_status(self, status: BoxStatus) -> None:
        """The latest wins; at most one a second goes out."""
        self._put(self._topics.status, status.model_dump_json(), interval_s=_STATE_INTERVAL_S)

    def _put(self, topic: str, payload: Payload, *, interval_s: float = 0.0) -> None:
        self._states.put(topic, payload, interval_s=interval_s)
        self._wake.set()

    def _reply(self, reply: Reply) -> None:
        self._answers.add(reply)
        self._wake.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits as far as time allows, say `offline`, disconnect. What could not be sent stays in the outbox.
        A second call does nothing."""
        if self._stop_by is None:
            self._stop_by = self._monotonic() + max(0.0, timeout_s - _GOODBYE_S)
            self._wake.set()
        self._thread.join(timeout_s + 0.5)

    def __enter__(self) -> MqttLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while self._stop_by is None:
            try:
                self._connect_and_serve()
            except OtherVersion as error:
                self._tell(str(error), refused=error.certain and self._address.protocol != "auto")
                if self._try_other_version(error):
                    continue
            except Refused as error:
                self._tell(str(error), refused=True)
            except BrokerError as error:
                self._tell(str(error))
            except Exception as error:  # the link must outlive whatever one connection brings
                log.exception("mqtt link failed, starting over")
                self._tell(f"mqtt failed: {type(error).__name__}: {error}")
            self._pause(self._backoff.next())
        self._heart.idle()

    def _take(self, message: Incoming) -> None:
        """On the network's thread."""
        listener = self._listeners.get(message.topic)
        if listener is not None:
            listener(message)
        else:
            self._desk.take(message)

    def _try_other_version(self, error: OtherVersion) -> bool:
        """Whether to try again at once, with the other version of MQTT. A broker that once took this version and is
        silent now is a broker in trouble."""
        if self._address.protocol != "auto" or (self._version_known and not error.certain):
            return False
        self._version_known = False
        self._speaks = "5" if self._speaks == "3.1.1" else "3.1.1"
        return self._speaks == "3.1.1"

    def _pause(self, seconds: float) -> None:
        until = self._monotonic() + seconds
        while self._stop_by is None and (left := until - self._beat_now()) > 0:
            self._wake.wait(min(left, 1.0))
            self._wake.clear()

    def _beat_now(self, ahead_s: float = 0.0) -> float:
        self._beat = self._monotonic()
        self._heart.beat(ahead_s)
        return self._beat

    def _tell(self, failure: str | None, *, connected: bool = False, refused: bool = False) -> None:
        if failure is not None and failure != self._failure:
            log.warning("mqtt is not connected", reason=failure)
        with self._changed:
            self._failure, self._connected, self._refused = failure, connected, refused
            self._changed.notify_all()

    def _connect_and_serve(self) -> None:
        """One connection, from its beginning to its end. Raises BrokerError with the reason, unless we ended it."""
        self._beat_now(_CONNECTING_S)
        session = Session(
            replace(self._address, protocol=self._speaks),
            f"stillwatch-{self._topics.device}",
            will=self._will,
            wake=self._wake.set,
            incoming=self._take,
            timeout_s=self._connect_timeout_s,
            beat=self._network,
        )
        if self._stop_by is not None:  # closed while it was connecting: the outbox may be gone
            session.close(0.1)
            return
        begun, exchange = self._beat_now(), None
        try:
            self._version_known = True
            for topic in self._topics.commands:
                session.subscribe(topic)
            exchange = self._exchange = Exchange(session, self._delivery, self._states, self._answers, begun)
            self._connections += 1
            self._tell(None, connected=True)
            log.info("mqtt connected", broker=str(self._address))
            self._serve(session, exchange, begun)
        finally:
            if exchange is not None:
                exchange.lost()
            self._delivery.lost()
            session.abort()
            self._short_lived += 1
        self._tell(None)

    def _serve(self, session: Session, exchange: Exchange, begun: float) -> None:
        heard: set[str] = set()
        while True:
            self._wake.clear()
            stop_by = self._stop_by  # read before the step: what was told before `close` goes out in it
            now = self._beat_now()
            if now - begun > _STEADY_S:
                self._backoff.reset()
                self._short_lived = 0
            for topic in [*self._listeners.keys() - heard]:
                session.subscribe(topic, retained=True)
                heard.add(topic)
            exchange.step(now)
            if not session.alive:
                raise BrokerError(f"{self._address}: {session.why_ended}")
            if exchange.waiting_s(now) > _STALLED_S:
                raise BrokerError(f"{self._address} has not acknowledged anything for {_STALLED_S:g} s")
            due_in = exchange.due_in(now)
            nothing_left = not exchange.unacknowledged and (due_in is None or now + due_in > (stop_by or now))
            if stop_by is not None and (nothing_left or now >= stop_by):
                break
            until = now + 1.0 if stop_by is None else stop_by
            self._wake.wait(max(0.0, min(until - now, 1.0 if due_in is None else due_in)))
        self._say_goodbye(session, exchange)

    def _say_goodbye(self, session: Session, exchange: Exchange) -> None:
        for camera in self._cameras:
            self._states.put(self._topics.camera_availability(camera), OFFLINE)
        self._states.put(self._topics.availability, OFFLINE)
        until = self._monotonic() + _GOODBYE_S
        while session.alive and (now := self._beat_now()) < until:
            self._wake.clear()
            exchange.step(now, events=False)
            if not exchange.unacknowledged and self._states.due_in(now) is None:
                break
            self._wake.wait(min(0.1, until - now))
        session.close(max(0.1, until - self._monotonic()))
