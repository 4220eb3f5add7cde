"""What a subscriber got, against what the agent has accepted."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_TOPICS = ("+/+/+/alert", "+/+/+/change", "+/+/+/health")


class Subscriber:
    """Has a session that outlives a restart of the broker, as whoever must miss nothing has."""

    def __init__(self, port: int) -> None:
        self._lock = threading.Lock()
        self._arrived: list[tuple[datetime, dict[str, Any]]] = []
        self._ready = threading.Event()
        client = self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="soak", protocol=paho.MQTTv5)
        client.reconnect_delay_set(1, 2)
        client.on_connect = lambda who, *_: who.subscribe([(topic, 1) for topic in _TOPICS])
        client.on_subscribe = lambda *_: self._ready.set()
        client.on_message = self._note
        keep = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        keep.SessionExpiryInterval = 0xFFFFFFFF
        client.connect("127.0.0.1", port, clean_start=False, properties=keep)
        client.loop_start()
        if not self._ready.wait(30):
            raise TimeoutError("the broker did not take the subscription within 30 s")

    def _note(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        now, document = datetime.now(timezone.utc), json.loads(message.payload)
        with self._lock:
            self._arrived.append((now, document))

    @property
    def arrived(self) -> list[tuple[datetime, dict[str, Any]]]:
        """When, and what."""
        with self._lock:
            return list(self._arrived)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@dataclass(frozen=True, slots=True)
class Accepted:
    """In the outbox: the highest number by camera, and what waits."""

    numbers: Mapping[str, int]
    waiting: frozenset[tuple[str, int]]

    @classmethod
    def read(cls, outbox: Path) -> Accepted:
        """While an agent uses it, or after."""
        with closing(sqlite3.connect(f"{outbox.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            numbers = dict(db.execute("SELECT name, seq FROM camera"))
            waiting = frozenset(db.execute("SELECT camera, seq FROM event WHERE state = 0"))
        return cls(numbers, waiting)


@dataclass(frozen=True, slots=True)
class Tally:
    """accepted: tellings that the outbox numbered. lost: those of them that never came and do not wait. waiting: to be
    sent by the next run. again: deliveries of what had come before, which MQTT's QoS 1 and a crash allow. duplicates:
    what is still there twice once tellings are told apart by `id` and `seq`. disordered: first arrivals after a later
    one of their camera. kinds: events by kind. latencies: when an event arrived, and milliseconds from the capture of
    its frame to then, of what was not replayed."""

    accepted: int
    received: int
    lost: int
    waiting: int
    again: int
    duplicates: int
    disordered: int
    kinds: dict[str, int]
    latencies: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, accepted: Accepted, arrived: list[tuple[datetime, dict[str, Any]]]) -> Tally:
        first: dict[tuple[str, int], str] = {}
        new: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        highest: dict[str, int] = {}
        latencies: list[tuple[float, float]] = []
        again = duplicates = disordered = 0
        for when, event in arrived:
            number = event["camera"], event["seq"]
            if number in first:
                again += first[number] == event["id"]
                duplicates += first[number] != event["id"]
                continue
            first[number] = event["id"]
            disordered += event["seq"] < highest.get(event["camera"], 0)
            highest[event["camera"]] = max(event["seq"], highest.get(event["camera"], 0))
            if event["type"] == "new":
                new[event["id"]] += 1
                kinds[event["kind"]] += 1
                if event["frame_ts"] is not None and not event["replayed"]:
                    seen = datetime.fromisoformat(event["frame_ts"].replace("Z", "+00:00"))
                    latencies.append((when.timestamp(), (when - seen).total_seconds() * 1000))
        duplicates += sum(count - 1 for count in new.values())
        numbered = {(camera, seq) for camera, last in accepted.numbers.items() for seq in range(1, last + 1)}
        return cls(
            accepted=len(numbered),
            received=len(first),
            lost=len(numbered - first.keys() - accepted.waiting),
            waiting=len(accepted.waiting - first.keys()),
            again=again,
            duplicates=duplicates,
            disordered=disordered,
            kinds=dict(kinds),
            latencies=tuple(latencies),
        )
