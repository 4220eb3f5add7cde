"""Rules: asked when something has changed, told when enough answers are yes for long enough, and quiet after."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules_world import Floats, Front, Oracle, scene, sight, with_thing

from agent.rules.asking import Asking
from agent.rules.book import RuleBook
from agent.rules.firing import Firing
from agent.rules.truth import Agreement, best_threshold, gap_threshold
from config.errors import ConfigError, EngineFault
from config.settings import Rule, Schedule

EMPTY = scene()
FRONT, DOOR = (20, 21, 26, 27), (0, 1, 6, 7)
VISITOR = with_thing(EMPTY, DOOR)


def sees_somebody(_question: str, features: Floats) -> float:
    return 0.95 if not np.allclose(features, EMPTY) else 0.04


def rule(name: str = "visitor", **settings: object) -> Rule:
    return Rule.model_validate({"name": name, "ask": f"Is there a {name}?", **settings})


def firings(wanted: Rule, answers: list[float], every_s: float = 0.5) -> list[tuple[str, float]]:
    firing = Firing(wanted)
    found = []
    for number, probability in enumerate(answers):
        fired = firing.update(probability, number * every_s)
        if fired is not None:
            found.append(("over" if fired.over else "on", number * every_s))
    return found


def test_k_of_n_answers_for_long_enough_begin_an_alert_and_a_while_without_ends_it() -> None:
    wanted = rule(of="4/5", for_s=3, clear_s=2, cooldown_s=0)
    answers = [0.1] * 4 + [0.9] * 20 + [0.1] * 20  # yes from 2 s to 11.5 s; four of five from 3.5 s to 12 s
    assert firings(wanted, answers) == [("on", 6.5), ("over", 14.0)]
    assert firings(wanted, [0.1] * 4 + [0.9] * 8 + [0.1] * 20) == []


def test_a_gap_shorter_than_the_clear_delay_is_no_end_and_a_rule_is_quiet_after_one() -> None:
    wanted = rule(of="1/1", clear_s=2, cooldown_s=10)
    flicker = [0.9, 0.1, 0.1, 0.9, 0.1, 0.9, *[0.1] * 10]
    assert firings(wanted, flicker) == [("on", 0.0), ("over", 4.5)]
    assert firings(wanted, flicker + [0.9] * 30) == [("on", 0.0), ("over", 4.5), ("on", 14.5)]


def test_a_cooldown_that_ends_while_nothing_is_seen_any_more_brings_no_alert() -> None:
    wanted = rule(of="1/1", clear_s=4, cooldown_s=5)
    yes, no = [0.9] * 2, [0.1] * 9
    assert firings(wanted, yes + no + yes + no * 2) == [("on", 0.0), ("over", 4.5)]


@given(st.lists(st.floats(0, 1), max_size=60), st.integers(1, 4), st.floats(0, 3), st.floats(0, 3), st.floats(0, 5))
def test_alerts_and_their_ends_take_turns_and_keep_their_distance(
    answers: list[float], k: int, for_s: float, clear_s: float, cooldown_s: float
) -> None:
    found = firings(rule(of=f"{k}/4", for_s=for_s, clear_s=clear_s, cooldown_s=cooldown_s), answers)
    assert [what for what, _ in found] == ["on", "over"] * (len(found) // 2) + ["on"] * (len(found) % 2)
    ends = [at_s for what, at_s in found if what == "over"]
    begins = [at_s for what, at_s in found if what == "on"]
    assert all(begin - end >= cooldown_s - 1e-9 for end, begin in zip(ends, begins[1:], strict=False))
    assert not begins or sum(p >= 0.5 for p in answers) >= k


def test_the_model_is_asked_once_while_nothing_changes_and_its_answer_holds() -> None:
    oracle = Oracle(sees_somebody)
    front = Front([rule(of="4/5", for_s=3, clear_s=1)], oracle)
    front.run(10, EMPTY)
    assert len(oracle.asked) == 1
    front.run(10, VISITOR)
    assert len(oracle.asked) == 2
    front.run(10, EMPTY)
    assert len(oracle.asked) == 3
    assert [what for _, what, _ in front.diary.entries] == ["began", "ended"]
    (moment,) = front.diary.moments
    assert moment.regions == ((0, 0, 20, 20),) and moment.probability == 0.95
    assert front.diary.entries[0][2] == pytest.approx(10 + 1.5 + 3, abs=0.6)


def test_slow_drift_adds_up_until_the_question_is_asked_again() -> None:
    oracle = Oracle(sees_somebody)
    front = Front([rule()], oracle)

    def fade(now_s: float) -> Floats:
        share = np.float32(now_s / 300)
        return (1 - share) * EMPTY + share * VISITOR

    front.run(300, fade)
    assert 2 <= len(oracle.asked) <= 60


def test_questions_that_are_due_together_are_asked_together_and_a_zone_decides_what_is_due() -> None:
    oracle = Oracle(sees_somebody)
    front = Front([rule("person"), rule("visitor", zone="door")], oracle)
    front.run(3, EMPTY)
    front.run(3, with_thing(EMPTY, FRONT))
    front.run(3, VISITOR)
    both = ["Is there a person?", "Is there a visitor?"]
    assert oracle.asked == [both, ["Is there a person?"], both]


def test_while_an_answer_is_on_its_way_nothing_else_is_asked_and_a_cut_makes_it_worthless() -> None:
    oracle = Oracle(sees_somebody, at_once=False)
    front = Front([rule(of="1/1")], oracle)
    front.run(5, VISITOR)
    assert len(oracle.asked) == 1
    front.rules.see(sight(EMPTY, front.now_s, broken=True))
    oracle.waiting.pop()()
    assert front.diary.entries == []
    front.run(1, EMPTY)
    assert len(oracle.asked) == 2


def test_a_rule_watches_by_its_schedule_and_what_is_open_ends_with_it() -> None:
    night = Schedule(times=["22:00-06:00"], timezone="Europe/Berlin")
    oracle = Oracle(sees_somebody)
    front = Front([rule(of="1/1", schedule=night.model_dump())], oracle)
    for second, clock in enumerate(["20:59", "21:00", "21:01", "05:00"]):
        utc = datetime.fromisoformat(f"2026-01-14T{clock}").replace(tzinfo=timezone.utc)
        front.rules.see(sight(VISITOR, float(second), utc=utc))
    assert len(oracle.asked) == 1
    assert [what for _, what, _ in front.diary.entries] == ["began", "its schedule has ended"]


def test_rules_can_be_replaced_while_they_run_and_one_that_stays_goes_on() -> None:
    oracle = Oracle(sees_somebody)
    kept, gone, new = rule("person", of="1/1"), rule("visitor", of="1/1"), rule("car", of="1/1")
    front = Front([kept, gone], oracle)
    front.run(1, VISITOR)
    front.rules.replace([kept, new])
    front.run(1, VISITOR)
    assert [(name, what) for name, what, _ in front.diary.entries] == [
        ("person", "began"),
        ("visitor", "began"),
        ("visitor", "the rule was changed or removed"),
        ("car", "began"),
    ]
    assert oracle.asked[-1] == ["Is there a car?"]


def test_a_model_that_fails_is_asked_again_and_ends_no_thread() -> None:
    calls = threading.Semaphore(0)
    answers: list[object] = []

    def weigh(_camera: str, _features: Floats, questions: object) -> np.ndarray:
        calls.release()
        if len(answers) == 0:
            raise EngineFault("no memory")
        return np.array([0.75])

    done = threading.Event()
    with Asking(weigh) as asking:  # type: ignore[arg-type]
        for _ in range(2):
            done.clear()
            asking.ask("front", EMPTY, ["Is there a car?"], lambda found: (answers.append(found), done.set()))
            assert done.wait(30)
    assert answers == [None, [0.75]]


def test_what_was_set_by_command_is_there_after_a_restart_and_lies_over_the_configuration(tmp_path: Path) -> None:
    configured = [rule("person"), rule("car")]
    book = RuleBook(tmp_path)
    book.put("front", "dog", rule("dog", threshold=0.7), configured, ())
    book.put("front", "car", None, configured, ())
    book.put("front", "person", rule("person", severity="high"), configured, ())
    after = RuleBook(tmp_path).of("front", configured, ())
    assert [(each.name, each.threshold, each.severity) for each in after] == [
        ("person", 0.5, "high"),
        ("dog", 0.7, "medium"),
    ]
    assert RuleBook(tmp_path).of("back", configured, ()) == configured
    book.reset("front")
    assert RuleBook(tmp_path).of("front", configured, ()) == configured


def test_a_rule_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    book = RuleBook(tmp_path)
    with pytest.raises(ConfigError, match="no zone door"):
        book.put("front", "visitor", rule(zone="door"), [], ())
    many = [rule(f"r{number}") for number in range(16)]
    with pytest.raises(ConfigError, match="at most 16"):
        book.put("front", "visitor", rule(), many, ())
    assert not (tmp_path / "rules.json").exists()


def test_a_rule_whose_zone_is_gone_is_left_out_and_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    RuleBook(tmp_path).put("front", "visitor", rule(zone="door"), [], {"door"})
    assert RuleBook(tmp_path).of("front", [], ()) == []
    (tmp_path / "rules.json").write_text('{"v": 1, "cameras": {"front": {"a": {"name": 5}}}}')
    damaged = RuleBook(tmp_path)
    assert damaged.trouble is not None and damaged.of("front", [rule()], ()) == [rule()]
    assert (tmp_path / "rules.unreadable").exists()
    assert RuleBook(tmp_path).trouble is None


@given(st.lists(st.tuples(st.integers(0, 49).map(lambda n: (2 * n + 1) / 100), st.booleans()), max_size=40))
def test_no_threshold_is_better_than_the_proposed_one(answers: list[tuple[float, bool]]) -> None:
    proposed = best_threshold(answers)
    if proposed is None:
        assert len({true for _, true in answers}) < 2
    else:
        others = [threshold / 100 for threshold in range(6, 96, 2)]
        assert Agreement.of(answers, proposed).balanced >= max(Agreement.of(answers, t).balanced for t in others)


def test_without_truth_the_widest_gap_between_the_answers_is_proposed() -> None:
    assert gap_threshold([0.01, 0.05, 0.2, 0.8, 0.99]) == 0.5
    assert gap_threshold([0.01, 0.05, 0.2]) is None
    assert gap_threshold([]) is None
