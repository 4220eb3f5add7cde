"""`stillwatch rules test`: the reference model's answers on rendered scenes, against what is true there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from calling import Call, caller

from agent.capture.scene.source import parse_scene
from agent.rules.backtest import BackTest, RuleReport
from agent.rules.truth import Agreement, scene_answer
from config.settings import Camera, Rule
from engines.manifest import find_model, load_model

SMALL = "fps=4&width=320&height=180"
SCENES = (f"scene:street?seed=7&light=day&{SMALL}&seconds=20", f"scene:yard?seed=3&{SMALL}&seconds=20")
ASKED = {"person": "Is there a person?", "car": "Is there a car?", "nobody": "Is nobody there?", "day": "Is it day?"}


@pytest.fixture(scope="module")
def reports() -> list[list[RuleReport]]:
    rules = [Rule(name=name, ask=ask) for name, ask in ASKED.items()]
    test = BackTest(load_model(find_model("reference")), Camera(source="scene:street", rules=rules), threads=1)
    return [test.run(scene) for scene in SCENES]


def test_a_few_rules_are_right_nearly_always_and_fire_when_they_should(reports: list[list[RuleReport]]) -> None:
    known = [answer for clip in reports for report in clip for answer in report.known]
    agreement = Agreement.of(known, 0.5)
    assert len(known) >= 200
    assert agreement.precision is not None and agreement.precision >= 0.9
    assert agreement.recall is not None and agreement.recall >= 0.9
    episodes = [report.episodes for clip in reports for report in clip]
    assert sum(each[0] for each in episodes if each) >= 5
    assert sum(each[1] + each[2] for each in episodes if each) <= 1


def test_an_unchanged_scene_is_asked_about_once_and_answers_are_there_all_the_same(
    reports: list[list[RuleReport]],
) -> None:
    for clip in reports:
        for report in clip:
            assert report.asked <= len(report.answers) and len(report.answers) >= 38
    dog = Rule(name="dog", ask="Is there a dog?")
    still = BackTest(load_model(find_model("reference")), Camera(source="scene:yard", rules=[dog]))
    (report,) = still.run(f"scene:yard?seed=5&objects=0&{SMALL}&seconds=10")
    assert report.asked == 1 and len(report.answers) == 20 and report.alerts == []
    assert report.episodes == (0, 0, 0) and report.proposed is None


@pytest.mark.parametrize("seed", range(4))
def test_the_truth_of_a_scene_is_known_where_the_question_is_of_its_grammar(seed: int) -> None:
    scene, _ = parse_scene(f"scene:street?seed={seed}&light=dusk&weather=rain")
    for index in range(0, 600, 40):
        truth = scene.truth(index)
        there = {o.kind for o in truth.objects if o.visible > 0}
        full = {o.kind for o in truth.objects if o.visible >= 0.5}
        for kind in ("person", "car", "dog"):
            answer = scene_answer(f"Is there a {kind}?", truth, scene.size[0])
            assert answer is None or (kind in full if answer else kind not in full)
            assert kind in there or answer is False
        assert scene_answer("Is it raining?", truth, scene.size[0]) is True
        assert scene_answer("Is it night?", truth, scene.size[0]) is False
        assert scene_answer("Is this a yard?", truth, scene.size[0]) is False
        assert scene_answer("Is somebody up to no good?", truth, scene.size[0]) is None


@pytest.fixture
def stillwatch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return caller(monkeypatch, capsys)


def test_the_command_says_when_each_rule_would_have_fired(stillwatch: Call, tmp_path: Path) -> None:
    config, truth, out = tmp_path / "agent.yaml", tmp_path / "truth.json", tmp_path / "out.json"
    rule = {"name": "car", "ask": "Is there a car?", "schedule": {"times": ["03:00-03:01"]}}
    config.write_text(yaml.safe_dump({"cameras": {"front": {"source": "scene:yard", "rules": [rule]}}}))
    clip = f"scene:street?seed=7&light=day&{SMALL}&seconds=6"
    truth.write_text('{"car": [[0, 100]]}')
    status, printed, err = stillwatch("rules", "test", clip, "--config", config, "--truth", truth, "--json", out)
    assert status == 0, err
    assert "car: 0:0" in printed
    (told,) = json.loads(out.read_text())["rules"]
    assert told["looks"] == len(told["answers"]) == 12
    assert told["alerts"] and told["agreement"]["precision"] == 1.0
    for wrong, says in (
        ('{"cat": []}', "no rule 'cat'; known: car"),
        ('{"car": [[1]]}', "car.0.1"),
        ("[", "expected"),
    ):
        truth.write_text(wrong)
        status, _, err = stillwatch("rules", "test", clip, "--config", config, "--truth", truth)
        assert status == 78 and says in err
    assert stillwatch("rules", "test", "scene:yard", "--config", config)[0] == 2
    assert stillwatch("rules", "test", clip, "--config", config, "--camera", "back")[0] == 78
    assert stillwatch("ask", "Is it day?")[0] == 2
    status, _, err = stillwatch("ask", "Is it day?", "--config", config)
    assert status == 78 and "no mqtt.url" in err


def test_the_example_is_valid_and_its_rules_are_of_the_grammar_that_the_model_knows() -> None:
    path = Path(__file__).parents[1] / "examples/rules.yaml"
    camera = Camera.model_validate(yaml.safe_load(path.read_text())["cameras"]["street"])
    scene, _ = parse_scene(camera.source)
    answers = [scene_answer(rule.ask, scene.truth(index), 640) for rule in camera.rules for index in range(0, 300, 50)]
    assert len(camera.rules) == 6 and answers.count(None) < len(answers) / 3
