"""The operator's side of the broker: what a box says of its configuration, and a document on its way to it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTProtocolVersion
from pydantic import ValidationError

from agent.mqtt.address import BrokerAddress
from agent.mqtt.dialing import client_for, dial
from agent.mqtt.topics import Topics
from agent.remote.documents import FINAL, Envelope, Reported
from config.errors import BrokerError

_OTHER_VERSION = 0x84


class Operator:
    """A connection to the broker of one box. reported, desired, availability: what the broker keeps of it, None where
    that is nothing."""

    def __init__(self, address: BrokerAddress, topics: Topics, *, timeout_s: float = 10.0) -> None:
        """Connect, and learn what the broker keeps. Raises BrokerError."""
        self._address, self._topics, self._timeout_s = address, topics, timeout_s
        self.reported: Reported | None = None
        self.desired: Envelope | None = None
        self.availability: str | None = None
        self._news: queue.SimpleQueue[Reported] = queue.SimpleQueue()
        self._version = MQTTProtocolVersion.MQTTv311 if address.protocol == "3.1.1" else MQTTProtocolVersion.MQTTv5
        try:
            self._client = self._connect()
        except _OtherVersion:
            self._version = MQTTProtocolVersion.MQTTv311
            self._client = self._connect()
        # The broker sends what it keeps before it answers the next subscription: then all of it is here.
        for topic in (topics.reported, topics.desired, topics.availability, topics.status):
            self._subscribe(topic)

    def publish(self, payload: bytes, *, retain: bool) -> None:
        """To `config/desired`, as far as the broker's acknowledgement. Raises BrokerError when it refuses."""
        refusals: list[str] = []

        def published(_client: paho.Client, _data: Any, _mid: int, reason: Any, _properties: Any) -> None:
            if reason.is_failure:
                refusals.append(str(reason))

        self._client.on_publish = published
        info = self._client.publish(self._topics.desired, payload, qos=1, retain=retain)
        try:
            info.wait_for_publish(self._timeout_s)
        except (RuntimeError, ValueError) as error:
            raise BrokerError(f"{self._address}: can't publish: {error}") from None
        if not info.is_published():
            raise BrokerError(f"{self._address} did not acknowledge it in {self._timeout_s:g} s")
        if refusals:
            raise BrokerError(f"{self._address} does not take {self._topics.desired}: {refusals[0]}")

    def reports(self, name: str, *, first_s: float, all_s: float) -> Iterator[Reported]:
        """What the box says from now on of the document with this id, to its end. Raises BrokerError when it says
        nothing for `first_s`, or has not come to an end in `all_s`."""
        until, ended = time.monotonic() + first_s, time.monotonic() + all_s
        heard = False
        while True:
            left = (ended if heard else min(until, ended)) - time.monotonic()
            try:
                report = self._news.get(timeout=max(0.0, left))
            except queue.Empty:
                what = f"has not come to an end in {all_s:g} s" if heard else f"has said nothing for {first_s:g} s"
                raise BrokerError(
                    f"{self._topics.device} {what}; the broker keeps the document, and the box takes it when it is back"
                ) from None
            if report.id == name:
                heard = True
                yield report
                if report.state in FINAL:
                    return

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Operator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> paho.Client:
        answered = threading.Event()
        reasons: list[Any] = []

        def connected(_client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            reasons.append(reason)
            answered.set()

        client = client_for(self._address, self._timeout_s, protocol=self._version, reconnects=False)
        client.on_connect, client.on_message = connected, self._take
        client.on_disconnect = lambda *_: answered.set()  # an old broker may just hang up
        dial(client, self._address)
        if answered.wait(self._timeout_s) and reasons and not reasons[0].is_failure:
            return client
        client.loop_stop()
        hung_up = answered.is_set() and not reasons
        if (
            self._address.protocol == "auto"
            and self._version is MQTTProtocolVersion.MQTTv5
            and (hung_up or (reasons and reasons[0].value == _OTHER_VERSION))
        ):
            raise _OtherVersion
        if not reasons:
            what = "hung up" if hung_up else f"gave no answer in {self._timeout_s:g} s"
            raise BrokerError(f"{self._address} {what}")
        raise BrokerError(f"{self._address} refuses us: {reasons[0]}")

    def _subscribe(self, topic: str) -> None:
        done = threading.Event()
        refusals: list[str] = []

        def subscribed(_client: paho.Client, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
            refusals.extend(str(reason) for reason in reasons if reason.is_failure)
            done.set()

        self._client.on_subscribe = subscribed
        self._client.subscribe(topic, 1)
        if not done.wait(self._timeout_s):
            raise BrokerError(f"{self._address} gave no answer in {self._timeout_s:g} s")
        if refusals:
            raise BrokerError(f"{self._address} does not let us read {topic}: {refusals[0]}")

    def _take(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        """On paho's thread. What is no document of ours is passed over: anybody may write there who may publish."""
        try:
            if message.topic == self._topics.availability:
                self.availability = message.payload.decode("utf-8", "replace")
            elif message.topic == self._topics.desired:
                self.desired = Envelope.model_validate_json(message.payload) if message.payload else None
            elif message.topic == self._topics.reported:
                self.reported = Reported.model_validate_json(message.payload) if message.payload else None
                if self.reported is not None and not message.retain:
                    self._news.put(self.reported)
        except ValidationError:
            return


class _OtherVersion(Exception):
    """The broker speaks MQTT 3.1.1 only."""
