"""Getting in: TLS both ways, users and passwords from files and credentials, brokers of both versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mqtt_certificates import Authority
from mqtt_proxy import Proxy
from mqtt_world import PATIENCE_S, TOPICS, Subscriber, agent, guarded_broker, needs_mosquitto, until

from agent.events.model import Anomaly
from agent.mqtt.address import BrokerAddress
from agent.mqtt.asking import ask_agent
from agent.mqtt.broker import LocalBroker
from config.errors import BrokerError, ConfigError
from config.settings import Mqtt

pytestmark = needs_mosquitto
BASE = "stillwatch/box"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@contextmanager
def tls_broker(authority: Authority, *options: str) -> Iterator[str]:
    """A broker with a certificate of this authority; gives its url."""
    certificate, key = authority.sign("localhost")
    lines = ("cafile {dir}/ca.pem", "certfile {dir}/server.pem", "keyfile {dir}/server.key", *options)
    broker = LocalBroker(options=lines)
    for name, path in (("ca.pem", authority.certificate), ("server.pem", certificate), ("server.key", key)):
        (broker.folder / name).write_bytes(path.read_bytes())
    with broker:
        yield broker.url.replace("mqtt://", "mqtts://")


def refused(url: str, **address: Any) -> str:
    """Why we are not let in."""
    with agent(url, connected=False, **address) as box:
        until(lambda: box.link.state.trouble, "the first attempt")
        with pytest.raises(BrokerError) as error:
            box.link.wait_connected(1.0)
        return str(error.value)


def test_a_broker_that_wants_to_know_us_gets_our_certificate(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.sign("porch-box")
    stranger = Authority(tmp_path).sign("porch-box")
    with tls_broker(authority, "require_certificate true", "use_identity_as_username true") as url:
        trusted = {"ca_file": authority.certificate}
        with agent(url, certificate=certificate, key=key, **trusted) as box:
            assert box.link.state.connected
            box.book.publish(Anomaly(camera="front"))
            until(lambda: box.outbox.depth == 0, "the alert to be taken")
        both = tmp_path / "both.pem"
        both.write_bytes(certificate.read_bytes() + key.read_bytes())
        with agent(url, certificate=both, **trusted) as box:
            assert box.link.state.connected
        assert refused(url, **trusted)
        assert refused(url, certificate=stranger[0], key=stranger[1], **trusted)
        assert "certificate" in refused(url, ca_file=stranger[0].parent / "ca.pem", certificate=certificate, key=key)


def test_a_key_that_can_not_be_used_is_a_configuration_error(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.sign("porch-box")
    other = authority.sign("other")[1]
    for given, said in (
        ({"certificate": certificate, "key": other}, "can't read certificate and key|no certificate with its key"),
        ({"certificate": tmp_path / "none.pem"}, "certificate"),
        ({"key": key}, "set mqtt.certificate too"),
    ):
        with pytest.raises(ConfigError, match=said):
            BrokerAddress.parse("mqtts://h", **given).tls_context()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="mqtts://"):
        BrokerAddress.parse("mqtt://h", certificate=certificate, key=key)


def test_user_and_password_come_from_files_and_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "user").write_text("box\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with guarded_broker("user box", "topic readwrite #", box="s3cret") as broker:
        for user, password in (("box", f"file:{tmp_path}/password"), ("credential:user", "credential:password")):
            mqtt = Mqtt.model_validate({"url": broker.url, "user": user, "password": password})
            with agent(broker.url, address=BrokerAddress.of(mqtt)) as box:
                assert box.link.state.connected
            assert "s3cret" not in repr(BrokerAddress.of(mqtt)) and "s3cret" not in repr(mqtt)
        with pytest.raises(ConfigError, match="not-there"):
            BrokerAddress.of(
                Mqtt.model_validate({"url": broker.url, "user": "box", "password": "credential:not-there"})
            )


@pytest.mark.parametrize("silent", [False, True], ids=["it says so", "it just hangs up"])
def test_a_broker_that_speaks_only_3_1_1_is_met_by_itself(silent: bool) -> None:
    handlers = {"ping": lambda _command: {"pong": True}}
    with (
        LocalBroker() as broker,
        Proxy(broker.port, only_311=True, silent=silent) as old,
        Subscriber(broker.port) as watcher,
        agent(old.url, handlers=handlers) as box,
    ):
        box.book.publish(Anomaly(camera="front"))
        until(lambda: watcher.on(f"{BASE}/front/alert"), "the alert")
        assert ask_agent(BrokerAddress.parse(old.url), TOPICS, "ping", {}, timeout_s=PATIENCE_S).ok
        attempts = old.connections
        old.cut()
        until(lambda: box.link.state.connections == 2, "a second connection")
        assert old.connections <= attempts + 2, "the version is remembered"


def test_a_version_that_was_chosen_is_kept_to() -> None:
    with LocalBroker() as broker, Proxy(broker.port, only_311=True) as old:
        assert "does not speak MQTT 5" in refused(old.url, protocol="5")
        with agent(old.url, protocol="3.1.1") as box:
            assert box.link.state.connected


def test_a_broker_that_takes_mqtt_5_and_then_hangs_up_is_not_taken_for_an_old_one() -> None:
    with LocalBroker() as broker, Proxy(broker.port) as way, agent(way.url) as box, Subscriber(broker.port) as watcher:
        way.refuse = True
        way.cut()
        until(lambda: not box.link.state.connected, "the loss")
        until(lambda: way.connections >= 3, "some attempts")
        way.refuse = False
        until(lambda: box.link.state.connections == 2, "a new connection")
        watcher.publish(f"{BASE}/cmd/ping", reply_to="answers/1", correlation=b"x")
        until(lambda: watcher.on("answers/1"), "the answer at an address that only MQTT 5 has")
