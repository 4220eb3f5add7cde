"""Listening to what agents publish: one connection that comes back by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
import structlog

from agent.mqtt.address import BrokerAddress
from agent.mqtt.dialing import client_for, dial
from config.errors import BrokerError

log = structlog.get_logger()


class Following:
    """`received` gets (topic, payload) of each message on these topics, from a thread of its own, until closed.

    Speaks MQTT 3.1.1 unless the address says otherwise: every broker does, and a listener needs no more. Raises
    BrokerError when the first connection fails or is refused; later losses are met by connecting again.
    """

    def __init__(
        self,
        address: BrokerAddress,
        topics: Sequence[str],
        received: Callable[[str, bytes], None],
        *,
        timeout_s: float = 10.0,
    ) -> None:
        self._address, self._topics, self._received = address, tuple(topics), received
        self._ready = threading.Event()
        self._refusal: str | None = None
        self.connected = False
        client = self._client = client_for(address, timeout_s)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        client.reconnect_delay_set(1, 10)
        dial(client, address)
        if not self._ready.wait(timeout_s):
            self._refusal = f"gave no answer in {timeout_s:g} s"
        if self._refusal is not None:
            self.close()
            raise BrokerError(f"{address} {self._refusal}")

    def close(self) -> None:
        """A second call does nothing."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refuse(f"refuses us: {reason}")
        else:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_subscribe(self, _client: paho.Client, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused and len(refused) == len(self._topics):
            self._refuse(f"does not let us listen: {refused[0]}")
        self.connected = True
        self._ready.set()

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        self.connected = False

    def _refuse(self, reason: str) -> None:
        if not self._ready.is_set():
            self._refusal = reason
            self._ready.set()

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            self._received(message.topic, bytes(message.payload))
        except Exception:  # what others publish must not end the listening
            log.exception("a message could not be shown", topic=message.topic)
