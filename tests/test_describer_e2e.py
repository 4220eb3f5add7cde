"""The whole agent with a vision server in another process: what leaves the box, and what comes of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from capture_media import write_clip
from mqtt_world import Subscriber, needs_mosquitto, until
from test_daemon_e2e import BASE, CUTTING, agent
from typer.testing import CliRunner
from vision_server import MODEL, Remote, vision_server

from agent.cli import app
from agent.mqtt.broker import LocalBroker

KEY = "sesame-open-17"
MASKED = {"left": [[0, 0], [160, 0], [160, 180], [0, 180]]}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def remote() -> Iterator[Remote]:
    with vision_server() as started:
        yield started


def written(folder: Path, remote: Remote, source: str, *, broker: str | None = None, **describer: object) -> Path:
    (folder / "key").write_text(KEY + "\n")
    config: dict[str, Any] = {
        "describer": {"url": remote.url, "model": MODEL, "key": f"file:{folder}/key", **describer},
        "cameras": {"front": {"source": source, "masks": MASKED}},
    }
    if broker is not None:
        config["mqtt"] = {"url": broker}
    file = folder / "agent.yaml"
    file.write_text(json.dumps(config))
    return file


def changes(lines: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    return [event for event in events if event["kind"] == "semantic_change"]


def test_a_change_is_told_in_the_server_s_words_and_what_is_masked_is_never_sent(
    tmp_path: Path, remote: Remote
) -> None:
    lines = tmp_path / "events.ndjson"
    file = written(tmp_path, remote, f"{CUTTING}&seconds=8", image={"width": 200})
    with agent(tmp_path, "--config", file, "--events-to", lines) as run:
        out, err = run.communicate(timeout=200)
        assert run.returncode == 0, err
    told = {event["id"]: event for event in changes(lines)}
    assert told and all(event["pending"] == [] for event in told.values())
    asked = remote.asked
    first = next(iter(told.values()))
    assert first["before_text"] == "Words 1 from the server, café ☕."
    assert first["after_text"] == first["text"] == "Words 2 from the server, café ☕."
    assert first["degraded"] == []
    assert len(asked) == 1 + len(told)  # how it looks at first, then only changes
    assert [len(request.pictures) for request in asked[:2]] == [1, 2]
    before, now = asked[1].pictures
    for request in asked:
        for picture in request.pictures:
            assert picture.shape == (112, 200, 3)
            assert picture[:, :96].max() < 24 < picture[:, 104:].mean()
    assert (before == asked[0].pictures[0]).all() and (before != now).mean() > 0.2
    assert all(request.authorization == f"Bearer {KEY}" for request in asked)
    assert f"127.0.0.1:{remote.port}" in err
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    shown = CliRunner().invoke(app, ["config", "show", str(file)]).output
    assert f"file:{tmp_path}/key" in shown
    for place in (out, err, lines.read_text(), shown, kept.decode("latin-1")):
        assert KEY not in place


def test_nothing_is_asked_while_nothing_changes_and_real_cameras_have_words_too(tmp_path: Path, remote: Remote) -> None:
    coarse = np.random.default_rng(5).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    still = np.asarray(cv2.resize(coarse, (320, 180), interpolation=cv2.INTER_LINEAR), np.uint8)
    write_clip(tmp_path / "still.mp4", [still] * 60, fps=10)
    file = written(tmp_path, remote, "still.mp4")
    with agent(tmp_path, "--config", file, "--events-to", tmp_path / "events.ndjson") as run:
        _, err = run.communicate(timeout=200)
        assert run.returncode == 0, err
    assert changes(tmp_path / "events.ndjson") == []
    (request,) = remote.asked
    assert abs(request.pictures[0][90, 240].astype(int) - still[90, 240]).max() < 30
    assert "rendered scenes only" not in err


@needs_mosquitto
def test_a_server_that_refuses_is_told_once_and_the_built_in_model_speaks(tmp_path: Path, remote: Remote) -> None:
    remote.does("denied")
    lines = tmp_path / "events.ndjson"
    with LocalBroker() as broker, Subscriber(broker.port) as subscriber:
        file = written(tmp_path, remote, f"{CUTTING}&seconds=8", broker=broker.url)
        with agent(tmp_path, "--config", file, "--events-to", lines) as run:
            _, err = run.communicate(timeout=200)
            assert run.returncode == 0, err
        until(lambda: subscriber.last(f"{BASE}/availability") == "offline", "goodbye, which is said last")
        statuses = [message.document for message in subscriber.on(f"{BASE}/status")]
    reason = f"127.0.0.1:{remote.port}: HTTP 401 Unauthorized: invalid key Bearer ***"
    (done,) = {event["id"]: event for event in changes(lines)}.values()
    assert done["text"] and done["before_text"]
    assert done["degraded"] == [f"text by the built-in model: {reason}"]
    assert err.count("HTTP 401") == 1
    assert len(remote.asked) == 1
    assert f"describer: {reason}" in statuses[-1]["degraded"]
    assert (statuses[-1]["describer"]["breaker"], statuses[-1]["describer"]["requests"]) == ("open", 1)
    assert KEY not in err + json.dumps(statuses)


def test_a_signal_ends_it_while_the_server_hangs(tmp_path: Path, remote: Remote) -> None:
    remote.does(["good", "hang"])
    lines = tmp_path / "events.ndjson"
    file = written(tmp_path, remote, CUTTING, timeout_s=600, fallback="none")
    with agent(tmp_path, "--config", file, "--events-to", lines) as run:
        until(lambda: len(remote.asked) == 2, "a question about a change")
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=100)
        assert run.returncode == 0, err
    *before, last = changes(lines)
    assert before and not any(event["degraded"] for event in before)
    assert (last["degraded"], last["pending"]) == (["no text: the agent was stopping"], [])


def test_doctor_says_where_pixels_go_and_whether_the_server_answers(tmp_path: Path, remote: Remote) -> None:
    def doctor(*arguments: object) -> tuple[int, dict[str, Any]]:
        done = CliRunner().invoke(app, ["doctor", "--json", *map(str, arguments)])
        assert KEY not in done.output
        return done.exit_code, json.loads(done.output)

    host = f"127.0.0.1:{remote.port}"
    status, report = doctor("--config", written(tmp_path, remote, "scene:yard"))
    assert (status, report["pixels_leave_the_box"], report["pixels_go_to"]) == (0, True, host)
    assert report["parts"]["describer"] == {"used": f"{MODEL} at {host}, which answers", "not_taken": []}
    assert remote.asked == []
    status, report = doctor("--config", written(tmp_path, remote, "scene:yard", url=remote.url.removesuffix("/v1")))
    assert "does describer.url end as it wants it, mostly in /v1?" in report["parts"]["describer"]["not_taken"][0]
    status, report = doctor("--config", written(tmp_path, remote, "scene:yard", url="http://127.0.0.1:9/v1"))
    assert (status, report["problems"]) == (78, ["the describer gives no words: 127.0.0.1:9: connection refused"])
