"""Remote configuration: what a document has to be to be applied, and what is said of it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_world import NEXT, NOW, OPS, STRANGER, Box, document

from agent.applying.contract import Refused, Step
from agent.mqtt.states import StateBoard
from agent.remote.allowed import ALLOWED, check_paths
from agent.remote.documents import Reported
from agent.remote.patch import merged
from agent.remote.reading import MAX_BYTES


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def states(reports: list[Reported]) -> list[str]:
    return [report.state for report in reports]


def code(reports: list[Reported]) -> int:
    assert states(reports) == ["rejected"]
    assert all(problem.msg for problem in reports[0].errors)
    return reports[0].code


def iso(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


def test_a_signed_document_is_applied_and_every_step_is_told(box: Box) -> None:
    told = box.send(OPS.seal(document(3, {"profile": "sports"}, probation_s=7.5), "abc"))
    assert states(told) == ["staged", "applying", "probation", "applied"]
    assert [report.code for report in told] == [202, 202, 202, 200]
    assert {(report.id, report.version, report.device) for report in told} == {("abc", 3, "box")}
    (candidate,) = box.applier.applied
    assert (candidate.overlay, candidate.version, candidate.probation_s) == ({"profile": "sports"}, 3, 7.5)
    assert told[-1].running.model_dump() == {"version": 3, "config": {"profile": "sports"}}
    assert told[-1].highest == 3 and told[-1].digest == candidate.digest


def test_the_signature_is_over_the_bytes_whatever_they_look_like(box: Box) -> None:
    text = json.dumps(document(), indent=3, ensure_ascii=False) + "\n  "
    assert states(box.send(OPS.seal(text)))[-1] == "applied"


@pytest.mark.parametrize("change", [b"2", b" 1"])
def test_one_byte_more_or_other_and_it_is_401(box: Box, change: bytes) -> None:
    payload = OPS.seal(document(1)).replace(b'\\"version\\": 1', b'\\"version\\": ' + change)
    assert code(box.send(payload)) == 401
    assert box.applier.applied == []


def test_strangers_and_the_unsigned_are_401_before_a_word_is_read(box: Box) -> None:
    assert code(box.send(STRANGER.seal("no JSON at all"))) == 401
    assert code(box.send(NEXT.seal(document()))) == 401
    assert code(box.send(json.dumps({"v": 1, "id": "1", "signed": "{}"}).encode())) == 401


def test_where_no_signature_is_required_one_that_is_there_must_hold(tmp_path: Path) -> None:
    box = Box(tmp_path, require_signature=False)
    assert code(box.send(STRANGER.seal(document()))) == 401
    bare = json.dumps({"v": 1, "id": "1", "signed": json.dumps(document())}).encode()
    assert states(box.send(bare))[-1] == "applied"


def test_keys_rotate_by_the_local_file_without_a_restart(box: Box) -> None:
    box.keys.write_text(OPS.line + "# the next\n" + NEXT.line)
    assert states(box.send(NEXT.seal(document(1))))[-1] == "applied"
    box.keys.write_text(NEXT.line)
    assert code(box.send(OPS.seal(document(2)))) == 401
    box.keys.unlink()
    assert code(box.send(NEXT.seal(document(2)))) == 401


def test_a_document_is_for_this_box_or_a_group_that_it_is_in(box: Box) -> None:
    assert code(box.send(OPS.seal(document(device="other")))) == 403
    assert code(box.send(OPS.seal(document(device=None, group="south")))) == 403
    assert code(box.send(OPS.seal(document(device=None)))) == 400
    assert code(box.send(OPS.seal(document(group="north")))) == 400
    assert states(box.send(OPS.seal(document(device=None, group="north"))))[-1] == "applied"


def test_the_same_again_is_told_again_and_applied_once_over_restarts(box: Box) -> None:
    payload = OPS.seal(document(4), "first")
    box.send(payload)
    box.now += timedelta(days=400)
    box.restart()
    (told,) = box.send(payload)
    assert (told.state, told.code, told.id, told.version) == ("applied", 200, "first", 4)
    assert len(box.applier.applied) == 1


def test_versions_rise(box: Box) -> None:
    box.send(OPS.seal(document(4)))
    for stale in (document(4, {"profile": "sports"}), document(3), document(1)):
        reports = box.send(OPS.seal(stale))
        assert code(reports) == 409
        assert reports[0].highest == reports[0].running.version == 4
    assert states(box.send(OPS.seal(document(9))))[-1] == "applied"


def test_a_base_version_must_be_the_one_that_is_applied(box: Box) -> None:
    assert code(box.send(OPS.seal(document(2, base_version=1)))) == 409
    assert states(box.send(OPS.seal(document(2, base_version=0))))[-1] == "applied"


def test_a_downgrade_is_signed_for_one_step_and_a_while(box: Box) -> None:
    box.send(OPS.seal(document(8)))
    assert code(box.send(OPS.seal(document(5, allow_downgrade=True)))) == 400
    down = OPS.seal(document(5, allow_downgrade=True, base_version=8, expires=iso(60)))
    assert states(box.send(down))[-1] == "applied"
    box.send(OPS.seal(document(6)))
    assert code(box.send(down)) == 409
    box.send(OPS.seal(document(8, {"profile": "movie"})))
    box.now += timedelta(hours=1)
    assert code(box.send(down)) == 410


def test_what_has_expired_is_410_and_what_is_early_waits(box: Box) -> None:
    assert code(box.send(OPS.seal(document(expires=iso(0))))) == 410
    early = box.send(OPS.seal(document(2, not_before=iso(60)), "early"))
    assert [(r.state, r.code, r.id) for r in early] == [("received", 202, "early")]
    assert code(box.send(STRANGER.seal(document(3)))) == 401
    box.now += timedelta(seconds=61)
    box.desk.work_off()
    assert states(box.reports[-4:]) == ["staged", "applying", "probation", "applied"]
    assert box.applier.version == 2


def test_a_newer_document_takes_the_place_of_one_that_waits(box: Box) -> None:
    box.send(OPS.seal(document(2, not_before=iso(60)), "early"))
    told = box.send(OPS.seal(document(3, not_before=iso(90)), "later"))
    assert [(r.state, r.code, r.id) for r in told] == [("rejected", 409, "early"), ("received", 202, "later")]


def test_while_one_is_applied_the_next_waits_and_garbage_does_not_displace_it(box: Box) -> None:
    box.applier.hold = True
    box.send(OPS.seal(document(1), "one"))
    assert states(box.send(OPS.seal(document(1), "one"))) == ["probation"]
    assert states(box.send(OPS.seal(document(2), "two"))) == ["received"]
    for number in range(5):
        assert code(box.send(STRANGER.seal(document(10 + number)))) == 401
    box.applier.hold = False
    box.applier.finish()
    box.desk.work_off()
    assert [(r.id, r.state) for r in box.reports[-5:]] == [
        ("one", "applied"),
        *(("two", state) for state in ("staged", "applying", "probation", "applied")),
    ]


def test_a_flood_of_strangers_is_cut_off_and_the_owner_gets_through(box: Box) -> None:
    for number in range(1000):
        box.desk.take(STRANGER.seal(document(number + 1)))
    box.desk.take(OPS.seal(document(1), "owner"))
    box.desk.work_off()
    assert len(box.reports) < 100
    assert (box.reports[-1].id, box.reports[-1].state) == ("owner", "applied")
    for number in range(1000):  # of what the owner once sent
        box.desk.take(OPS.seal(document(1), str(number)))
    box.desk.work_off()
    assert len(box.reports) < 300 and len(box.applier.applied) == 1


def test_a_change_of_the_file_that_is_being_applied_is_waited_for(box: Box) -> None:
    box.applier.refuse = Refused(409, (("", "another one is being applied"),))
    assert states(box.send(OPS.seal(document(1)))) == ["received"]
    box.applier.refuse = None
    box.desk.work_off()
    assert box.applier.version == 1


def test_a_rolled_back_document_is_not_tried_again_when_it_is_found_again(box: Box) -> None:
    box.send(OPS.seal(document(1)))
    box.applier.ends = Step("rolled_back", "front gave no frames", 422)
    bad = OPS.seal(document(2, {"profile": "sports"}), "bad")
    told = box.send(bad)[-1]
    assert (told.state, told.code, told.reason) == ("rolled_back", 422, "front gave no frames")
    assert (told.running.version, told.highest) == (1, 2)
    box.restart()
    assert [(r.id, r.state) for r in box.send(bad)] == [("bad", "rolled_back")]
    assert code(box.send(OPS.seal(document(2)))) == 409


def test_after_a_restart_the_end_of_the_last_is_told(box: Box) -> None:
    box.desk.announce()
    assert (box.reports[-1].state, box.reports[-1].version) == ("idle", None)
    box.send(OPS.seal(document(6), "six"))
    box.restart()
    box.desk.announce()
    last = box.reports[-1]
    assert (last.state, last.id, last.version, last.code) == ("applied", "six", 6, 200)
    assert last.previous is not None and (last.previous.version, last.previous.config) == (0, {})


def test_a_refusal_of_the_applier_keeps_its_code_and_leaves_no_trace(box: Box) -> None:
    box.send(OPS.seal(document(1)))
    box.applier.refuse = Refused(422, (("cameras.front", "no frame in 5 s from rtsp://me:secret@host/1"),))
    payload = OPS.seal(document(2, {"profile": "sports"}))
    reports = box.send(payload)
    assert code(reports) == 422
    assert [problem.path for problem in reports[0].errors] == ["cameras.front"]
    assert "secret" not in reports[0].model_dump_json()
    assert reports[0].previous is not None and reports[0].previous.version == 0
    box.applier.refuse = None
    box.restart()
    assert states(box.send(payload))[-1] == "applied"


def test_a_check_says_what_would_happen_and_does_nothing(box: Box) -> None:
    box.send(OPS.seal(document(1)))
    before = box.applier.state
    (told,) = box.send(OPS.seal(document(2, {"profile": "sports"}, mode="check")))
    assert (told.state, told.code, told.restarts) == ("checked", 200, ("agent",))
    assert [change.model_dump() for change in told.diff] == [
        {"path": "profile", "before": "security", "after": "sports"}
    ]
    (told,) = box.send(OPS.seal(document(2, {"fidelity_floor": 0.9}, mode="check", check="replace")))
    assert [change.path for change in told.diff] == ["fidelity_floor", "profile"]
    assert code(box.send(OPS.seal(document(2, {"model": "x"}, mode="check")))) == 403
    assert box.applier.state == before


def test_merge_keeps_and_takes_back_and_replace_drops(box: Box) -> None:
    zone = [[0, 0], [9, 0], [9, 9]]
    box.send(OPS.seal(document(1, {"profile": "sports", "cameras": {"front": {"fps": 5, "zones": {"a": zone}}}})))
    box.send(OPS.seal(document(2, {"profile": None, "cameras": {"front": {"zones": {"b": zone}}}})))
    assert box.applier.overlay == {"cameras": {"front": {"fps": 5, "zones": {"a": zone, "b": zone}}}}
    box.send(OPS.seal(document(3, {"cameras": {"front": None}})))
    assert box.applier.overlay == {}
    box.send(OPS.seal(document(4, {"profile": "movie"})))
    whole = {"fidelity_floor": 0.9, "cameras": {"front": {"zones": {"door": None}, "ignore": {}}}}
    box.send(OPS.seal(document(5, whole, mode="replace")))
    assert box.applier.overlay == {"fidelity_floor": 0.9, "cameras": {"front": {"zones": {"door": None}}}}
    assert code(box.send(OPS.seal(document(6, {"cameras": {"front": None}}, mode="replace")))) == 403


FORBIDDEN: dict[str, dict[str, Any]] = {
    "mqtt.url": {"mqtt": {"url": "mqtt://unreachable"}},
    "mqtt.password": {"mqtt": {"password": "file:/etc/shadow"}},
    "mqtt": {"mqtt": None},
    "model": {"model": "/tmp/evil"},
    "events.dir": {"events": {"dir": "/"}},
    "events.retention.days": {"events": {"retention": {"days": 0.001}}},
    "cameras.front.source": {"cameras": {"front": {"source": "rtsp://me:pw@host/1"}}},
    "cameras.front.credentials": {"cameras": {"front": {"credentials": "file:/etc/shadow"}}},
    "cameras.front.masks.street": {"cameras": {"front": {"masks": {"street": None}}}},
    "describer.url": {"describer": {"url": "http://evil/v1"}},
    "describer.key": {"describer": {"key": "env:PATH"}},
    "device.id": {"device": {"id": "other"}},
    "metrics.port": {"metrics": {"port": 1}},
    "remote.keys": {"remote": {"keys": "/tmp/mine"}},
    "remote.require_signature": {"remote": {"require_signature": False}},
    "cameras": {"cameras": 5},
    "cameras.front": {"cameras.front": {}},
    "nonsense": {"nonsense": {}},
}


@pytest.mark.parametrize("path", FORBIDDEN)
def test_what_is_not_on_the_list_is_403_with_its_path(box: Box, path: str) -> None:
    reports = box.send(OPS.seal(document(1, {**FORBIDDEN[path], "profile": "sports"})))
    assert code(reports) == 403
    assert [problem.path for problem in reports[0].errors] == [path]
    assert box.applier.applied == []


def test_all_forbidden_paths_are_named_at_once(box: Box) -> None:
    reports = box.send(OPS.seal(document(1, {"model": "x", "mqtt": {"url": "mqtt://a", "user": "b"}})))
    assert {problem.path for problem in reports[0].errors} == {"model", "mqtt.url", "mqtt.user"}


@pytest.mark.parametrize("pattern", ALLOWED)
def test_what_is_on_the_list_may_be_set_and_taken_back_also_from_above(pattern: str) -> None:
    config: Any = 1
    for part in reversed(pattern.replace("*", "front").split(".")):
        config = {part: config}
    check_paths(config)
    check_paths({pattern.split(".")[0]: None})


@pytest.mark.parametrize("hidden", ["***", "rtsp://***@host/1", "see http://host/?token=***"])
def test_what_is_shown_instead_of_a_secret_is_not_taken_back(box: Box, hidden: str) -> None:
    reports = box.send(OPS.seal(document(1, {"describer": {"prompt": {"describe": hidden}}})))
    assert code(reports) == 422
    assert [problem.path for problem in reports[0].errors] == ["describer.prompt.describe"]


def test_limits_hold_before_anything_is_read(box: Box) -> None:
    assert code(box.send(OPS.seal(document(1, {"profile": "x" * MAX_BYTES})))) == 400
    assert code(box.send(b"[" * 100_000)) == 400
    deep: Any = 1
    for _ in range(40):
        deep = {"zones": deep}
    assert code(box.send(OPS.seal(document(1, deep)))) == 400
    assert code(box.send(b'{"\\"' * 30_000)) == 400


@pytest.mark.parametrize(
    "text",
    [
        '{"version":1,"version":2,"mode":"merge","config":{},"device":"box"}',
        '{"version":1,"mode":"merge","config":{"fidelity_floor":1e999},"device":"box"}',
        '{"version":1,"mode":"merge","config":{"fidelity_floor":NaN},"device":"box"}',
        '{"version":1,"mode":"merge","config":{"device":{"name":"\\ud800"}},"device":"box"}',
        '{"version":true,"mode":"merge","config":{},"device":"box"}',
        '{"version":1.0,"mode":"merge","config":{},"device":"box"}',
        '{"version":0,"mode":"merge","config":{},"device":"box"}',
        '{"version":1,"mode":"patch","config":{},"device":"box"}',
        '{"version":1,"mode":"merge","config":[],"device":"box"}',
        '{"version":1,"mode":"merge","config":{},"device":"box","expires":"2026-01-01T00:00:00"}',
        '{"version":1,"mode":"merge","config":{},"device":"box","probation_s":0}',
        '{"version":1,"mode":"merge","config":{},"device":"box","keys":["ops-9 ed25519 AAAA"]}',
        '{"version":1,"mode":"merge","config":{},"device":"b*"}',
        "",
        "null",
    ],
)
def test_a_signed_document_of_another_form_is_400(box: Box, text: str) -> None:
    assert code(box.send(OPS.seal(text))) == 400
    assert box.applier.applied == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=12,
)
_objects = st.dictionaries(st.sampled_from("abc"), _json, max_size=3)


@given(_objects, _objects)
def test_merging_again_changes_nothing_and_leaves_no_null_behind(target: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merged(merged({}, target), patch)
    assert merged(once, patch) == once
    assert check_no_null(once)


def check_no_null(value: Any) -> bool:
    return value is not None and (not isinstance(value, dict) or all(map(check_no_null, value.values())))


def test_reports_are_all_told_in_order_and_the_last_is_kept() -> None:
    board = StateBoard()
    for payload in "abc":
        board.put("reported", payload, each=True)
    assert board.due(0.0) == [("reported", payload) for payload in "abc"]
    board.sent("reported", "a", 0.0)
    board.put("reported", "d", each=True)
    assert board.due(0.0) == [("reported", payload) for payload in "bcd"]
    for payload in "bcd":
        board.sent("reported", payload, 0.0)
    assert board.due(0.0) == [] and board.due_in(0.0) is None
    board.forget_sent()
    assert board.due(0.0) == [("reported", "d")]
