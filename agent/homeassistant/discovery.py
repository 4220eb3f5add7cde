"""Home Assistant's device-based MQTT discovery: one retained document a device, the box and each of its cameras.

The entities read the topics that are published anyway. Source: home-assistant.io/integrations/mqtt (device discovery
payload) and the pages of its platforms; `tests/homeassistant_rules.py` holds their rules as tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from agent.events.form import event_types
from agent.mqtt.topics import ALERT_IMAGE, ASKED_IMAGE, OFF, ON, Topics
from engines.plan import Mode

_LONGEST_STATE = 255
"""Characters that a state of Home Assistant can have."""


class Discovery:
    """The documents of one box. prefix: Home Assistant's discovery prefix. name: of the box, for people. images:
    whether pictures are published."""

    def __init__(self, topics: Topics, prefix: str, *, name: str | None, version: str, images: bool) -> None:
        self._topics, self._prefix = topics, prefix
        self._name = name or topics.device
        self._version, self._images = version, images

    @property
    def birth(self) -> str:
        """Where Home Assistant says `online` when it starts."""
        return f"{self._prefix}/status"

    def documents(self, cameras: Iterable[str]) -> dict[str, str]:
        """By topic, the box first: cameras refer to it."""
        box = f"stillwatch_{self._topics.device}"
        found = {self._topic(box): self._box(box)}
        for camera in cameras:
            found[self._topic(f"{box}_{camera}")] = self._camera(f"{box}_{camera}", box, camera)
        return {topic: json.dumps(document, ensure_ascii=False) for topic, document in found.items()}

    def _topic(self, device: str) -> str:
        return f"{self._prefix}/device/{device}/config"

    def _box(self, device: str) -> dict[str, Any]:
        t = self._topics
        components = {
            "trouble": {
                **_entity("binary_sensor", "Trouble", t.status, "'ON' if value_json.degraded else 'OFF'"),
                "device_class": "problem",
                "json_attributes_topic": t.status,
                "json_attributes_template": "{{ {'degraded': value_json.degraded} | tojson }}",
            },
            "queue": _number("Waiting messages", t.status, "value_json.queue_depth"),
            "dropped": {
                **_number("Lost messages", t.status, "value_json.dropped.values() | sum"),
                "state_class": "total_increasing",
            },
            "memory": {
                **_number("Memory", t.status, "value_json.memory.resident"),
                "device_class": "data_size",
                "unit_of_measurement": "B",
            },
            "backend": _entity("sensor", "Backend", t.status, "value_json.backend"),
        }
        about = {"identifiers": [device], "name": self._name, "model": "Stillwatch"}
        return self._document(device, about, [t.availability], components)

    def _camera(self, device: str, box: str, camera: str) -> dict[str, Any]:
        t = self._topics
        state = t.state(camera)
        components = {
            "anomaly": {
                **_entity("binary_sensor", "Anomaly", state, "'ON' if value_json.anomaly else 'OFF'", diagnostic=False),
                "device_class": "problem",
            },
            "motion": {
                "platform": "binary_sensor",
                "name": "Motion",
                "state_topic": t.motion(camera),
                "device_class": "motion",
            },
            "description": {
                **_entity("sensor", "Last description", state, f"value_json.text[:{_LONGEST_STATE}]", diagnostic=False),
                "icon": "mdi:text",
            },
            "event": {
                "platform": "event",
                "name": "Event",
                "state_topic": t.event_form(camera),
                "event_types": [*event_types()],
            },
            "analysis": {
                "platform": "switch",
                "name": "Analysis",
                "command_topic": f"{t.base}/{camera}/analysis/set",
                "state_topic": t.analysis_state(camera),
                "payload_on": ON,
                "payload_off": OFF,
                "availability": _available([t.availability]),
            },
            "snapshot": {
                "platform": "button",
                "name": "Snapshot",
                "command_topic": f"{t.base}/cmd/snapshot",
                "payload_press": json.dumps({"camera": camera}),
                "icon": "mdi:camera",
            },
            "mode": {
                **_entity("sensor", "Mode", state, "value_json.mode"),
                "device_class": "enum",
                "options": [mode.value for mode in Mode],
            },
            "fps": {**_number("Frames a second", state, "value_json.fps"), "unit_of_measurement": "fps"},
            "fidelity": {**_number("Fidelity", state, "value_json.fidelity"), "suggested_display_precision": 3},
            "score": {**_number("Anomaly score", state, "value_json.score"), "suggested_display_precision": 2},
            "learning": _entity("binary_sensor", "Learning", state, "'ON' if value_json.learning else 'OFF'"),
            "muted": {**_entity("sensor", "Muted until", state, "value_json.muted_until"), "device_class": "timestamp"},
        }
        components["alert_image"] = self._image("Last alert", t.image(camera, ALERT_IMAGE))
        components["snapshot_image"] = self._image("Last snapshot", t.image(camera, ASKED_IMAGE))
        about = {"identifiers": [device], "name": camera, "model": "Camera", "via_device": box}
        return self._document(device, about, [t.availability, t.camera_availability(camera)], components)

    def _image(self, name: str, topic: str) -> dict[str, Any]:
        if not self._images:  # an entity that is left out would stay; one without anything but its platform goes
            return {"platform": "image"}
        return {
            "platform": "image",
            "name": name,
            "image_topic": topic,
            "content_type": "image/jpeg",
            "availability": _available([self._topics.availability]),
        }

    def _document(
        self, device: str, about: dict[str, Any], availability: list[str], components: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        return {
            "device": {**about, "manufacturer": "Stillwatch", "sw_version": self._version},
            "origin": {"name": "Stillwatch", "sw_version": self._version},
            "availability": _available(availability),
            "availability_mode": "all",
            "qos": 1,
            "components": {
                key: {**component, "unique_id": f"{device}_{key}"} if len(component) > 1 else component
                for key, component in components.items()
            },
        }


def _available(topics: list[str]) -> list[dict[str, str]]:
    return [{"topic": topic} for topic in topics]


def _entity(platform: str, name: str, topic: str, value: str, *, diagnostic: bool = True) -> dict[str, Any]:
    """value: an expression over `value_json`; what is null there becomes `None`, which is read as unknown."""
    entity = {"platform": platform, "name": name, "state_topic": topic, "value_template": f"{{{{ {value} }}}}"}
    return {**entity, "entity_category": "diagnostic"} if diagnostic else entity


def _number(name: str, topic: str, value: str) -> dict[str, Any]:
    return {**_entity("sensor", name, topic, value), "state_class": "measurement"}
