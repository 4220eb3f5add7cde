"""The command line: each kind of bad input has its message and exit status; what is printed can be piped."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
import yaml
from calling import caller

from engines.manifest import REFERENCE

ROOT = Path(__file__).parents[1]


@pytest.fixture
def stillwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Call the command in this process."""
    yield caller(monkeypatch, capsys)
    structlog.reset_defaults()


def test_a_wrong_key_ends_with_78_and_names_the_line(stillwatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "agent.yaml"
    file.write_text("cameras:\n  front:\n    source: scene:street\n    fsp: 5\n")
    for command in (["run", "--config", file], ["config", "check", file], ["config", "show", file]):
        outcome = stillwatch(*command)
        assert outcome.status == 78
        assert f"{file}:4: cameras.front.fsp: unknown key; did you mean fps?" in outcome.err
        assert outcome.out == ""


def test_options_win_over_the_file_and_are_blamed_for_mistakes(stillwatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "agent.yaml"
    file.write_text("cameras: {front: {source: 'scene:street'}}\n")
    outcome = stillwatch("run", "--config", file, "--broker", "tcp://host")
    assert outcome.status == 78
    assert outcome.err.startswith("--broker: mqtt.url: expected mqtt://HOST:PORT")


def test_config_show_prints_yaml_without_secrets(stillwatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "agent.yaml"
    file.write_text("cameras: {front: {source: 'rtsp://me:hunter2@host/1', credentials: 'env:FRONT'}}\n")
    monkeypatch.setenv("FRONT", "me:hunter3")
    outcome = stillwatch("config", "show", file)
    assert yaml.safe_load(outcome.out)["cameras"]["front"]["source"] == "rtsp://***@host/1"
    assert "hunter" not in outcome.out + outcome.err
    assert stillwatch("config", "check", file).status == 0
    monkeypatch.delenv("FRONT")
    outcome = stillwatch("config", "check", file)
    assert outcome.status == 78
    assert "cameras.front.credentials: env:FRONT" in outcome.err


def test_schemas_are_json(stillwatch) -> None:  # type: ignore[no-untyped-def]
    assert "cameras" in json.loads(stillwatch("config", "schema").out)["properties"]
    assert {"event", "camera_state", "status"} <= set(json.loads(stillwatch("schema").out))


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["run", "--source", "a", "--config", "b"], ["ask", "what?"], ["nonsense"], ["run", "--sorce", "a"]],
)
def test_wrong_usage_ends_with_2(stillwatch, arguments: list[str]) -> None:  # type: ignore[no-untyped-def]
    outcome = stillwatch(*arguments)
    assert outcome.status == 2
    assert outcome.out == ""


def test_a_corrupt_file_ends_with_74(stillwatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(5000))
    outcome = stillwatch("run", "--source", clip, "--state", tmp_path / "state")
    assert outcome.status == 74
    assert str(clip) in outcome.err


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("source", ["/dev/video73", "rtsp://me:hunter2@127.0.0.1:{port}/stream", "{folder}/none.mp4"])
def test_a_source_that_is_not_there_ends_with_69(stillwatch, tmp_path: Path, source: str) -> None:  # type: ignore[no-untyped-def]
    uri = source.format(port=free_port(), folder=tmp_path)
    outcome = stillwatch("run", "--source", uri, "--no-retry", "--state", tmp_path / "state")
    assert outcome.status == 69
    shown = uri.replace("me:hunter2", "***")
    assert shown in outcome.err
    lost = json.loads(outcome.out.splitlines()[0])
    assert (lost["kind"], lost["condition"], lost["topic"].rpartition("/")[2]) == ("health", "lost", "health")
    assert "hunter2" not in outcome.out + outcome.err


def test_with_retry_it_goes_on_and_says_so(stillwatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    uri = f"rtsp://127.0.0.1:{free_port()}/stream"
    outcome = stillwatch("run", "--source", uri, "--seconds", 4, "--state", tmp_path / "state")
    assert outcome.status == 0
    assert "camera lost, trying again" in outcome.err
    assert len(outcome.out.splitlines()) == 1


def test_a_broker_that_is_not_there_ends_with_69_without_retry(stillwatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    broker = f"mqtt://127.0.0.1:{free_port()}"
    arguments = ["--source", "scene:street?fps=5", "--broker", broker, "--no-retry", "--state", tmp_path / "state"]
    outcome = stillwatch("run", *arguments)
    assert outcome.status == 69
    assert f"can't reach {broker}" in outcome.err


def test_a_model_folder_with_a_missing_graph_ends_with_78(stillwatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "model"
    shutil.copytree(REFERENCE, folder)
    (folder / "connect.onnx").unlink()
    for command in (["run", "--source", "scene:street"], ["describe", "scene:street"], ["doctor"]):
        outcome = stillwatch(*command, "--model", folder)
        assert outcome.status == 78
        assert f"{folder / 'connect.onnx'}: not found" in outcome.err + outcome.out


def test_two_agents_do_not_share_a_state_folder(stillwatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from agent.events.lock import StateLock

    with StateLock(tmp_path):
        outcome = stillwatch("run", "--source", "scene:street", "--state", tmp_path)
    assert outcome.status == 78
    assert "another agent" in outcome.err


def test_logs_go_on_when_nobody_reads_them(stillwatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from agent.logs import set_up_logs

    set_up_logs()
    with (tmp_path / "log").open("w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
    structlog.get_logger().warning("nobody hears this")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, agent.cli; heavy = {'cv2', 'av', 'numpy', 'onnxruntime', 'tokenizers', 'pydantic', 'paho'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_doctor_reports_and_explains(stillwatch) -> None:  # type: ignore[no-untyped-def]
    outcome = stillwatch("doctor", "--json")
    report = json.loads(outcome.out)
    assert outcome.status == 0 and report["healthy"]
    assert set(report["parts"]) == {"capture", "flow", "kernels", "encoder", "decoder", "broker", "power"}
    assert any("JetPack" in sentence for sentence in report["parts"]["flow"]["not_taken"])
    assert report["pixels_leave_the_box"] is False
    assert len(report["timings_ms"]) == 2 and all(ms > 0 for ms in report["timings_ms"].values())


def test_bench_writes_an_object_for_one_clip_and_a_list_for_several(stillwatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out.json"
    clip = "scene:yard?seed=1&width=160&height=90"
    outcome = stillwatch("bench", clip, "--frames", 6, "--json", out)
    assert outcome.status == 0, outcome.err
    report = json.loads(out.read_text())
    assert (report["frames"], report["model"]) == (6, "reference")
    stillwatch("bench", clip, clip, "--frames", 3, "--json", out)
    assert [report["frames"] for report in json.loads(out.read_text())] == [3, 3]
    assert stillwatch("bench", clip).status == 2


def test_describe_and_ask_answer_on_a_picture_and_say_what_the_model_knows(stillwatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    import cv2
    import numpy as np

    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), np.full((90, 160, 3), 90, np.uint8))
    for command in (["describe", picture], ["ask", "Is there a person?", "--source", picture]):
        outcome = stillwatch(*command)
        assert outcome.status == 0
        assert outcome.out.strip()
        assert "knows rendered scenes only" in outcome.err
