"""Who says what is configured, each over the one before, and how each value says where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from agent.applying.differing import differences, plan
from agent.applying.journal import Journal, Record
from agent.cli import app
from agent.coherence.settings import PROFILES
from config.document import Document
from config.errors import ConfigError, InvalidConfig
from config.explaining import explain
from config.layers import Layers, with_overlay
from config.loading import shown, validate

FILE = """\
profile: security
mqtt: {url: "mqtt://me:hunter2@broker", user: me, password: "env:MQTT_PW"}
cameras:
  front:
    source: rtsp://me:hunter2@cam/1
    fps: 10
    zones: {door: [[0, 0], [9, 0], [9, 9]], step: [[0, 0], [9, 0], [9, 9]]}
"""
FLOORS = {name: {"fidelity_floor": profile.fidelity_floor} for name, profile in PROFILES.items()}


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    file = tmp_path / "agent.yaml"
    file.write_text(FILE)
    environ = {"STILLWATCH_CAMERAS__FRONT__FPS": "5", "STILLWATCH_EVENTS__DIR": "here"}
    return Layers(file, environ, {("events", "dir"): ("--state", "there")})


def explained(layers: Layers, key: str, overlay: dict[str, Any]) -> dict[str, tuple[Any, str, str]]:
    stages = layers.stages(layers.text())
    found = explain((*stages, with_overlay(stages[-1], overlay, 7)), key, FLOORS)
    return {each.key: (each.value, each.source.replace(str(layers.file), "agent.yaml"), str(each)) for each in found}


def test_each_layer_wins_over_the_one_before_and_says_so(layers: Layers) -> None:
    overlay = {"cameras": {"front": {"fps": 2}}, "events": {"clips": None}}
    found = explained(layers, "", overlay)
    sources = {key: found[key][:2] for key in found}
    assert sources["cameras.front.fps"] == (2.0, "remote overlay, version 7")
    assert sources["events.dir"] == ("there", "--state")
    assert sources["events.clips"] == (None, "remote overlay, version 7")
    assert sources["mqtt.user"] == ("me", "agent.yaml:2")
    assert sources["mqtt.root"] == ("stillwatch", "default"), "a default inside a section that was written"
    assert sources["fidelity_floor"] == (PROFILES["security"].fidelity_floor, "profile security")
    line = found["cameras.front.fps"][2]
    assert "STILLWATCH_CAMERAS__FRONT__FPS says 5" in line and "agent.yaml:6 says 10" in line
    assert "--state; STILLWATCH_EVENTS__DIR says" in found["events.dir"][2]


def test_null_takes_back_what_has_a_name_and_is_the_value_of_a_key(layers: Layers) -> None:
    overlay: dict[str, Any] = {"cameras": {"front": {"zones": {"door": None}, "fps": None}}}
    settings = validate(with_overlay(layers.document(layers.text()), overlay, 1))
    assert set(settings.cameras["front"].zones) == {"step"}
    assert settings.cameras["front"].fps is None


def test_a_mistake_of_the_overlay_names_it(layers: Layers) -> None:
    with pytest.raises(InvalidConfig) as caught:
        validate(with_overlay(layers.document(layers.text()), {"cameras": {"front": {"fbs": 2}}}, 3))
    (mistake,) = caught.value.mistakes
    assert (mistake.path, mistake.origin) == ("cameras.front.fbs", "remote overlay, version 3")
    assert mistake.message == "unknown key; did you mean fps?"


def test_what_is_not_there_is_told_apart_from_what_is_unknown(layers: Layers) -> None:
    assert explained(layers, "describer.url", {})["describer.url"][1] == "there is no describer"
    with pytest.raises(ConfigError, match=r"did you mean cameras\.front\.fps"):
        explained(layers, "cameras.front.fp", {})


def test_the_command_reads_what_was_sent_from_the_state_folder(layers: Layers, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "config")
    journal.commit(journal.stage(Record(overlay={"fidelity_floor": 0.97}, version=4, digest="d", remote=True)))
    arguments = ["config", "explain", "--config", str(layers.file), "--state", str(tmp_path), "fidelity_floor"]
    result = CliRunner().invoke(app, arguments)
    assert result.output == "fidelity_floor = 0.97  (remote overlay, version 4)\n"


def test_no_credential_is_shown(layers: Layers) -> None:
    text = "".join(line for *_, line in explained(layers, "", {}).values())
    after = validate(
        with_overlay(layers.document(layers.text()), {"cameras": {"front": {"source": "rtsp://a:pw99@b"}}}, 1)
    )
    changes = str(plan(validate(layers.document(layers.text())), after))
    assert "rtsp://***@cam/1" in text and "rtsp://***@b" in changes
    assert "hunter2" not in text + changes and "pw99" not in changes
    assert "env:MQTT_PW" in text


@pytest.mark.parametrize(
    ("overlay", "restarts"),
    [
        ({}, ()),
        ({"device": {"name": "Porch"}}, ()),
        ({"cameras": {"front": {"ignore": {"clock": [[0, 0], [9, 0], [9, 9]]}}}}, ("front",)),
        ({"cameras": {"back": {"source": "scene:yard"}}}, ("back",)),
        ({"fidelity_floor": 0.97}, ("front",)),
        ({"events": {"clips": {"pre_s": 1}}}, ("front",)),
        ({"model": "other"}, ("front", "model")),
        ({"mqtt": {"user": "you"}}, ("mqtt",)),
        ({"mqtt": {"root": "elsewhere"}}, ("agent",)),
        ({"metrics": {"port": 9}}, ("agent",)),
    ],
)
def test_a_plan_names_what_is_made_anew(layers: Layers, overlay: dict[str, Any], restarts: tuple[str, ...]) -> None:
    document = layers.document(layers.text())
    found = plan(validate(document), validate(with_overlay(document, overlay, 1)))
    assert found.restarts == restarts


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3),
    lambda below: st.dictionaries(st.sampled_from("abc"), below, max_size=3) | st.lists(below, max_size=2),
    max_leaves=8,
)
trees = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@given(trees, trees)
def test_differences_are_none_for_equals_and_turn_with_the_sides(one: Any, other: Any) -> None:
    there, back = list(differences(one, other)), list(differences(other, one))
    assert not list(differences(one, one))
    assert sorted((d.path, str(d.before), str(d.after)) for d in there) == sorted(
        (d.path, str(d.after), str(d.before)) for d in back
    )


def test_settings_made_by_a_program_are_the_same_as_a_document(layers: Layers) -> None:
    settings = validate(layers.document(layers.text()))
    again = Layers.of(settings)
    assert shown(validate(again.document(again.text()))) == shown(settings)


_known = st.sampled_from(
    [
        "cameras",
        "front",
        "zones",
        "rules",
        "fps",
        "mqtt",
        "key",
        "events",
        "clips",
        "describer",
        "image",
        "device",
        "id",
        "x",
    ]
)
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([[0, 0], [1, 0]])
_hostile = st.dictionaries(
    _known | st.text(max_size=3),
    st.recursive(
        _scalars,
        lambda below: st.dictionaries(_known | st.text(max_size=3), below, max_size=4) | st.lists(below, max_size=3),
        max_leaves=12,
    ),
    max_size=4,
)


@given(_hostile)
def test_whatever_comes_it_is_settings_or_a_config_error(overlay: Any) -> None:
    base = Document("base", {"cameras": {"front": {"source": "scene:yard"}}, "mqtt": {"url": "mqtt://b"}})
    try:
        validate(with_overlay(base, overlay, 1))
    except ConfigError as error:
        assert str(error)
