"""Home Assistant's rules for device-based MQTT discovery, as tables, and a check of a document against them.

From its documentation (home-assistant.io/integrations/mqtt and the pages of the platforms) and the schemas behind them,
as they are in 2026.2. An entity that is left out of an update stays; one with nothing but its platform is removed.
"""

from __future__ import annotations

import re
from typing import Any

TOPIC = re.compile(r"\w+/device/(?:[a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config")

DEVICE = {
    *("identifiers", "connections", "manufacturer", "model", "model_id", "name", "hw_version", "serial_number"),
    *("sw_version", "via_device", "suggested_area", "configuration_url"),
}
ORIGIN = {"name", "sw_version", "support_url"}
SHARED = {
    *("availability", "availability_mode", "availability_template", "availability_topic", "payload_available"),
    *("payload_not_available", "state_topic", "command_topic", "qos", "encoding"),
}
COMMON = {
    *("platform", "name", "unique_id", "enabled_by_default", "entity_category", "entity_picture", "icon"),
    *("json_attributes_topic", "json_attributes_template", "default_entity_id"),
    *SHARED,
} - {"state_topic", "command_topic"}
# platform: keys it must have, and further keys it may have
PLATFORMS: dict[str, tuple[set[str], set[str]]] = {
    "binary_sensor": (
        {"state_topic"},
        {"device_class", "expire_after", "force_update", "off_delay", "payload_on", "payload_off", "value_template"},
    ),
    "sensor": (
        {"state_topic"},
        {
            *("device_class", "expire_after", "force_update", "last_reset_value_template", "options", "state_class"),
            *("suggested_display_precision", "unit_of_measurement", "value_template"),
        },
    ),
    "event": ({"state_topic", "event_types"}, {"device_class", "value_template"}),
    "image": ({"image_topic"}, {"content_type", "image_encoding"}),
    "switch": (
        {"command_topic"},
        {
            *("state_topic", "command_template", "device_class", "optimistic", "payload_on", "payload_off", "retain"),
            *("state_on", "state_off", "value_template"),
        },
    ),
    "button": ({"command_topic"}, {"command_template", "device_class", "payload_press", "retain"}),
}
DEVICE_CLASSES = {
    "binary_sensor": {"motion", "problem", "connectivity", "running", "safety"},
    "sensor": {"enum", "timestamp", "duration", "data_size", "temperature", "power"},
    "event": {"button", "doorbell", "motion"},
}
STATE_CLASSES = {"measurement", "total", "total_increasing"}
UNITS = {"data_size": {"bit", "B", "kB", "MB", "GB", "KiB", "MiB", "GiB"}}
CATEGORIES = {"diagnostic", "config"}
READ_ONLY = {"binary_sensor", "sensor", "event", "image"}


def check(topic: str, document: dict[str, Any]) -> None:
    """Raises AssertionError with the rule that is broken."""
    assert TOPIC.fullmatch(topic), topic
    assert {"device", "origin", "components"} <= document.keys()
    assert document.keys() <= {"device", "origin", "components", *SHARED}
    assert document["device"].keys() <= DEVICE
    assert document["device"].get("identifiers") or document["device"].get("connections")
    assert document["origin"].keys() <= ORIGIN and document["origin"]["name"]
    assert document["components"]
    _check_availability(document)
    there = {key: component for key, component in document["components"].items() if component.keys() != {"platform"}}
    assert all(component["platform"] in PLATFORMS for component in document["components"].values())
    ids = [component["unique_id"] for component in there.values()]
    assert len(set(ids)) == len(ids)
    for key, component in there.items():
        assert re.fullmatch(r"[a-zA-Z0-9_-]+", key), key
        _check_component(component)


def _check_component(component: dict[str, Any]) -> None:
    platform = component["platform"]
    required, further = PLATFORMS[platform]
    assert required <= component.keys(), (platform, required - component.keys())
    assert component.keys() <= COMMON | required | further, (platform, component.keys() - COMMON - required - further)
    if "device_class" in component:
        assert component["device_class"] in DEVICE_CLASSES[platform]
    if "entity_category" in component:
        assert component["entity_category"] in CATEGORIES
        assert not (platform in READ_ONLY and component["entity_category"] == "config")
    if "icon" in component:
        assert re.fullmatch(r"mdi:[a-z0-9-]+", component["icon"])
    if platform == "sensor":
        _check_sensor(component)
    _check_availability(component)
    for name, value in component.items():
        if name.endswith("topic"):
            _check_topic(value)
        if name.endswith("template"):
            assert value.count("{{") == value.count("}}") >= 1


def _check_sensor(component: dict[str, Any]) -> None:
    device_class = component.get("device_class")
    assert ("options" in component) == (device_class == "enum")
    if device_class in ("enum", "timestamp"):
        assert "state_class" not in component and "unit_of_measurement" not in component
    if "state_class" in component:
        assert component["state_class"] in STATE_CLASSES
    if device_class in UNITS:
        assert component["unit_of_measurement"] in UNITS[device_class]


def _check_availability(section: dict[str, Any]) -> None:
    assert not ("availability" in section and "availability_topic" in section)
    assert section.get("availability_mode", "all") in ("all", "any", "latest")
    for entry in section.get("availability", []):
        assert entry.keys() <= {"topic", "payload_available", "payload_not_available", "value_template"}
        _check_topic(entry["topic"])


def _check_topic(topic: str) -> None:
    assert topic and not set(topic) & set("+#\0") and len(topic.encode()) < 65536
