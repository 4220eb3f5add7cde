"""The broker on loopback: starts, says why it can't, leaves nothing behind."""

from __future__ import annotations

import socket

import pytest
from mqtt_world import Subscriber, needs_mosquitto, until

from agent.mqtt.broker import MISSING, LocalBroker
from config.errors import BrokerError


@needs_mosquitto
def test_retained_states_outlive_a_restart_and_the_folder_goes_at_the_end() -> None:
    with LocalBroker() as broker:
        with Subscriber(broker.port) as watcher:
            watcher.publish("a", "kept", retain=True)
            until(lambda: watcher.on("a"), "the message")
        broker.stop()
        broker.start()
        with Subscriber(broker.port) as watcher:
            until(lambda: watcher.on("a"), "the retained message")
        folder = broker.folder
    assert not folder.exists()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", broker.port), timeout=2.0)


@needs_mosquitto
def test_a_configuration_it_does_not_take_is_told_in_its_own_words() -> None:
    with pytest.raises(BrokerError, match="no_such_option"), LocalBroker(options=["no_such_option 1"]):
        pass


def test_without_mosquitto_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(BrokerError, match="apt-get install -y mosquitto"):
        LocalBroker()
    assert "sudo" in MISSING
