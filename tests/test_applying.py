"""A running agent gets another configuration: camera by camera, proved or taken back, and the same after a restart."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mqtt_world import Subscriber, needs_mosquitto, until
from pydantic import JsonValue

from agent.applying.checking import check, exclusive
from agent.applying.contract import FINAL, Candidate, Difference, Refused, Step
from agent.applying.differing import needs_agent
from agent.applying.engine import Patience
from agent.applying.journal import Journal, Record
from agent.applying.proving import CameraHealth, Health, Limits, verdict
from agent.applying.starting import settings_at_start
from agent.capture.worker import Phase
from agent.daemon import Daemon, RunOptions
from agent.mqtt.broker import LocalBroker
from agent.remote.allowed import ALLOWED
from agent.signals import reloaded_by_signal
from config.document import Document
from config.layers import Layers
from config.loading import validate
from config.settings import Camera

SCENE = "scene:{}?fps=5&width=160&height=96"
DOOR = [[0, 0], [80, 0], [80, 90]]
pytestmark = pytest.mark.timeout(300)


def base(**more: Any) -> dict[str, Any]:
    cameras = {"a": {"source": SCENE.format("street")}, "b": {"source": SCENE.format("yard")}}
    return {"device": {"id": "box"}, "cameras": cameras, "events": {"dir": "state", "clips": None}, **more}


@contextmanager
def running(folder: Path, document: dict[str, Any], options: RunOptions | None = None) -> Iterator[Daemon]:
    """An agent with this configuration as its file, in a thread, once every camera has given a frame."""
    file = folder / "agent.yaml"
    document = {**document, "events": {**document["events"], "dir": str(folder / "state")}}
    file.write_text(json.dumps(document))
    layers = Layers(file)
    daemon, stop = Daemon(validate(layers.document(layers.text())), options, layers), threading.Event()
    thread = threading.Thread(target=daemon.run, args=(stop,))
    thread.start()
    try:
        until(lambda: all(camera.watch.frames for camera in daemon.cameras.values()), "frames")
        yield daemon
    finally:
        stop.set()
        thread.join(30)
        daemon.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("agent"), base()) as made:
        yield made


def candidate(daemon: Daemon, overlay: Mapping[str, JsonValue], *, probation_s: float = 0.5) -> Candidate:
    version = daemon.applier.version + 1
    return Candidate(overlay, version, f"digest {version}", probation_s, "remote")


def applied(daemon: Daemon, wanted: Candidate) -> list[Step]:
    """Every step of an apply, once it is over."""
    steps: list[Step] = []
    daemon.applier.submit(wanted, steps.append)
    until(lambda: steps and steps[-1].state in FINAL and not daemon.applier.busy, "the end of the apply")
    return steps


def door(camera: str = "a", polygon: Any = DOOR) -> dict[str, JsonValue]:
    return {"cameras": {camera: {"zones": {"door": polygon}}}}


def test_zones_of_one_camera_restart_that_camera_alone_and_it_keeps_what_it_learned(daemon: Daemon) -> None:
    a, b = daemon.cameras["a"], daemon.cameras["b"]
    until(lambda: a.watch.learned > 0, "something to be learned")
    frames, learned = b.watch.frames, a.watch.learned
    a.reporter.mute(1000)
    a.reporter.lost("no answer")
    wanted = candidate(daemon, door())
    plan = daemon.applier.plan(wanted)
    assert plan.restarts == ("a",)
    assert [(d.path, d.before, d.after) for d in plan.diff] == [
        ("cameras.a.zones.door", None, [[float(x), float(y)] for x, y in DOOR])
    ]
    assert daemon.cameras["a"] is a, "a plan changes nothing"
    steps = applied(daemon, wanted)
    assert [step.state for step in steps] == ["staged", "applying", "probation", "applied"]
    new = daemon.cameras["a"]
    assert new is not a and a.done
    assert daemon.cameras["b"] is b and not b.done
    until(lambda: b.watch.frames > frames + 3 and new.watch.frames, "frames of both")
    assert b.watch.modes["error"] == 0 and b.capture.phase is Phase.STREAMING
    assert new.watch.learned >= learned
    assert new.reporter.muted_until is not None
    (loss,) = (event for event in daemon._book.remembered() if event.kind == "health" and event.camera == "a")
    assert (loss.type.value, loss.degraded) == ("end", ()), "the new one gives frames"
    assert daemon.applier.last == (wanted.version, Step("applied", None, 200))
    assert (daemon.applier.version, daemon.applier.digest) == (wanted.version, wanted.digest)


@pytest.mark.parametrize(
    ("overlay", "code", "path", "says"),
    [
        ({"cameras": {"a": {"zone": {}, "sorce": 1}}}, 400, "cameras.a.sorce", "did you mean source?"),
        ({"cameras": {"c": {"fps": 5}}}, 400, "cameras.c.source", "missing"),
        ({"cameras": 5}, 400, "cameras", "expected keys and values"),
        (door(polygon=[[0, 0], [400, 0], [400, 90]]), 422, "cameras.a.zones.door", "outside of the picture of 160×96"),
        ({"cameras": {"c": {"source": "/no/such.mp4"}}}, 422, "cameras.c.source", "No such file"),
        ({"cameras": {"a": {"source": "rtsp://u:hunter2@127.0.0.1:1/x"}}}, 422, "cameras.a.source", "127.0.0.1"),
        ({"mqtt": {"url": "mqtt://127.0.0.1:1"}}, 422, "mqtt", "decided at the box"),
        ({"model": "/no/model"}, 422, "model", "no/model"),
        ({"events": {"dir": "/tmp/x"}}, 422, "events.dir", "when the agent is started again"),
        ({"cameras": {"a": {"credentials": "env:NOT_THERE_AT_ALL"}}}, 422, "cameras.a.credentials", "not set"),
    ],
)
def test_what_can_not_work_is_refused_at_once_and_nothing_changes(
    daemon: Daemon, overlay: dict[str, JsonValue], code: int, path: str, says: str
) -> None:
    before, version = dict(daemon.cameras), daemon.applier.version
    for ask in (daemon.applier.plan, lambda c: daemon.applier.submit(c, lambda _step: None)):
        with pytest.raises(Refused) as refused:
            ask(candidate(daemon, overlay))
        found = dict(refused.value.errors)
        assert refused.value.code == code
        assert any(says in message for at, message in found.items() if at == path or path.startswith(at)), found
        assert "hunter2" not in str(refused.value)
    assert dict(daemon.cameras) == before and daemon.applier.version == version
    assert not daemon.applier.busy


def test_a_second_one_has_to_wait(daemon: Daemon) -> None:
    first = candidate(daemon, door("b"), probation_s=2.0)
    steps: list[Step] = []
    daemon.applier.submit(first, steps.append)
    with pytest.raises(Refused) as refused:
        daemon.applier.submit(candidate(daemon, {}), steps.append)
    assert refused.value.code == 409
    until(lambda: steps and steps[-1].state in FINAL, "the end of the first")
    assert steps[-1].state == "applied"
    until(lambda: not daemon.applier.busy, "its end")


def test_a_camera_that_gives_no_frames_after_all_is_taken_back(daemon: Daemon, tmp_path: Path) -> None:
    picture = tmp_path / "still.png"
    cv2.imwrite(str(picture), np.full((96, 160, 3), 90, np.uint8))
    overlay, version = dict(daemon.applier.overlay), daemon.applier.version
    wanted = candidate(daemon, {"cameras": {"a": {"source": str(picture)}}})
    steps: list[Step] = []

    def tell(step: Step) -> None:
        picture.unlink(missing_ok=True)  # between the check and the change
        steps.append(step)

    daemon.applier.submit(wanted, tell)
    until(lambda: steps and steps[-1].state in FINAL and not daemon.applier.busy, "the end of the apply")
    assert [step.state for step in steps] == ["staged", "applying", "rolled_back"]
    assert "camera a gives no frames" in str(steps[-1].reason) and steps[-1].code == 422
    assert daemon.applier.last == (wanted.version, steps[-1])
    assert (dict(daemon.applier.overlay), daemon.applier.version) == (overlay, version)
    a = daemon.cameras["a"]
    until(lambda: not a.done and a.watch.frames, "frames of the camera as it was")


def test_a_fault_of_ours_on_the_way_takes_it_back_too(daemon: Daemon) -> None:
    zones, steps = dict(daemon.applier.settings.cameras["b"].zones), list[Step]()

    def tell(step: Step) -> None:
        steps.append(step)
        if step.state == "probation":
            raise RuntimeError("whoever listens is broken")

    daemon.applier.submit(candidate(daemon, door("b", [[0, 0], [9, 0], [9, 9]])), tell)
    until(lambda: steps and steps[-1].state in FINAL and not daemon.applier.busy, "the end of the apply")
    assert steps[-1] == Step("rolled_back", "internal error: RuntimeError; see the log", 500)
    assert dict(daemon.applier.settings.cameras["b"].zones) == zones
    b = daemon.cameras["b"]
    until(lambda: b.watch.frames and not b.done, "frames of the camera as it was")


def test_a_camera_comes_and_goes_and_nothing_of_it_stays(daemon: Daemon) -> None:
    up = partial(daemon.metrics.registry.get_sample_value, "stillwatch_camera_up", {"camera": "c"})
    overlay: dict[str, JsonValue] = {"cameras": {"c": {"source": SCENE.format("yard")}}}
    assert applied(daemon, candidate(daemon, overlay))[-1].state == "applied"
    assert list(daemon.cameras) == ["a", "b", "c"]
    watch = weakref.ref(daemon.cameras["c"].watch)
    until(lambda: up() == 1.0, "its frames")
    gc.disable()  # what it holds must not wait for the collector
    try:
        assert applied(daemon, candidate(daemon, {}))[-1].state == "applied"
        assert sorted(daemon.cameras) == ["a", "b"]
        until(lambda: up() is None and watch() is None, "its end")
    finally:
        gc.enable()


def test_what_was_sent_outlives_a_restart_and_a_file_that_it_does_not_fit(tmp_path: Path) -> None:
    with running(tmp_path, base()) as daemon:
        assert applied(daemon, candidate(daemon, door("b")))[-1].state == "applied"
    with running(tmp_path, base(profile="security")) as daemon:
        assert set(daemon.applier.settings.cameras["b"].zones) == {"door"}
        assert daemon.applier.settings.profile == "security"
        assert daemon.applier.last == (1, Step("applied", None, 200)) and not daemon.applier.troubles
    alone = base()
    del alone["cameras"]["b"]
    with running(tmp_path, alone) as daemon:
        assert list(daemon.cameras) == ["a"]
        (trouble,) = daemon.applier.troubles
        assert "version 1, is not in force" in trouble and "cameras.b.source: missing" in trouble


def test_a_changed_file_is_applied_and_a_bad_one_is_told_and_survived(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    with running(tmp_path, base()) as daemon:
        good = json.loads(file.read_text())
        good["cameras"]["b"]["zones"] = {"door": DOOR}
        a, b = daemon.cameras["a"], daemon.cameras["b"]
        file.write_text(json.dumps(good))
        until(lambda: daemon.cameras["b"] is not b, "the camera of the new file")
        assert daemon.cameras["a"] is a
        daemon.applier._closing.set()  # of its probation: what follows must not wait for that
        until(lambda: not daemon.applier.busy, "the end of the apply")
    with running(tmp_path, good | {"cameras": {"a": good["cameras"]["a"]}}) as daemon:
        file.write_text("cameras: {a: {sorce: x}}\n")
        until(lambda: daemon.applier.troubles, "the refusal")
        (trouble,) = daemon.applier.troubles
        assert "unknown key; did you mean source?" in trouble and f"{file}:1" in trouble
        assert list(daemon.cameras) == ["a"] and not daemon.cameras["a"].done
    layers = Layers(file, options={("events", "dir"): ("--state", str(tmp_path / "state"))})
    assert list(settings_at_start(layers).cameras) == ["a"], "the next start is not kept off by it"


def test_a_file_that_the_agent_died_over_is_not_in_force_until_it_changes(tmp_path: Path) -> None:
    with running(tmp_path, base()) as daemon:
        good = daemon.applier._journal.committed
    bad = base(profile="sports")
    text = json.dumps({**bad, "events": {**bad["events"], "dir": str(tmp_path / "state")}})
    Journal(tmp_path / "state" / "config").stage(good.model_copy(update={"text": text}))
    with running(tmp_path, bad) as daemon:
        assert daemon.applier.settings.profile == "general"
        assert "the agent died or lost power" in daemon.applier.troubles[0]
    with running(tmp_path, base(profile="movie")) as daemon:
        assert daemon.applier.settings.profile == "movie" and not daemon.applier.troubles


def test_sighup_has_the_file_read_again_and_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "agent.yaml"
    with running(tmp_path, base()) as daemon, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        good, before = file.read_text(), file.stat()
        file.write_text(good.replace('"cameras"', '"camaras"'))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # a look at the file doesn't tell
        with reloaded_by_signal(daemon.reload):
            os.kill(os.getpid(), signal.SIGHUP)
            until(lambda: daemon.applier.troubles, "the refusal")
        assert "did you mean cameras?" in daemon.applier.troubles[0]
        said = ""
        while "READY=1" not in said:
            said += systemd.recv(4096).decode() + "\n"
        assert "RELOADING=1\nMONOTONIC_USEC=" in said


def test_a_device_that_is_held_is_not_opened_again() -> None:
    opened: list[str] = []
    document = base()
    document["cameras"]["a"]["source"] = "/dev/video0?size=640x480"
    before = validate(Document("before", document))
    document["cameras"] |= {"c": {"source": "v4l2:///dev/video0"}, "d": {"source": "/dev/video1"}}
    document["cameras"]["a"]["source"] = "/dev/video0?size=1280x720"
    after = validate(Document("after", document))

    def look(name: str, _camera: Camera) -> tuple[int, int]:
        opened.append(name)
        return 640, 480

    check(before, after, {}, look)
    assert opened == ["d"]
    assert exclusive("csi://0?size=640x480") == "csi://0" and exclusive("rtsp://a/b") is None


def test_a_second_crash_leads_to_safe_mode_and_a_good_configuration_out_of_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state" / "config")
    journal.stage(Record(overlay=door(), version=1, digest="d", remote=True))
    Journal(tmp_path / "state" / "config").begin()  # the start after the first crash, which crashed as well
    with running(tmp_path, base()) as daemon:
        assert not daemon.cameras
        assert daemon.applier.last is not None and daemon.applier.last[1].state == "rolled_back"
        (trouble,) = daemon.applier.troubles
        assert trouble.startswith("safe mode: the agent died twice")
        assert applied(daemon, candidate(daemon, door("b")))[-1].state == "applied"
        assert sorted(daemon.cameras) == ["a", "b"] and not daemon.applier.troubles
        until(lambda: all(camera.watch.frames for camera in daemon.cameras.values()), "frames")


@pytest.mark.parametrize("key", ALLOWED)
def test_nothing_that_may_be_set_from_afar_needs_another_start(key: str) -> None:
    assert needs_agent((Difference(key.replace("*", "a"), None, 1),)) == ()
    assert needs_agent((Difference("limits.memory_mb", None, 1000),)) == ("limits.memory_mb",)


def test_safe_mode_tries_again_by_itself_until_it_works(tmp_path: Path) -> None:
    document, picture = base(), tmp_path / "later.png"
    document["cameras"]["b"]["source"] = str(picture)
    journal = Journal(tmp_path / "state" / "config")
    journal.stage(Record(version=1, digest="d", remote=True))
    Journal(tmp_path / "state" / "config").begin()
    with running(tmp_path, document, RunOptions(patience=Patience(again=0.1))) as daemon:
        until(lambda: "later.png" in "".join(daemon.applier.troubles), "a first try")
        assert daemon.applier.troubles[0].startswith("safe mode") and not daemon.cameras
        cv2.imwrite(str(picture), np.full((96, 160, 3), 90, np.uint8))
        until(lambda: sorted(daemon.cameras) == ["a", "b"] and not daemon.applier.troubles, "a second")
        until(lambda: all(camera.watch.frames for camera in daemon.cameras.values()), "frames")
    assert Journal(tmp_path / "state" / "config").committed.version == 0, "as before the change that crashed"
    assert not (tmp_path / "state/config/candidate.json").exists()


def test_a_crash_counts_until_the_configuration_from_before_has_run_for_a_while(tmp_path: Path) -> None:
    """Else the next crash, of years later and for another reason, would lead to safe mode."""
    candidate_file = tmp_path / "state/config/candidate.json"
    Journal(tmp_path / "state" / "config").stage(Record(version=1, digest="d", remote=True))
    with running(tmp_path, base(), RunOptions(patience=Patience(settled=0.1))) as daemon:
        assert sorted(daemon.cameras) == ["a", "b"]
        until(lambda: not candidate_file.exists(), "the end of the count")
        assert daemon.applier.last is not None and daemon.applier.last[1].state == "rolled_back"


@needs_mosquitto
def test_losing_the_broker_while_it_must_prove_itself_takes_it_back(tmp_path: Path) -> None:
    with LocalBroker() as broker, running(tmp_path, base(mqtt={"url": broker.url})) as daemon:
        until(lambda: daemon.link is not None and daemon.link.state.connected, "the broker")
        steps: list[Step] = []

        def tell(step: Step) -> None:
            steps.append(step)
            if step.state == "probation":
                broker.stop()

        daemon.applier.submit(candidate(daemon, door(), probation_s=10.0), tell)
        until(lambda: steps and steps[-1].state in FINAL, "the end of the apply")
        assert steps[-1] == Step("rolled_back", "the broker was lost", 422)
        assert not daemon.applier.settings.cameras["a"].zones


@needs_mosquitto
def test_the_status_topic_tells_of_safe_mode(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state" / "config")
    journal.stage(Record(version=1, digest="d", remote=True))
    Journal(tmp_path / "state" / "config").begin()
    with (
        LocalBroker() as broker,
        Subscriber(broker.port) as subscriber,
        running(tmp_path, base(mqtt={"url": broker.url})),
    ):
        until(lambda: "safe mode" in (subscriber.last("stillwatch/box/status") or ""), "the status")
        assert subscriber.last("stillwatch/box/availability") == "online"


def health(**changes: Any) -> Health:
    one = CameraHealth(made=1, age_s=0.2, ended=False, failed=None, frame_ms=20.0)
    whole = Health({"a": one}, connected=True, resident=1 << 30, hot=None)
    of_box = {key: changes.pop(key) for key in ("connected", "resident", "hot") if key in changes}
    return replace(whole, cameras={"a": replace(one, **changes)}, **of_box)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ({}, None),
        ({"age_s": 60.0}, "camera a gave frames before and gives none now"),
        ({"age_s": None, "made": 2}, "camera a gave frames before and gives none now"),
        ({"age_s": None, "ended": True}, None),
        ({"failed": "gone"}, "camera a failed: gone"),
        ({"made": 2, "frame_ms": 111.0}, "frames of camera a take 111 ms, 20 ms before"),
        ({"made": 2, "frame_ms": 109.0}, None),
        ({"connected": False}, "the broker was lost"),
        ({"resident": 3 << 30}, "memory grew from 1024 to 3072 MiB"),
        ({"hot": "does less: 99 °C"}, "the box does less: 99 °C"),
    ],
)
def test_a_verdict_compares_with_before(now: dict[str, Any], says: str | None) -> None:
    assert verdict(health(), health(**now), Limits()) == says
    if says is not None and "memory" not in says:
        assert verdict(health(**now), health(**now), Limits()) is None, "what was so before is no reason to go back"
