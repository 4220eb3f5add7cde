"""Configuration: what a person writes becomes settings, or an error that names file, line, key and remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config.document import read_yaml
from config.errors import ConfigError
from config.identity import device_id
from config.loading import check_secrets, json_schema, load, shown, validate
from config.redact import redact
from config.settings import Settings
from config.values import parse_bytes

WHOLE = """\
device: {id: porch-box, name: Porch box}
model: reference
mqtt: {url: "mqtts://broker:8883", root: stillwatch, user: agent, password: "env:MQTT_PW"}
events: {dir: state, retention: {days: 14, bytes: 5GB}}
cameras:
  front:
    source: rtsp://me:hunter2@192.168.1.20/stream1
    credentials: "file:/etc/stillwatch/front.pw"
    fps: 10
    masks: {street: [[0, 0], [640, 0], [640, 80], [0, 80]]}
    ignore: {clock: [[0, 0], [200, 0], [200, 24], [0, 24]]}
    zones: {door: [[100, 200], [220, 200], [220, 460], [100, 460]]}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "agent.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    assert caught.value.exit_code == 78
    return str(caught.value).replace(str(path), "agent.yaml").splitlines()


def test_every_key_of_the_documented_file_is_read(tmp_path: Path) -> None:
    settings = load(written(tmp_path, WHOLE), {})
    assert settings.events.retention.bytes == 5_000_000_000
    assert settings.mqtt is not None and settings.mqtt.user == "agent"
    front = settings.cameras["front"]
    assert front.fps == 10
    assert front.masks["street"][2] == (640, 80)


def test_an_unknown_key_names_line_and_nearest_key(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "cameras:\n  front:\n    sorce: scene:street\n")
    assert "agent.yaml:3: cameras.front.sorce: unknown key; did you mean source?" in found
    assert "agent.yaml:2: cameras.front.source: missing" in found


def test_all_mistakes_are_told_at_once_with_what_was_found(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        "cameras:\n  front:\n    source: scene:street\n    fps: fast\n    masks:\n      a: [[0, 0], [5, 5], [9, 9]]\n"
        "events:\n  retention: {bytes: 5 apples}\nmqtt: {url: broker}\n",
    )
    text = "\n".join(found)
    assert 'agent.yaml:4: cameras.front.fps: expected a number, found "fast"' in found
    assert "agent.yaml:6: cameras.front.masks.a: expected a polygon that encloses an area" in text
    assert "agent.yaml:8: events.retention.bytes: expected a size such as 500MB or 5GB" in text
    assert "agent.yaml:9: mqtt.url: expected mqtt://HOST:PORT" in text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "cameras:\n  front:\n    source: x\n    rules: [{name: a, ask: b, zone: door}]\n",
            "agent.yaml:4: cameras.front.rules: rule a: this camera has no zone door",
        ),
        (
            "cameras:\n  front:\n    source: x\n    rules: [{name: a, ask: b, of: 5/4}]\n",
            "agent.yaml:4: cameras.front.rules.0.of: expected K/N, such as 4/5",
        ),
        (
            "cameras:\n  front:\n    source: x\n    rules: [{name: a, ask: b, schedule: {times: [daily]}}]\n",
            "agent.yaml:4: cameras.front.rules.0.schedule.times: expected a window such as",
        ),
        ("fidelity_floor: 1.5\n", "agent.yaml:1: fidelity_floor: input should be less than 1, found 1.5"),
        (
            "events:\n  clips: {pre_s: 90}\n",
            "agent.yaml:2: events.clips.pre_s: input should be less than or equal to 60",
        ),
        ("model: a\nmodel: b\n", "agent.yaml:2: model: given twice, first in line 1"),
        ("cameras: [\n", "agent.yaml:2: not valid YAML"),
        ("cameras: {1: {source: x}}\n", "agent.yaml:1: a key under cameras is not text; put it in quotes"),
        ("a: &a [*a]\n", "agent.yaml:1: a.0: an alias that contains itself"),
        ("- front\n", "agent.yaml:1: expected keys and values"),
        ("", "agent.yaml: cameras: missing"),
        ("device: {id: 007}\ncameras: {a: {source: x}}\n", "agent.yaml:1: device.id: expected text (put it in quotes)"),
    ],
)
def test_each_wrong_file_says_where_and_what(tmp_path: Path, text: str, line: str) -> None:
    assert mistakes(tmp_path, text)[0].startswith(line)


def test_a_secret_written_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for value in ("hunter2", "77777"):
        found = "\n".join(
            mistakes(tmp_path, f"mqtt: {{url: mqtt://b, password: {value}}}\ncameras: {{a: {{source: x}}}}\n")
        )
        assert "mqtt.password" in found
        assert value not in found


def test_secrets_are_read_through_references_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_PW", "hunter3")
    settings = load(written(tmp_path, WHOLE), {})
    assert settings.mqtt is not None and settings.mqtt.password is not None
    assert settings.mqtt.password.read() == "hunter3"
    text = json.dumps(shown(settings)) + repr(settings.mqtt)
    assert "hunter" not in text
    assert "rtsp://***@192.168.1.20/stream1" in text
    with pytest.raises(ConfigError, match=r"cameras\.front\.credentials: file:/etc/stillwatch/front\.pw: can't read"):
        check_secrets(settings)


def test_systemd_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mqtt").write_text("s3cret\n")
    settings = load(written(tmp_path, WHOLE), {"STILLWATCH_MQTT__PASSWORD": "credential:mqtt"})
    assert settings.mqtt is not None and settings.mqtt.password is not None
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match="LoadCredential=mqtt"):
        settings.mqtt.password.read()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert settings.mqtt.password.read() == "s3cret"


def test_environment_overrides_the_file_and_is_named_in_errors(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE.replace("front:", "Front:"))
    settings = load(
        path,
        {
            "STILLWATCH_CAMERAS__FRONT__FPS": "2.5",
            "STILLWATCH_DEVICE__NAME": "12",
            "STILLWATCH_DATA": "/clips",
            "STILLWATCH_METRICS__PORT": "9108",
        },
    )
    assert settings.cameras["Front"].fps == 2.5
    assert settings.device.name == "12"
    assert settings.metrics.port == 9108
    found = mistakes(tmp_path, WHOLE, {"STILLWATCH_CAMERAS__FRONT__FSP": "1"})
    assert found == ["STILLWATCH_CAMERAS__FRONT__FSP: cameras.front.fsp: unknown key; did you mean fps?"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_whatever_the_file_holds_only_a_config_error_comes_out(
    tmp_path_factory: pytest.TempPathFactory, data: object
) -> None:
    path = tmp_path_factory.mktemp("any") / "agent.yaml"
    for document in (data, {"cameras": data}, {"cameras": {"a": data}, "mqtt": data}):
        path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
        with pytest.raises(ConfigError):
            load(path, {})


def test_settings_written_out_are_read_back_the_same(tmp_path: Path) -> None:
    first = load(written(tmp_path, WHOLE.replace("me:hunter2@", "")), {})
    again = load(written(tmp_path, yaml.safe_dump(shown(first))), {})
    assert again == first


@given(st.integers(1, 10**6), st.sampled_from([("kB", 10**3), ("MB", 10**6), ("GiB", 2**30), ("", 1)]))
def test_sizes(count: int, unit: tuple[str, int]) -> None:
    assert parse_bytes(f"{count} {unit[0]}") == count * unit[1]


def test_redaction_reaches_every_url_in_a_text() -> None:
    text = redact("rtsp://a:b@h/1 failed, so did mqtts://u:p@w@b:8883 and http://h/x@y")
    assert text == "rtsp://***@h/1 failed, so did mqtts://***@b:8883 and http://h/x@y"


def test_device_id_is_made_once_and_kept(tmp_path: Path) -> None:
    first = device_id(None, tmp_path / "state")
    assert re.fullmatch(r"sw-[0-9a-f]{8}", first)
    assert device_id(None, tmp_path / "state") == first
    assert device_id("porch", tmp_path / "state") == "porch"
    (tmp_path / "state/device-id").write_text("a/b")
    with pytest.raises(ConfigError, match="remove the file"):
        device_id(None, tmp_path / "state")


def test_schema_names_every_section() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(Settings.model_fields)
    assert schema["additionalProperties"] is False


def test_a_document_without_a_file_blames_the_option(tmp_path: Path) -> None:
    document = read_yaml(written(tmp_path, "")).with_value(("cameras", "cam1", "source"), "", "--source")
    with pytest.raises(ConfigError, match=r"^--source: cameras\.cam1\.source"):
        validate(document)
