"""Heartbeats, watchdog, words to systemd, health, the endpoint, the memory ceiling, the rescue of events."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqtt_world import until
from prometheus_client import CollectorRegistry, Gauge
from service_world import NotifySocket

from agent import notify
from agent.capture.worker import CaptureState, Phase
from agent.events.book import EventBook
from agent.events.model import Anomaly, Severity
from agent.events.outbox import Outbox
from agent.metrics import Metrics
from agent.mqtt.topics import Topics
from agent.service import rescue
from agent.service.endpoint import Endpoint
from agent.service.health import Health
from agent.service.memory import SHARES, Ladder, MemoryGuard, cgroup_limit
from agent.service.progress import Progress
from agent.service.watchdog import Watchdog
from config.errors import ConfigError

ROOT = Path(__file__).parents[1]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["abstract", "file"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    listener = NotifySocket(None if request.param == "abstract" else tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
    yield listener
    listener.close()


def test_what_systemd_is_told(systemd: NotifySocket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notify.reloading()
    word, stamp = systemd.receive(5.0) or ("", "")
    assert word == "RELOADING=1" and stamp.startswith("MONOTONIC_USEC=")
    assert before <= int(stamp.partition("=")[2]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    for say, lines in (
        (notify.ready, ("READY=1",)),
        (notify.stopping, ("STOPPING=1",)),
        (notify.feed_watchdog, ("WATCHDOG=1",)),
        (lambda: notify.status("two\nlines"), ("STATUS=two lines",)),
        (lambda: notify.extend_start(1.5), ("EXTEND_TIMEOUT_USEC=1500000",)),
    ):
        assert say() and systemd.receive(5.0) == lines


def test_without_systemd_nothing_is_said_and_nothing_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for address in (None, "", "relative", str(tmp_path / "gone")):
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        if address is not None:
            monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert not notify.ready()


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("3000000", None, 3.0), ("3000000", "own", 3.0), ("3000000", "1", None), (None, None, None), ("x", None, None)],
)
def test_the_watchdog_s_period_is_for_this_process_alone(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, expected: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert notify.watchdog_s() == expected


def test_a_loop_is_late_when_it_neither_beats_nor_says_that_it_waits() -> None:
    clock = Clock()
    progress = Progress(10.0, clock)
    beat, other = progress.loop("frames"), progress.loop("events")
    clock.now += 100
    assert progress.late() == []  # neither has begun
    beat.beat()
    other.beat(ahead_s=5.0)
    clock.now += 11
    assert [late.loop for late in progress.late()] == ["frames"]
    clock.now += 5
    assert [late.loop for late in progress.late()] == ["frames", "events"]
    beat.idle()
    other.beat()
    assert progress.late() == []


def test_a_loop_that_is_retired_does_not_silence_another_of_its_name() -> None:
    clock = Clock()
    progress = Progress(10.0, clock)
    old, new = progress.loop("frames front"), progress.loop("frames front")
    old.beat()
    new.beat()
    clock.now += 11
    progress.retire(new)  # the new camera was rolled back
    assert progress.loops == {"frames front": 11.0} and len(progress.late()) == 1
    progress.retire(old)
    assert progress.late() == []


def test_the_watchdog_is_fed_while_all_go_on_and_pulled_when_one_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = NotifySocket()
    monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
    clock, progress, saved = Clock(), Progress(), []
    progress._clock = clock
    beat = progress.loop("frames front")
    beat.beat()
    watchdog = Watchdog(
        progress,
        status=lambda: "1 camera",
        rescue=lambda late: saved.extend(late),
        period_s=0.8,
    )
    with watchdog:
        watchdog.start()
        said = {listener.receive(20.0) for _ in range(4)}
        assert {("WATCHDOG=1",), ("STATUS=1 camera",)} <= said
        assert saved == []
        clock.now += 0.5  # late, and not yet hanging
        until(lambda: saved, "the rescue")
        words: list[tuple[str, ...]] = []
        until(lambda: words.append(listener.receive(1.0) or ()) or "frames front has not" in str(words), "STATUS=")
        clock.now += 0.4
        until(lambda: words.append(listener.receive(1.0) or ()) or "WATCHDOG=trigger" in words[-1], "the trigger")
        late = next(number for number, word in enumerate(words) if "frames front has not" in str(word))
        assert ("WATCHDOG=1",) not in words[late:]
        beat.beat()
        until(lambda: listener.receive(1.0) == ("WATCHDOG=1",), "food again")
    listener.close()


class OneCamera:
    def __init__(self, phase: Phase, reason: str | None = None) -> None:
        self.capture = CaptureState(phase, reason)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "events.db") as made:
        yield made


def test_status_and_readiness_name_the_camera_that_is_lost(outbox: Outbox) -> None:
    cameras = {"front": OneCamera(Phase.STREAMING), "back": OneCamera(Phase.RECONNECTING, "no route")}
    health = Health(Progress(), cameras, outbox)
    assert health.status() == "2 cameras, 1 lost; no broker; 0 events wait"
    ready = health.ready()
    assert not ready.well and ready.document["reasons"] == ["camera back: reconnecting: no route"]
    assert ready.document["cameras"] == {"front": "streaming", "back": "reconnecting"}
    cameras["back"] = OneCamera(Phase.ENDED)
    assert health.ready().well
    assert health.alive().well  # a camera that is away is no reason to start the agent again


def ask(port: int, request: bytes) -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(request)
        answer = b""
        while part := client.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.fixture
def endpoint(outbox: Outbox) -> Iterator[tuple[int, Progress, Clock]]:
    clock = Clock()
    progress, registry = Progress(10.0, clock), CollectorRegistry()
    Gauge("some", "One.", registry=registry)
    with Endpoint(0, registry, Health(progress, {"front": OneCamera(Phase.FAILED, "gone")}, outbox)) as made:
        yield made.port, progress, clock


def test_probes_get_yes_or_no_with_reasons(endpoint: tuple[int, Progress, Clock]) -> None:
    port, progress, clock = endpoint
    assert b"some 0.0" in ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")[1]
    assert ask(port, b"GET /healthz HTTP/1.0\r\n\r\n")[0] == 200
    progress.loop("mqtt").beat()
    clock.now += 11
    status, body = ask(port, b"GET /healthz?verbose HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 503 and json.loads(body)["reasons"] == ["mqtt has not gone on for 11 s"]
    status, body = ask(port, b"GET /readyz HTTP/1.1\r\n\r\n")
    assert status == 503 and json.loads(body)["reasons"] == ["camera front: failed: gone"]
    assert ask(port, b"HEAD /readyz HTTP/1.1\r\n\r\n") == (503, b"")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /else HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
        (b"GET /metrics SIP/2.0\r\n\r\n", 400),
    ],
)
def test_what_is_no_question_gets_an_answer_all_the_same(
    endpoint: tuple[int, Progress, Clock], request_: bytes, status: int
) -> None:
    assert ask(endpoint[0], request_)[0] == status


def test_clients_that_say_nothing_keep_no_thread_for_long(endpoint: tuple[int, Progress, Clock]) -> None:
    port = endpoint[0]
    silent = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(8)]
    try:
        until(lambda: sum("process_request" in thread.name for thread in threading.enumerate()) >= 8, "all to be taken")
        with socket.create_connection(("127.0.0.1", port), timeout=30) as ninth:
            assert ninth.recv(100) == b""  # closed without a word
        assert silent[0].recv(100).startswith(b"HTTP/1.1 408")
        until(lambda: _asks(port) == 200, "room again")
    finally:
        for client in silent:
            client.close()


def _asks(port: int) -> int:
    try:
        return ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")[0]
    except (OSError, IndexError):
        return 0


def test_a_port_that_is_taken_is_a_mistake_in_the_configuration(endpoint: tuple[int, Progress, Clock]) -> None:
    with pytest.raises(ConfigError, match=f"metrics.port: can't listen on 127.0.0.1:{endpoint[0]}"):
        Endpoint(endpoint[0], CollectorRegistry(), None)  # type: ignore[arg-type]


class Holding:
    def __init__(self) -> None:
        self.share = 1.0

    def shed(self, share: float) -> None:
        self.share = share


def test_memory_is_shed_in_steps_and_in_the_end_the_agent_ends() -> None:
    clock, camera, taken = Clock(), Holding(), [500]
    guard = MemoryGuard(1000, [camera], Metrics("0"), supervised=True, taken=lambda: taken[0], monotonic=clock)
    guard.tick()
    assert camera.share == 1.0 and guard.trouble is None
    taken[0] = 900
    guard.tick()
    assert camera.share == SHARES[1] and "memory is short" in (guard.trouble or "")
    taken[0] = 1001
    for _ in range(60):
        clock.now += 1
        guard.tick()
    assert camera.share == 0.0 and "no clips" in (guard.trouble or "")
    assert guard.end is not None and guard.end.exit_code == 1 and "limits.memory_mb" in str(guard.end)


def test_what_was_shed_comes_back_when_memory_has_been_calm() -> None:
    clock, camera, taken = Clock(), Holding(), [990]
    guard = MemoryGuard(1000, [camera], Metrics("0"), supervised=False, taken=lambda: taken[0], monotonic=clock)
    for _ in range(100):
        clock.now += 1
        guard.tick()
    assert camera.share == 0.0 and guard.end is None
    taken[0] = 1100
    for _ in range(100):
        clock.now += 1
        guard.tick()
    assert guard.end is None  # nobody would start it again
    taken[0] = 100
    for _ in range(200):
        clock.now += 1
        guard.tick()
    assert camera.share == 1.0 and guard.trouble is None


@given(st.lists(st.floats(0, 3), max_size=200), st.floats(0.1, 30))
def test_the_ladder_never_leaps_and_ends_only_above_the_limit(ratios: list[float], round_s: float) -> None:
    ladder, now, before = Ladder(), 0.0, 0
    for ratio in ratios:
        now += round_s
        step = ladder.process(ratio, now)
        assert abs(step - before) <= 1 and 0 <= step < len(SHARES)
        assert not ladder.over or (ratio > 1 and before == len(SHARES) - 1)
        before = step


def test_the_limit_of_the_control_group_is_read(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/system.slice/stillwatch.service"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    assert cgroup_limit(tmp_path) is None
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/stillwatch.service\n")
    (group / "memory.high").write_text("max\n")
    assert cgroup_limit(tmp_path) is None
    (group / "memory.high").write_text("2147483648\n")
    assert cgroup_limit(tmp_path) == 2147483648


def anomaly(camera: str = "front") -> Anomaly:
    now = datetime.now(timezone.utc)
    return Anomaly(camera=camera, frame_ts=now, frame_size=(320, 180), severity=Severity.HIGH, score=1.0)


def test_events_that_a_hanging_writer_holds_are_told_by_the_next_run(tmp_path: Path) -> None:
    topics, hang = Topics("stillwatch", "box"), threading.Event()
    with Outbox(tmp_path / "events.db") as outbox:
        append = outbox.append
        outbox.append = lambda *_: (hang.wait(60), append(*_))[1]  # type: ignore[method-assign]
        book = EventBook("box", outbox, topic_of=topics.event)
        ids = [book.publish(anomaly()) for _ in range(3)]
        until(lambda: len(book.unwritten()) == 3 and not book._queue.full(), "the writer to hang")
        rescue.save(tmp_path, book.unwritten())
        hang.set()
        book._queue.queue.clear()  # what the kill takes away
        book.close()
    assert rescue.recover(tmp_path) == 3
    assert not (tmp_path / rescue.NAME).exists() and rescue.recover(tmp_path) == 0
    with Outbox(tmp_path / "events.db") as outbox:
        waiting = outbox.pending(10)
        assert {stored.document["id"] for stored in waiting} == set(ids)
        assert all(stored.earlier_run and stored.topic == "stillwatch/box/front/alert" for stored in waiting)


def test_a_rescue_file_that_is_damaged_does_not_keep_the_agent_from_starting(tmp_path: Path) -> None:
    (tmp_path / rescue.NAME).write_text('[{"topic": 3')
    assert rescue.recover(tmp_path) == 0
    assert (tmp_path / "unwritten.damaged").exists()


def test_the_oldest_event_that_waits_dates_the_outbox(tmp_path: Path) -> None:
    clock = Clock()
    with (
        Outbox(tmp_path / "events.db", clock=clock) as outbox,
        EventBook("box", outbox, topic_of=Topics("stillwatch", "box").event) as book,
    ):
        assert outbox.oldest() is None
        book.publish(anomaly())
        assert book.flush(30)
        clock.now += 50
        assert outbox.oldest() == 100.0
        outbox.delivered([stored.row for stored in outbox.pending(10)])
        assert outbox.oldest() is None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_agent_above_its_limit_sheds_says_so_and_ends_in_order(tmp_path: Path) -> None:
    listener = NotifySocket()
    command = [sys.executable, "-m", "agent.cli", "run", "--source", "scene:street?fps=5", "--state", str(tmp_path)]
    environment = {**os.environ, "NOTIFY_SOCKET": listener.address, "STILLWATCH_LIMITS__MEMORY_MB": "100"}
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stderr, stderr=stderr)
    try:
        until(lambda: listener.receive(1.0) == ("READY=1",), "READY=1")
        assert process.wait(200) == 1, log.read_text()[-2000:]  # and nobody reads: the queue holds ten messages
    finally:
        process.kill()
        process.wait()
        listener.close()
    said = log.read_text().splitlines()
    steps = [json.loads(line) for line in said if "memory is short" in line and line[0] == "{"]
    assert [entry["step"] for entry in steps] == [1, 2]
    assert "limits.memory_mb" in said[-1]
