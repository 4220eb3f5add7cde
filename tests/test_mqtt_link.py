"""The link against a real broker: what a subscriber receives, come what may."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from events_memory import memory_folder
from mqtt_world import PATIENCE_S, TOPICS, Message, Subscriber, agent, guarded_broker, needs_mosquitto, until

from agent.events.model import Anomaly, BoxStatus, CameraState, SemanticChange
from agent.mqtt.address import BrokerAddress
from agent.mqtt.broker import LocalBroker
from config.errors import BrokerError, ConfigError

pytestmark = needs_mosquitto
BASE = "stillwatch/box"


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker() as made:
        yield made


def status(seq: int) -> BoxStatus:
    return BoxStatus(
        ts=datetime.now(timezone.utc), device="box", version="1", boot_id="b", seq=seq, uptime_s=1.0, backend="cpu"
    )


def camera_state(text: str) -> CameraState:
    return CameraState(ts=datetime.now(timezone.utc), device="box", camera="front", enabled=True, text=text)


def in_order(messages: list[Message]) -> list[int]:
    """The seqs of a camera as they first arrived; each telling always carries the same id."""
    ids: dict[int, str] = {}
    for message in messages:
        document = message.document
        assert ids.setdefault(document["seq"], document["id"]) == document["id"]
    return list(ids)


def test_an_event_arrives_as_it_was_told(broker: LocalBroker) -> None:
    with Subscriber(broker.port) as watcher, agent(broker.url) as box:
        box.book.publish(Anomaly(camera="front", score=0.8, regions=((1, 2, 3, 4),), frame_size=(640, 360)))
        box.book.publish(SemanticChange(camera="yard", distance=0.3, before_text="empty", after_text="a dog"))
        until(lambda: watcher.on(f"{BASE}/yard/change"), "the change")
        (alert,), (change,) = watcher.on(f"{BASE}/front/alert"), watcher.on(f"{BASE}/yard/change")
        until(lambda: box.outbox.depth == 0, "the acknowledgements")
    assert alert.document["region"] == [1, 2, 3, 4] and change.document["after_text"] == "a dog"
    assert not alert.retain and not alert.document["replayed"]


def test_no_event_is_lost_or_out_of_order_when_the_broker_is_killed() -> None:
    with (
        LocalBroker(options=["autosave_interval 1", "autosave_on_changes true"]) as broker,
        Subscriber(broker.port, persistent=True) as watcher,
        agent(broker.url) as box,
    ):

        def restart() -> None:
            time.sleep(0.3)
            broker.kill()
            time.sleep(0.3)
            broker.start()

        trouble = threading.Thread(target=restart)
        trouble.start()
        for n in range(200):
            box.book.publish(SemanticChange(camera=("front", "yard")[n % 2], distance=0.1))
            time.sleep(0.005)
        trouble.join()
        until(lambda: box.outbox.depth == 0, "the outbox to be empty")
        for camera in ("front", "yard"):
            topic = f"{BASE}/{camera}/change"
            until(lambda topic=topic: len(in_order(watcher.on(topic))) == 100, "all events")  # type: ignore[misc]
            assert in_order(watcher.on(topic)) == list(range(1, 101))
        assert box.link.state.connections >= 2


def test_a_subscriber_without_a_session_misses_nothing_that_was_told_while_the_broker_was_away(
    broker: LocalBroker,
) -> None:
    """Its own reconnect may take longer than ours."""
    with agent(broker.url) as box:
        with Subscriber(broker.port) as watcher:
            box.book.publish(Anomaly(camera="front"))
            until(lambda: watcher.on(f"{BASE}/front/alert") and box.outbox.depth == 0, "the first event")
        broker.kill()
        for _ in range(30):
            box.book.publish(Anomaly(camera="front"))
        broker.start()
        until(lambda: box.link.state.connections == 2, "the second connection")
        time.sleep(0.5)
        with Subscriber(broker.port) as watcher:
            until(lambda: box.outbox.depth == 0, "the outbox to be empty")
            until(lambda: len(watcher.on(f"{BASE}/front/alert")) >= 30, "the alerts")
            assert in_order(watcher.on(f"{BASE}/front/alert")) == list(range(2, 32))


def test_what_an_earlier_run_could_not_send_is_replayed(broker: LocalBroker) -> None:
    with memory_folder() as folder:
        with agent("mqtt://127.0.0.1:1", folder=folder, connected=False) as box:
            box.book.publish(Anomaly(camera="front"))
        late = {"replay_after_s": PATIENCE_S}
        with Subscriber(broker.port) as watcher, agent(broker.url, folder=folder, delivery=late) as box:
            box.book.publish(Anomaly(camera="front"))
            until(lambda: len(watcher.on(f"{BASE}/front/alert")) == 2, "both alerts")
            old, new = (message.document for message in watcher.on(f"{BASE}/front/alert"))
    assert (old["seq"], old["replayed"]) == (1, True) and old["age_s"] >= 0
    assert (new["seq"], new["replayed"]) == (2, False)


def test_states_are_retained_latest_wins_and_said_again_to_a_broker_that_forgot(broker: LocalBroker) -> None:
    with agent(broker.url) as box:
        box.link.set_camera_available("front", True)
        box.link.set_analysis("front", True)
        for n in range(300):
            box.link.set_camera_state(camera_state(f"text {n}"))
            box.link.set_status(status(n))
        for _ in range(2):
            with Subscriber(broker.port) as watcher:
                until(lambda: len({message.topic for message in watcher.messages}) == 5, "five retained topics")
                until(lambda: json.loads(watcher.last(f"{BASE}/status") or "{}")["seq"] == 299, "the last")
                until(lambda: "text 299" in str(watcher.last(f"{BASE}/front/state")), "the last")
                assert watcher.last(f"{BASE}/availability") == "online"
                assert watcher.last(f"{BASE}/front/availability") == "online"
                assert watcher.last(f"{BASE}/front/analysis/state") == "ON"
            if box.link.state.connections == 1:
                broker.kill()
                (broker.folder / "mosquitto.db").unlink(missing_ok=True)
                broker.start()
                until(lambda: box.link.state.connections == 2, "the second connection")


def test_a_flood_of_states_is_thinned_out(broker: LocalBroker) -> None:
    with Subscriber(broker.port) as watcher, agent(broker.url) as box:
        begun = time.monotonic()
        for n in range(400):
            box.link.set_camera_state(camera_state(f"text {n}"))
            time.sleep(0.002)
        seconds = time.monotonic() - begun
        until(lambda: "text 399" in str(watcher.last(f"{BASE}/front/state")), "the last state")
        assert len(watcher.on(f"{BASE}/front/state")) <= seconds + 3


def test_a_clean_stop_flushes_and_says_offline(broker: LocalBroker) -> None:
    with Subscriber(broker.port) as watcher:
        with agent(broker.url) as box:
            box.link.set_camera_available("front", True)
            for _ in range(50):
                box.book.publish(Anomaly(camera="front"))
            box.book.close(PATIENCE_S)
            box.link.close(PATIENCE_S)
            assert box.outbox.depth == 0
        until(lambda: watcher.last(f"{BASE}/availability") == "offline", "offline")
        assert watcher.last(f"{BASE}/front/availability") == "offline"
        assert len(watcher.on(f"{BASE}/front/alert")) == 50
        time.sleep(1.5)
        assert [m.text for m in watcher.on(f"{BASE}/availability")].count("offline") == 1, "the will was not needed"


def test_a_frozen_broker_holds_up_neither_the_teller_nor_the_stop(broker: LocalBroker) -> None:
    with memory_folder() as folder, agent(broker.url, folder=folder) as box:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            for _ in range(50):
                box.book.publish(Anomaly(camera="front"))
            assert box.book.close(PATIENCE_S)
            box.link.close(1.0)
            until(lambda: not box.link.alive(), "the link's thread to end")
            assert box.outbox.depth == 50
        finally:
            os.kill(broker.pid, signal.SIGCONT)


CLIENT = """
import sys, time
from pathlib import Path
from agent.events.outbox import Outbox
from agent.mqtt.address import BrokerAddress
from agent.mqtt.client import MqttLink
from agent.mqtt.topics import Topics
outbox = Outbox(Path(sys.argv[2]))
link = MqttLink(BrokerAddress.parse(sys.argv[1]), Topics("stillwatch", "box"), outbox, will_delay_s=1)
link.wait_connected(60)
print("up", flush=True)
time.sleep(600)
"""


def test_the_last_will_arrives_when_the_agent_is_killed(broker: LocalBroker, tmp_path: Path) -> None:
    with Subscriber(broker.port) as watcher:
        child = subprocess.Popen(
            [sys.executable, "-c", CLIENT, broker.url, str(tmp_path / "o.db")],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "."},
        )
        assert child.stdout is not None
        until(lambda: watcher.last(f"{BASE}/availability") == "online", "online")
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        until(lambda: watcher.last(f"{BASE}/availability") == "offline", "the last will")
    with Subscriber(broker.port) as late:
        until(lambda: late.last(f"{BASE}/availability") == "offline", "the retained will")


def test_a_wrong_password_is_said_and_not_just_retried() -> None:
    with (
        guarded_broker("topic readwrite #", box="right") as broker,
        agent(broker.url, user="box", password="wrong", connected=False) as box,
    ):
        with pytest.raises(BrokerError, match="Not authorized"):
            box.link.wait_connected(PATIENCE_S)
        assert not box.link.state.connected
        assert any("Not authorized" in sentence for sentence in box.link.state.trouble)
        assert "wrong" not in str(box.link.state)


def test_no_broker_is_said_in_time_and_the_link_lives_on() -> None:
    with agent("mqtt://127.0.0.1:1", connected=False) as box:
        until(lambda: box.link.state.trouble, "the first attempt")
        with pytest.raises(BrokerError, match=r"can't reach mqtt://127\.0\.0\.1:1"):
            box.link.wait_connected(0.3)
        assert box.link.alive()


def test_a_denied_topic_is_counted_and_does_not_stop_the_others() -> None:
    acl = ("user box", f"topic readwrite {BASE}/front/change", f"topic readwrite {BASE}/availability")
    with (
        guarded_broker(*acl, "user all", "topic readwrite #", box="b", all="a") as broker,
        Subscriber(broker.port, user="all", password="a") as watcher,
        agent(broker.url, user="box", password="b", delivery={"order_s": 0.2, "refused_for_s": 1.0}) as box,
    ):
        box.link.set_camera_available("front", True)
        box.book.publish(Anomaly(camera="front"))
        box.book.publish(SemanticChange(camera="front", distance=0.2))
        until(lambda: watcher.on(f"{BASE}/front/change"), "the change, which is allowed")
        until(lambda: box.outbox.depth == 0, "the alert to be given up")
        assert box.outbox.dropped == {"refused": 1}
        trouble = " ".join(box.link.state.trouble)
        assert f"{BASE}/front/alert: Not authorized" in trouble
        assert f"{BASE}/front/availability: Not authorized" in trouble
        assert box.link.state.connected


def test_a_disk_that_refuses_does_not_touch_the_link(broker: LocalBroker) -> None:
    handlers = {"ping": lambda _command: {"pong": True}}
    with Subscriber(broker.port) as watcher, agent(broker.url, handlers=handlers) as box:
        box.book.publish(Anomaly(camera="front"))
        until(lambda: watcher.on(f"{BASE}/front/alert") and box.outbox.depth == 0, "the first alert")
        with box.outbox._lock:
            box.outbox._db.execute("PRAGMA query_only = ON")
        in_time = box.book.publish(Anomaly(camera="front", text="not stored"))
        until(lambda: len(watcher.on(f"{BASE}/front/alert")) == 2, "the alert that was not kept")
        told = watcher.on(f"{BASE}/front/alert")[-1].document
        assert (told["id"], told["seq"], box.book.dropped) == (in_time, 0, {"disk": 1})
        assert told["degraded"] == ["not kept: attempt to write a readonly database"]
        refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'no writing'); END"
        with box.outbox._lock:
            box.outbox._db.execute("PRAGMA query_only = OFF")
            box.outbox._db.execute(refuse)
        for _ in range(3):
            box.book.publish(Anomaly(camera="front", text="stored, and can't be marked as sent"))
        until(lambda: len(watcher.on(f"{BASE}/front/alert")) == 5, "the alerts")
        until(lambda: any("can't be noted" in sentence for sentence in box.link.state.trouble), "the trouble")
        box.link.set_camera_available("front", True)
        watcher.publish(f"{BASE}/cmd/ping")
        until(lambda: watcher.on(f"{BASE}/cmd/ping/result"), "the answer")
        until(lambda: watcher.last(f"{BASE}/front/availability") == "online", "the state")
        assert box.outbox.depth == 3
        with box.outbox._lock:
            box.outbox._db.execute("DROP TRIGGER refuse")
        until(lambda: box.outbox.depth == 0 and box.link.state.trouble == (), "the disk")
        assert len(watcher.on(f"{BASE}/front/alert")) == 5
        assert (box.link.state.connected, box.link.state.connections) == (True, 1)


@pytest.mark.parametrize(("protocol", "option"), [("5", "max_packet_size 3000"), ("3.1.1", "max_packet_size 3000")])
def test_an_event_too_large_for_the_broker_does_not_stop_the_others(protocol: str, option: str) -> None:
    """With MQTT 5 the broker says what it takes; with 3.1.1 it just ends the connection, each time."""
    with (
        LocalBroker(options=[option]) as broker,
        Subscriber(broker.port) as watcher,
        agent(broker.url, protocol=protocol, delivery={"max_tries": 2}) as box,
    ):
        box.book.publish(Anomaly(camera="front"))
        box.book.publish(Anomaly(camera="front", text="x" * 5000))
        box.book.publish(Anomaly(camera="front"))
        until(lambda: box.outbox.dropped == {"refused": 1} and box.outbox.depth == 0, "the large one to be given up")
        until(lambda: len(in_order(watcher.on(f"{BASE}/front/alert"))) == 2, "the others")
        assert in_order(watcher.on(f"{BASE}/front/alert")) == [1, 3]


def test_with_mqtt_3_1_1_everything_but_the_extras_works(broker: LocalBroker) -> None:
    handlers = {"ping": lambda _command: {"pong": True}}
    with Subscriber(broker.port) as watcher, agent(broker.url, protocol="3.1.1", handlers=handlers) as box:
        box.book.publish(Anomaly(camera="front"))
        until(lambda: watcher.last(f"{BASE}/availability") == "online", "the agent")
        watcher.publish(f"{BASE}/cmd/ping")
        until(lambda: watcher.on(f"{BASE}/front/alert"), "the alert")
        until(lambda: watcher.on(f"{BASE}/cmd/ping/result"), "the answer")


def test_two_agents_of_one_name_say_what_is_wrong(broker: LocalBroker) -> None:
    with agent(broker.url) as one, agent(broker.url) as two:
        until(
            lambda: any("another agent" in s for box in (one, two) for s in box.link.state.trouble),
            "the reason",
        )


def test_a_new_connection_leaves_no_files_or_threads_of_the_old(broker: LocalBroker) -> None:
    with agent(broker.url) as box:

        def restart() -> None:
            connections = box.link.state.connections
            broker.kill()
            broker.start()
            until(lambda: box.link.state.connections > connections, "a connection")

        def used() -> tuple[int, int]:
            return len([*Path("/proc/self/fd").iterdir()]), threading.active_count()

        restart()
        restart()
        files, threads = used()
        for _ in range(4):
            restart()
        until(lambda: used()[0] <= files + 2 and used()[1] <= threads + 1, f"{files} files, {threads} threads again")


def test_tls_is_checked(tmp_path: Path) -> None:
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    broker = LocalBroker(options=["certfile {dir}/cert.pem", "keyfile {dir}/key.pem"])
    for name in ("key.pem", "cert.pem"):
        (broker.folder / name).write_bytes((tmp_path / name).read_bytes())
    url = broker.url.replace("mqtt://", "mqtts://")
    with broker:
        with agent(url, ca_file=tmp_path / "cert.pem") as box:
            assert box.link.state.connected
        with agent(url, connected=False) as box:
            until(lambda: box.link.state.trouble, "the first attempt")
            with pytest.raises(BrokerError, match=r"(?i)certificate"):
                box.link.wait_connected(0.3)
    with pytest.raises(ConfigError, match="no certificate"), agent(url, ca_file=tmp_path / "key.pem"):
        pass


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://broker", "expected mqtt://"),
        ("mqtt://", "expected mqtt://"),
        ("mqtt://me:secret@host:99999", "not a URL"),
        ("mqtt://host/path", "expected mqtt://"),
    ],
)
def test_a_wrong_url_is_a_configuration_error_without_its_password(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        BrokerAddress.parse(url)
    assert "secret" not in str(raised.value)


def test_credentials_come_from_the_url_or_from_the_settings() -> None:
    address = BrokerAddress.parse("mqtts://me:s%40cret@[::1]")
    assert (address.user, address.password, address.port, str(address)) == ("me", "s@cret", 8883, "mqtts://[::1]:8883")
    assert BrokerAddress.parse("mqtt://me:x@h", user="you", password="y").password == "y"
    assert "s@cret" not in repr(address)


def test_topics_do_not_fit_every_name() -> None:
    for name in ("a/b", "", "+", "cmd", "x" * 65):
        with pytest.raises(ConfigError):
            TOPICS.state(name)
