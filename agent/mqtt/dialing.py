"""What every connection to a broker begins with."""

from __future__ import annotations

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.mqtt.address import BrokerAddress
from config.errors import BrokerError


def client_for(
    address: BrokerAddress,
    timeout_s: float,
    *,
    protocol: MQTTProtocolVersion | None = None,
    reconnects: bool = True,
) -> paho.Client:
    """A client that is not connected yet. protocol: what the address says when None, MQTT 3.1.1 where it leaves that
    open: every broker speaks it."""
    if protocol is None:
        protocol = MQTTProtocolVersion.MQTTv5 if address.protocol == "5" else MQTTProtocolVersion.MQTTv311
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=protocol, reconnect_on_failure=reconnects)
    client.connect_timeout = timeout_s
    identify(client, address)
    return client


def identify(client: paho.Client, address: BrokerAddress) -> None:
    """Give it the user and the TLS of the address."""
    if address.user is not None:
        client.username_pw_set(address.user, address.password)
    if address.tls:
        client.tls_set_context(address.tls_context())


def dial(client: paho.Client, address: BrokerAddress) -> None:
    """Connect and let its thread run. Raises BrokerError when nobody is there."""
    try:
        client.connect(address.host, address.port)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BrokerError(f"can't reach {address}: {reason}") from None
    client.loop_start()
