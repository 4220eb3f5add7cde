"""One command to a running agent through its broker, and the answer."""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import paho.mqtt.client as paho
from pydantic import JsonValue, ValidationError

from agent.events.model import AnswerPart, CommandResult
from agent.mqtt.address import BrokerAddress
from agent.mqtt.dialing import client_for, dial
from agent.mqtt.topics import Topics
from config.errors import BrokerError


def ask_agent(
    address: BrokerAddress,
    topics: Topics,
    command: str,
    arguments: Mapping[str, JsonValue],
    *,
    timeout_s: float = 10.0,
    heard: Callable[[AnswerPart], None] = lambda _part: None,
) -> CommandResult:
    """Publish `cmd/<command>` and wait for its result. heard: called, from this thread, with each part of the answer
    that comes before it.

    Raises BrokerError when the broker can't be reached, refuses us, or no agent answers in time.
    """
    mine = uuid.uuid4().hex
    documents: dict[str, type[CommandResult] | type[AnswerPart]] = {
        topics.result(command): CommandResult,
        topics.part(command): AnswerPart,
    }
    ready = threading.Event()
    refusals: list[str] = []
    answers: queue.SimpleQueue[CommandResult | AnswerPart] = queue.SimpleQueue()

    def connected(client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            refusals.append(str(reason))
            ready.set()
        else:
            client.subscribe([(topic, 1) for topic in documents])

    def subscribed(_client: paho.Client, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        refusals.extend(str(reason) for reason in reasons if reason.is_failure)
        ready.set()

    def received(_client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            answer: CommandResult | AnswerPart = documents[message.topic].model_validate_json(message.payload)
        except ValidationError:
            return  # somebody else's words on our topic
        if answer.request_id == mine:
            answers.put(answer)

    client = client_for(address, timeout_s)
    client.on_connect, client.on_subscribe, client.on_message = connected, subscribed, received
    dial(client, address)
    try:
        if not ready.wait(timeout_s):
            raise BrokerError(f"{address} gave no answer in {timeout_s:g} s")
        if refusals:
            raise BrokerError(f"{address} refuses us: {refusals[0]}")
        document = json.dumps({**arguments, "request_id": mine})
        client.publish(f"{topics.base}/cmd/{command}", document, qos=1)
        until = time.monotonic() + timeout_s
        while True:
            try:
                answer = answers.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                reason = f"no agent `{topics.device}` answered on {address} within {timeout_s:g} s"
                raise BrokerError(reason) from None
            if isinstance(answer, CommandResult):
                return answer
            heard(answer)
    finally:
        client.disconnect()
        client.loop_stop()
