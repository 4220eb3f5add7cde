"""What counts as found: an alarm before the event is none of it."""

from __future__ import annotations

import pytest

from agent.capture.scene.drills import Drill
from agent.insight.drilling import _Notes, _outcome


@pytest.mark.parametrize(
    ("alarm_frame", "latency", "false"),
    [(465, None, 0), (499, 0.0, 0), (510, 1.0, 0), (410, None, 1), (710, None, 1), (620, None, 0)],
)
def test_an_alarm_finds_an_event_from_two_frames_before_its_onset_to_its_end(
    alarm_frame: int, latency: float | None, false: int
) -> None:
    notes = _Notes(alarms=[(alarm_frame, "motion")])
    found = _outcome([Drill("fall", 50.0, 60.0)], notes, fps=10.0, frames=1000, learn_s=20.0)
    assert found.latency_s == [latency] and len(found.false_alarms) == false
