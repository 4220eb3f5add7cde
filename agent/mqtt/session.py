"""One connection to a broker, from CONNECT to its end; never used again after that.

paho can reconnect by itself, but then it also sends what was in flight once more, as it was, however old by now; it
waits without jitter, retries refusals in silence, and when its thread dies it still says that it is connected. So a
connection is one paho client with its network thread; when it ends, by whatever cause, the next one starts clean and
takes what was not acknowledged from the outbox. Callbacks run on paho's thread: they note what happened and return.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.mqtt.address import BrokerAddress
from agent.mqtt.dialing import identify
from agent.service.progress import Beat
from config.errors import BrokerError

log = structlog.get_logger()
P = ParamSpec("P")

PACKET_OVERHEAD = 64
"""Bytes of a PUBLISH besides topic and payload, more than ever needed."""
_KEEPALIVE_S = 30
_SESSION_EXPIRY_S = 60
_LARGEST = 2**20
"""Bytes of a packet that we take: a broker that speaks MQTT 5 does not deliver larger ones."""
_FAILURE = 0x80
_UNSPECIFIED = "Unspecified error"
_OTHER_VERSION = "Unsupported protocol version"


class Refused(BrokerError):
    """The broker answered, with a no."""


class OtherVersion(Refused):
    """The broker does not speak this version of MQTT. certain: it says so; else it ended the connection in silence."""

    def __init__(self, message: str, *, certain: bool) -> None:
        super().__init__(message)
        self.certain = certain


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us, retained, when we are gone without a word for `delay_s` (MQTT 5) or at once."""

    topic: str
    payload: str
    delay_s: int


@dataclass(frozen=True, slots=True)
class Ack:
    """The broker's answer to one publish. code: MQTT 5 reason code, 0 with 3.1.1; `refused` from 0x80 on."""

    mid: int
    code: int
    reason: str

    @property
    def refused(self) -> bool:
        return self.code >= _FAILURE


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that came to us. reply_to, correlation: MQTT 5 response topic and correlation data."""

    topic: str
    payload: bytes
    retained: bool
    reply_to: str | None
    correlation: bytes | None


class _Client(paho.Client):
    """Says when its network thread ends, which paho itself does not, and that it goes on: about once a second."""

    def __init__(self, ended: Callable[[], None], beat: Beat, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tell_end = ended
        self._beat = beat

    def forget(self) -> None:
        """Tell nobody any more."""
        self.on_connect = self.on_disconnect = self.on_publish = self.on_message = self.on_subscribe = None
        self._tell_end = _nothing

    def loop_misc(self) -> MQTTErrorCode:
        self._beat.beat()
        return super().loop_misc()

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        try:
            return super().loop_forever(timeout, retry_first_connection)
        finally:
            self._tell_end()


def _nothing() -> None: ...


def _guarded(callback: Callable[P, None]) -> Callable[P, None]:
    """An exception in a callback would end paho's thread."""

    @wraps(callback)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(*args, **kwargs)
        except Exception:
            log.exception("mqtt callback failed", callback=callback.__name__)

    return run


class Session:
    """An open connection. `wake` is called (on paho's thread) when there is something to look at: an acknowledgement, a
    message, the end. Publishing and closing are for one thread.

    receive_maximum: unacknowledged publishes that the broker takes. max_packet: bytes, None = any.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        *,
        will: Will,
        wake: Callable[[], None],
        incoming: Callable[[Incoming], None],
        timeout_s: float = 10.0,
        beat: Beat | None = None,
    ) -> None:
        """Connect and wait for the broker's answer. Raises BrokerError when there is none, or a refusal."""
        self._address = address
        self._wake = wake
        self._incoming = incoming
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._beat = beat or Beat("mqtt network")
        self._acks: deque[Ack] = deque()
        self._subscribing: dict[int, str] = {}
        self._refused_subscriptions: deque[tuple[int, str]] = deque()
        self.receive_maximum = 65535
        self.max_packet: int | None = None
        self.refusal: str | None = None
        self._why_ended: str | None = None
        self._v5 = address.protocol != "3.1.1"
        self._other_version = False
        self._client = self._make_client(client_id, will)
        try:
            self._connect(will, timeout_s)
        except BaseException:
            self.abort()
            raise

    def _make_client(self, client_id: str, will: Will) -> _Client:
        client = _Client(
            self._on_end,
            self._beat,
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self._v5 else True,
            protocol=MQTTProtocolVersion.MQTTv5 if self._v5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.suppress_exceptions = True
        identify(client, self._address)
        delay = None
        if self._v5:
            delay = _properties(PacketTypes.WILLMESSAGE, WillDelayInterval=will.delay_s)
        client.will_set(will.topic, will.payload, qos=1, retain=True, properties=delay)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        return client

    def _connect(self, will: Will, timeout_s: float) -> None:
        client = self._client
        client.connect_timeout = timeout_s
        try:
            if self._v5:
                # The session outlives the connection for as long as the will is held back, else the will is not.
                keep = _properties(
                    PacketTypes.CONNECT,
                    SessionExpiryInterval=_SESSION_EXPIRY_S + will.delay_s,
                    MaximumPacketSize=_LARGEST,
                )
                client.connect(self._address.host, self._address.port, _KEEPALIVE_S, clean_start=False, properties=keep)
            else:
                client.connect(self._address.host, self._address.port, _KEEPALIVE_S)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise BrokerError(f"can't reach {self._address}: {reason}") from None
        client.loop_start()
        answered = self._answered.wait(timeout_s)
        version = "5" if self._v5 else "3.1.1"
        if self.refusal is not None and self._other_version:
            raise OtherVersion(f"{self._address} does not speak MQTT {version}", certain=True)
        if self.refusal is not None:
            raise Refused(f"{self._address} refuses us: {self.refusal}")
        if self._ended.is_set():
            message = f"{self._address} ended the connection without an answer; is it an MQTT {version} broker?"
            raise OtherVersion(message, certain=False)
        if not answered:
            raise BrokerError(f"{self._address} gave no answer in {timeout_s:g} s; is it an MQTT {version} broker?")

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    @property
    def correlates(self) -> bool:
        """Whether correlation data can be sent."""
        return self._v5

    @property
    def why_ended(self) -> str:
        return self._why_ended or "connection lost"

    def publish(self, topic: str, payload: str | bytes, *, retain: bool, correlation: bytes | None = None) -> int:
        """Send text with QoS 1, a JPEG with QoS 0; returns the packet id that its `Ack` will carry. Raises ValueError
        for an invalid topic."""
        properties = None
        if self._v5:
            properties = _properties(PacketTypes.PUBLISH, PayloadFormatIndicator=int(isinstance(payload, str)))
            if isinstance(payload, bytes):
                properties.ContentType = "image/jpeg"
            elif payload.startswith("{"):
                properties.ContentType = "application/json"
            if correlation is not None:
                properties.CorrelationData = correlation
        qos = int(isinstance(payload, str))
        return self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties).mid

    def subscribe(self, topic: str, *, retained: bool = False) -> None:
        """With QoS 1; with MQTT 5 without what is retained there, unless it is asked for."""
        if self._v5:
            handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if retained else SubscribeOptions.RETAIN_DO_NOT_SEND
            _, mid = self._client.subscribe(topic, options=SubscribeOptions(qos=1, retainHandling=handling))
        else:
            _, mid = self._client.subscribe(topic, qos=1)
        if mid is not None:
            self._subscribing[mid] = topic

    def acks(self) -> list[Ack]:
        """The acknowledgements that came since the last call."""
        found = []
        while self._acks:
            found.append(self._acks.popleft())
        return found

    def refused_subscription(self) -> tuple[str, str] | None:
        """(topic, reason) of a subscription that the broker does not let us have, once."""
        if not self._refused_subscriptions:
            return None
        mid, reason = self._refused_subscriptions.popleft()
        return self._subscribing.get(mid, "a topic"), reason

    def close(self, timeout_s: float) -> None:
        """Say goodbye: the broker drops the will."""
        if self._v5:
            self._client.disconnect(properties=_properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0))
        else:
            self._client.disconnect()
        self._ended.wait(timeout_s)
        self.abort()

    def abort(self) -> None:
        """End the connection, without a word if it has not ended: then the broker will publish the will."""
        end = self._client.socket()
        if isinstance(end, socket.socket):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except (OSError, ValueError):
                log.debug("the connection was closed already")
        # Without this circle paho's sockets are closed at once, not when the garbage collector comes by.
        self._client.forget()

    @_guarded
    def _on_connect(
        self, _client: paho.Client, _data: Any, _flags: paho.ConnectFlags, code: ReasonCode, found: Properties | None
    ) -> None:
        if code.is_failure:
            self.refusal = str(code)
            self._other_version = code == _OTHER_VERSION
        self.receive_maximum = int(getattr(found, "ReceiveMaximum", 65535))
        self.max_packet = getattr(found, "MaximumPacketSize", None)
        self._answered.set()

    @_guarded
    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: Any,
        flags: paho.DisconnectFlags,
        code: ReasonCode,
        _found: Properties | None,
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._why_ended = f"the broker ended the connection: {code}"
        elif code != _UNSPECIFIED and self._why_ended is None:
            self._why_ended = str(code)

    @_guarded
    def _on_publish(
        self, _client: paho.Client, _data: Any, mid: int, code: ReasonCode, _found: Properties | None
    ) -> None:
        self._acks.append(Ack(mid, int(code.value), str(code)))
        self._wake()

    @_guarded
    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        reply_to = getattr(message.properties, "ResponseTopic", None)
        correlation = getattr(message.properties, "CorrelationData", None)
        self._incoming(Incoming(message.topic, bytes(message.payload), message.retain, reply_to, correlation))
        self._wake()

    @_guarded
    def _on_subscribe(
        self, _client: paho.Client, _data: Any, mid: int, codes: list[ReasonCode], _found: Properties | None
    ) -> None:
        self._refused_subscriptions.extend((mid, str(code)) for code in codes if code.is_failure)
        self._wake()

    def _on_end(self) -> None:
        self._beat.idle()
        self._ended.set()
        self._answered.set()
        self._wake()


def _properties(packet: int, **values: int) -> Properties:
    """MQTT 5 properties of one kind of packet."""
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
