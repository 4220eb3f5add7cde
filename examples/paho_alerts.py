"""Print the alerts of every box and camera, each telling once, whatever happens to broker and network.

    python paho_alerts.py [--host localhost] [--port 1883] [--user NAME --password-file FILE]

Alerts are delivered at least once and in order per camera. A session that outlives the connection makes the broker keep
those that come while this program is away; `id` and `seq` tell what came already.
"""

from __future__ import annotations

import argparse
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

TOPIC = "stillwatch/+/+/alert"
DAY_S = 86400
REMEMBERED = 1000

seen: OrderedDict[str, int] = OrderedDict()
"""The last telling of each alert: id → seq."""


def on_connect(client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
    if reason.is_failure:
        print(f"the broker refuses us: {reason}", flush=True)
    else:
        client.subscribe(TOPIC, qos=1)


def on_message(_client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
    try:
        alert = json.loads(message.payload)
        known = seen.get(alert["id"], 0)
        news = alert["seq"] > known or alert["seq"] == 0  # 0: the agent's disk refused to number it
        seen[alert["id"]] = max(known, alert["seq"])
    except (ValueError, KeyError, TypeError):
        print(f"{message.topic}: not an alert", flush=True)
        return
    if len(seen) > REMEMBERED:
        seen.popitem(last=False)
    if news:
        late = f" ({alert['age_s']:.0f} s late)" if alert["replayed"] else ""
        print(alert["frame_ts"] or alert["ts"], alert["camera"], alert["kind"], alert["type"], end="")
        print(f" {alert['severity']}: {alert['text'] or '…'}{late}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--user")
    parser.add_argument("--password-file", type=Path)
    options = parser.parse_args()

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="alert-printer", protocol=mqtt.MQTTv5)
    client.on_connect, client.on_message = on_connect, on_message
    if options.user:
        password = options.password_file.read_text().strip() if options.password_file else None
        client.username_pw_set(options.user, password)
    keep = Properties(PacketTypes.CONNECT)
    keep.SessionExpiryInterval = DAY_S
    client.connect(options.host, options.port, clean_start=False, properties=keep)
    client.loop_forever()  # connects again by itself


if __name__ == "__main__":
    main()
