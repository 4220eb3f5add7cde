"""Remote configuration over a real broker: the operator's commands on one side, a box's link and desk on the other."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import pytest
from calling import Call, caller
from mqtt_proxy import Proxy
from mqtt_world import TOPICS, Subscriber, agent, guarded_broker, needs_mosquitto, until
from remote_hostile import BASE, KINDS, history, hostile
from remote_world import NEXT, OPS, MemoryApplier, document

from agent.applying.contract import Step
from agent.mqtt.address import BrokerAddress
from agent.mqtt.broker import LocalBroker
from agent.remote.documents import Reported, json_schemas
from agent.remote.joining import attach, open_desk
from agent.remote.keys import key_troubles
from agent.remote.operating import Operator
from config.settings import Remote

pytestmark = needs_mosquitto
GOLDEN = Path(__file__).parent / "golden" / "config-schemas.json"


@pytest.fixture
def stillwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """`stillwatch config …` in this process, with the test's folder as working directory."""
    monkeypatch.chdir(tmp_path)
    return caller(monkeypatch, capsys, "config")


@pytest.fixture
def broker() -> Iterator[LocalBroker]:
    with LocalBroker() as started:
        yield started


@contextmanager
def box(url: str, folder: Path, applier: MemoryApplier, keys: str = OPS.line + NEXT.line) -> Iterator[None]:
    """The device `box`: a link to the broker, and behind it an applier in memory."""
    file = folder / "box.keys"
    file.write_text(keys)
    with agent(url) as running:
        settings = Remote(keys=file, groups=["north"])
        desk = open_desk(settings, applier, TOPICS, folder, lambda: running.link)
        attach(desk, running.link, TOPICS)
        desk.start()
        try:
            yield
        finally:
            desk.close()


def reported(subscriber: Subscriber) -> list[Reported]:
    return [Reported.model_validate_json(message.payload) for message in subscriber.on(TOPICS.reported)]


def test_an_operator_s_day(tmp_path: Path, broker: LocalBroker, stillwatch: Call) -> None:
    applier = MemoryApplier()
    to = ("--broker", broker.url, "--device", "box")
    made = stillwatch("keygen", "ops-7.key")
    assert made.status == 0 and stat.S_IMODE(Path("ops-7.key").stat().st_mode) == 0o600
    assert stillwatch("keygen", "ops-7.key").status == 78
    with box(broker.url, tmp_path, applier, keys=made.out), Subscriber(broker.port, topic=TOPICS.reported) as seen:
        until(lambda: seen.last(TOPICS.reported), "the first report")
        Path("change.yaml").write_text("profile: sports\n")
        checked = stillwatch("push", "change.yaml", "--key", "ops-7.key", "--check", *to)
        assert checked.status == 0
        assert 'profile: null -> "sports"' in checked.out and "restarts: agent" in checked.out
        assert applier.version == 0
        pushed = stillwatch("push", "change.yaml", "--key", "ops-7.key", "--wait", *to)
        assert pushed.status == 0 and "version 1 applied (200)" in pushed.out
        assert applier.overlay == {"profile": "sports"}
        Path("change.yaml").write_text("fidelity_floor: 0.9\n")
        signed = stillwatch(
            "sign", "change.yaml", "--key", "ops-7.key", "--version", 2, "--group", "north", "--replace"
        )
        Path("two.json").write_text(signed.out)
        assert stillwatch("push", "two.json", "--wait", *to).status == 0
        assert applier.overlay == {"fidelity_floor": 0.9}
        back = stillwatch("rollback", "--key", "ops-7.key", "--wait", "--yes", *to)
        assert back.status == 0 and "version 3 applied (200)" in back.out
        assert (applier.version, applier.overlay) == (3, {"profile": "sports"})
        Path("change.yaml").write_text("model: /tmp/x\n")
        refused = stillwatch("push", "change.yaml", "--key", "ops-7.key", "--wait", *to)
        assert refused.status == 1
        assert "version 4 rejected (403)" in refused.out and "model: can't be set from afar" in refused.err
        applier.ends = Step("rolled_back", "front gave no frames", 422)
        Path("change.yaml").write_text("profile: movie\n")
        failed = stillwatch("push", "change.yaml", "--key", "ops-7.key", "--wait", *to)
        assert failed.status == 1 and "rolled_back (422): front gave no frames" in failed.out
        shown = stillwatch("status", *to).out
        assert 'running  version 3: {"profile": "sports"}' in shown
        assert "version 4 rolled_back (422)" in shown and "signed by ops-7: told of above" in shown
        told = json.loads(stillwatch("status", "--json", *to).out)
        assert (told["highest"], told["previous"]["config"]) == (4, {"fidelity_floor": 0.9})
        states = [report.state for report in reported(seen) if report.version == 1]
        assert states == ["checked", "staged", "applying", "probation", "applied"]


def test_what_the_broker_has_kept_is_applied_once(tmp_path: Path, broker: LocalBroker) -> None:
    applier = MemoryApplier()
    with Subscriber(broker.port, topic=TOPICS.reported) as seen:
        seen.publish(TOPICS.desired, OPS.seal(document(3), "kept"), retain=True)
        for _ in range(2):
            before = len(reported(seen))
            with box(broker.url, tmp_path, applier):
                until(lambda: [r for r in reported(seen)[before:] if r.id == "kept"][-1:], "a report of it")  # noqa: B023
                until(lambda: reported(seen)[-1].state == "applied", "its end")
        assert len(applier.applied) == 1


def test_a_report_is_kept_by_the_broker_and_told_again_after_a_restart(tmp_path: Path, broker: LocalBroker) -> None:
    applier = MemoryApplier()
    with box(broker.url, tmp_path, applier), Subscriber(broker.port, topic=TOPICS.reported) as seen:
        until(lambda: reported(seen), "the first report")  # what is not retained is lost before
        seen.publish(TOPICS.desired, OPS.seal(document(1), "one"))
        until(lambda: reported(seen) and reported(seen)[-1].state == "applied", "its end")
    with Subscriber(broker.port, topic=TOPICS.reported) as late:
        until(lambda: late.on(TOPICS.reported), "what the broker keeps")
        assert late.on(TOPICS.reported)[0].retain
        assert (reported(late)[0].id, reported(late)[0].state) == ("one", "applied")
        late.publish(TOPICS.reported, b"", retain=True)
        until(lambda: len(late.on(TOPICS.reported)) >= 2, "that it is gone")
        with box(broker.url, tmp_path, applier):
            until(lambda: len(late.on(TOPICS.reported)) >= 3, "the report after a restart")
        last = Reported.model_validate_json(late.on(TOPICS.reported)[2].payload)
        assert (last.id, last.version, last.state, last.code) == ("one", 1, "applied", 200)


def test_hostile_documents_over_the_wire(tmp_path: Path, broker: LocalBroker) -> None:
    applier = MemoryApplier()
    with box(broker.url, tmp_path, applier), Subscriber(broker.port, topic=TOPICS.reported) as seen:
        until(lambda: reported(seen), "the first report")
        for payload in history():
            seen.publish(TOPICS.desired, payload)
        until(lambda: applier.version == len(history()), "the history")
        until(lambda: (reported(seen)[-1].version, reported(seen)[-1].state) == (BASE, "applied"), "its report")
        before = applier.state
        for attack in islice(hostile(11, datetime.now(timezone.utc)), 2 * len(KINDS)):
            count = len(seen.on(TOPICS.reported))
            seen.publish(TOPICS.desired, attack.payload)
            until(lambda: len(seen.on(TOPICS.reported)) > count, f"an answer to {attack.kind}")  # noqa: B023
            assert reported(seen)[-1].code == attack.code, attack
            assert applier.state == before, attack
        seen.publish(TOPICS.desired, b"{" + b" " * 2**21, retain=True)  # never delivered
        seen.publish(TOPICS.desired, NEXT.seal(document(900)))
        until(lambda: applier.version == 900, "a good one")


def test_an_operator_learns_why_nothing_happens(tmp_path: Path, broker: LocalBroker, stillwatch: Call) -> None:
    to = ("--broker", broker.url, "--device", "box")
    Path("change.yaml").write_text("profile: sports\n")
    stillwatch("keygen", "a.key")
    nobody = stillwatch("push", "change.yaml", "--key", "a.key", *to)
    assert nobody.status == 69 and "never reported" in nobody.err
    silent = stillwatch("push", "change.yaml", "--key", "a.key", "--version", 1, "--wait", "--timeout", 1, *to)
    assert silent.status == 69 and "takes it when it is back" in silent.err
    Path("a.key").chmod(0o644)
    open_key = stillwatch("push", "change.yaml", "--key", "a.key", "--version", 1, *to)
    assert open_key.status == 78 and "chmod 600" in open_key.err
    assert stillwatch("push", "change.yaml", *to).status == 2
    assert stillwatch("push", "change.yaml", "--unsigned").status == 2
    assert stillwatch("status", "--broker", "mqtt://127.0.0.1:1", "--device", "box").status == 69
    with Subscriber(broker.port) as forger:
        huge = {"v": 1, "ts": "2026-03-14T06:00:00Z", "device": "box", "state": "applied", "code": 200}
        huge |= {"highest": 2**53 - 2, "running": {"version": 2**53 - 2}}
        forger.publish(TOPICS.reported, json.dumps(huge), retain=True)
        until(lambda: forger.on(TOPICS.reported), "the forged report")
    Path("a.key").chmod(0o600)
    fooled = stillwatch("push", "change.yaml", "--key", "a.key", *to)
    assert fooled.status == 78 and "give --version" in fooled.err


def test_a_broker_with_an_access_list_says_no_by_itself(stillwatch: Call) -> None:
    acl = ("user reader", "topic read stillwatch/#")
    Path("change.yaml").write_text("profile: sports\n")
    with guarded_broker(*acl, reader="secret") as guarded:
        stillwatch("keygen", "a.key")
        Path("pw").write_text("secret\n")
        to = ("--broker", guarded.url, "--device", "box", "--user", "reader", "--password", "file:pw")
        denied = stillwatch("push", "change.yaml", "--key", "a.key", "--version", 1, *to)
        assert denied.status == 69 and "Not authorized" in denied.err and "secret" not in denied.err
        assert stillwatch("push", "change.yaml", "--key", "a.key", "--version", 1, *to[:4]).status == 69


@pytest.mark.parametrize("silent", [False, True], ids=["it says so", "it just hangs up"])
def test_an_operator_meets_a_broker_that_speaks_only_3_1_1(broker: LocalBroker, silent: bool) -> None:
    with (
        Subscriber(broker.port) as watcher,
        Proxy(broker.port, only_311=True, silent=silent) as old,
        Operator(BrokerAddress.parse(old.url), TOPICS) as operator,
    ):
        operator.publish(b"{}", retain=False)
        until(lambda: watcher.on(TOPICS.desired), "the document")


def test_a_key_may_have_a_passphrase(stillwatch: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHRASE", "a long one")
    Path("change.yaml").write_text("profile: sports\n")
    assert stillwatch("keygen", "a.key", "--passphrase", "env:PHRASE").status == 0
    command = ("sign", "change.yaml", "--key", "a.key", "--device", "box", "--version", 1)
    assert stillwatch(*command).status == 78
    assert stillwatch(*command, "--passphrase", "env:PHRASE").status == 0
    assert stillwatch(*command, "--passphrase", "a long one").status == 2


def test_troubles_with_keys_are_told_in_words(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    remote = Remote(keys=file)
    assert "can't read" in key_troubles(remote)[0]
    file.write_text("# none yet\n")
    assert "holds no key" in key_troubles(remote)[0]
    file.write_text(OPS.line + OPS.line)
    assert f"{file}:2" in key_troubles(remote)[0]
    file.write_text(OPS.line + NEXT.line)
    assert key_troubles(remote) == ()
    file.chmod(0o666)
    assert "anybody may write" in key_troubles(remote)[0]


def test_schemas_are_those_that_operators_know() -> None:
    """Write them anew with STILLWATCH_WRITE_GOLDEN=1 when a change is meant, and say so in the changelog."""
    from test_events_model import _essence

    now = _essence(json_schemas())
    if os.environ.get("STILLWATCH_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert now == json.loads(GOLDEN.read_text(encoding="utf-8"))
