"""What a rule's alert looks like to people."""

from __future__ import annotations

from agent.events.model import RuleAlert, Severity
from agent.reporting import CameraReporter
from agent.rules.camera import Moment
from agent.rules.firing import Fired
from config.settings import Rule


class RuleTeller:
    """The alerts of one camera's rules, told by its reporter: at once, completed later, ended with their duration."""

    def __init__(self, reporter: CameraReporter) -> None:
        self._reporter = reporter
        self._open: dict[str, str] = {}

    def began(self, rule: Rule, fired: Fired, moment: Moment) -> None:
        frame = moment.sight.frame
        news = RuleAlert(
            camera=self._reporter.camera,
            rule=rule.name,
            ask=rule.ask,
            frame_ts=frame.utc,
            frame_size=frame.size,
            regions=moment.regions,
            zones=() if rule.zone is None else (rule.zone,),
            score=round(moment.probability, 4),
            severity=Severity(rule.severity),
            evidence={
                "threshold": rule.threshold,
                "yes": fired.yes,
                "answers": fired.answers,
                "seen_for_s": round(fired.last_s - fired.onset_s, 2),
                "asked": moment.asked,
            },
        )
        told = self._reporter.alert(news, frame, moment.features)
        if told is not None:
            self._open[rule.name] = told

    def ended(self, rule: Rule, fired: Fired | None, reason: str | None) -> None:
        told = self._open.pop(rule.name, None)
        if told is None:
            return
        if fired is None:
            self._reporter.over(told, notes=(reason,) if reason else ())
        else:
            lasted_s = round(fired.last_s - fired.onset_s, 3)
            self._reporter.over(told, duration_s=lasted_s, score=round(fired.highest, 4))
