"""`cmd/ask`: a question about what a camera sees now, or saw in the last seconds, answered in parts."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from pydantic import JsonValue

from agent.camera import Camera
from agent.commanding import camera_of, fresh_frame
from agent.events.model import rfc3339
from agent.mqtt.commands import Command, CommandError
from agent.questions.moments import MomentSeen
from agent.rules.attendant import Attendant

_LONGEST_QUESTION = 300
_LONGEST_BACK_S = 3600.0
_MOST_MOMENTS = 8
_NEXT_FRAME_S = 5.0
_ANSWER_WITHIN_S = 30.0
_ALLOWED_S = 120.0
"""A large model may be slow to begin, and at the yes or no beside its words."""
_PART_EVERY_S = 0.2
_A_MINUTE = 60.0
_BUSY_S = 2.0
"""Two questions that come together are both answered; a command thread is not kept for longer than this."""
_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer, and from when to when it held. probability: of yes, for a question that is answered so."""

    text: str
    at: datetime
    until: datetime
    probability: float | None = None

    def as_json(self) -> dict[str, JsonValue]:
        rounded = None if self.probability is None else round(self.probability, 4)
        return {"at": rfc3339(self.at), "until": rfc3339(self.until), "text": self.text, "probability": rounded}


class Answering:
    """The handler of `cmd/ask` for these cameras: one question at a time, `per_minute` at most."""

    def __init__(
        self,
        cameras: Mapping[str, Camera],
        *,
        per_minute: int = 30,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cameras, self._per_minute, self._monotonic = cameras, per_minute, monotonic
        self._one = threading.Lock()
        self._asked: deque[float] = deque()

    def ask(self, command: Command) -> Mapping[str, JsonValue]:
        """`camera`, `question`, `last_s` (0 = now) → the answer, and the moments that it rests on. Raises
        CommandError for arguments that can't be used, without a fresh frame, and where there are too many questions."""
        command.only("camera", "question", "last_s")
        camera = camera_of(self._cameras, command)
        question = command.text("question")
        if len(question) > _LONGEST_QUESTION:
            raise CommandError(f"ask: expected at most {_LONGEST_QUESTION} characters for 'question'")
        last_s = command.arguments.get("last_s", 0)
        if isinstance(last_s, bool) or not isinstance(last_s, (int, float)) or not 0 <= last_s <= _LONGEST_BACK_S:
            raise CommandError(f"ask: expected 0 to {_LONGEST_BACK_S:g} seconds for 'last_s', found {last_s!r:.80}")
        command.allow(_ALLOWED_S)
        with self._turn():
            attendant = camera.attendant
            heading: dict[str, JsonValue] = {"camera": camera.name, "question": question}
            if attendant.mute:  # a sentence in place of words that would mean nothing
                return heading | {"text": attendant.mute, "evidence": [], "degraded": [attendant.mute]}
            fresh_frame(camera, command)
            now = _now(attendant, command)
            if last_s:
                seen = _some(attendant.moments.since(now.start_s - last_s), now, float(last_s))
                findings, notes = self._look_back(attendant, question, seen, command)
                text = _summary(findings)
            else:
                findings, notes = self._look(attendant, question, now, command)
                text = findings[0].text
            evidence: list[JsonValue] = [finding.as_json() for finding in findings]
            return heading | {"text": text, "evidence": evidence, "degraded": list[JsonValue](notes)}

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Only one at a time, and not too many: the model has rules and descriptions to see to as well."""
        if not self._one.acquire(timeout=_BUSY_S):
            raise CommandError("ask: busy: another question is being answered; try again")
        try:
            now = self._monotonic()
            while self._asked and now - self._asked[0] >= _A_MINUTE:
                self._asked.popleft()
            if len(self._asked) >= self._per_minute:
                left_s = _A_MINUTE - (now - self._asked[0])
                raise CommandError(f"ask: {self._per_minute} questions in a minute; try again in {left_s:.0f} s")
            self._asked.append(now)
            yield
        finally:
            self._one.release()

    def _look(
        self, attendant: Attendant, question: str, now: MomentSeen, command: Command
    ) -> tuple[list[Finding], list[str]]:
        """Now: words are told as they come."""
        features = now.features.astype(np.float32)
        pieces: list[str] = []
        told, due = 0, 0.0
        began = self._monotonic()
        for piece in attendant.say(features, question, _ANSWER_WITHIN_S):
            pieces.append(piece if pieces else piece.lstrip())
            if "".join(pieces[told:]) and self._monotonic() >= due:
                command.tell("".join(pieces[told:]), None)
                told, due = len(pieces), self._monotonic() + _PART_EVERY_S
        if told < len(pieces):
            command.tell("".join(pieces[told:]), None)
        text = "".join(pieces).strip()
        yes = attendant.weigh(features, question) if _YES_NO.match(text) else None
        return [Finding(text, now.utc, now.utc, yes)], _late(self._monotonic() - began)

    def _look_back(
        self, attendant: Attendant, question: str, seen: Sequence[MomentSeen], command: Command
    ) -> tuple[list[Finding], list[str]]:
        """One moment after the other: an answer is told when it is another than that of the moment before."""
        findings: list[Finding] = []
        began = self._monotonic()
        for number, moment in enumerate(seen):
            left_s = _ANSWER_WITHIN_S - (self._monotonic() - began)
            if left_s <= 0:
                return findings, [f"only {number} of {len(seen)} moments were looked at: it took too long"]
            features = moment.features.astype(np.float32)
            text = "".join(attendant.say(features, question, left_s)).strip()
            yes = None
            if _YES_NO.match(text):
                yes = attendant.weigh(features, question)
                text = "Yes." if yes >= 0.5 else "No."
            until = moment.utc + timedelta(seconds=moment.until_s - moment.start_s)
            if findings and findings[-1].text == text:
                before = findings[-1]
                surest = None if yes is None or before.probability is None else _surer(before.probability, yes)
                findings[-1] = replace(before, until=until, probability=surest)
                continue
            findings.append(Finding(text, moment.utc, until, yes))
            command.tell(("" if len(findings) == 1 else " ") + text, moment.utc)
        return findings, []


def _now(attendant: Attendant, command: Command) -> MomentSeen:
    try:
        return attendant.moments.now().result(_NEXT_FRAME_S)
    except FutureTimeout:
        raise CommandError(f"{command.name}: no frame was analysed for {_NEXT_FRAME_S:g} s; try again") from None


def _some(kept: Sequence[MomentSeen], now: MomentSeen, last_s: float) -> list[MomentSeen]:
    """At most so many of the moments, spread evenly, and now as the last; each cut at the beginning of the time that is
    asked about."""
    start_s = now.start_s - last_s
    cut = [
        moment
        if moment.start_s >= start_s
        else replace(moment, start_s=start_s, utc=moment.utc + timedelta(seconds=start_s - moment.start_s))
        for moment in kept
        if moment.until_s < now.start_s
    ]
    if len(cut) >= _MOST_MOMENTS:
        cut = [cut[index] for index in np.linspace(0, len(cut) - 1, _MOST_MOMENTS - 1).round().astype(int)]
    return [*cut, now]


def _summary(findings: Sequence[Finding]) -> str:
    """Yes where it was so at any moment; other answers one after the other, with their times where they differ."""
    if all(finding.probability is not None for finding in findings):
        return "Yes." if any(finding.text == "Yes." for finding in findings) else "No."
    if len(findings) == 1:
        return findings[0].text
    return " ".join(f"{rfc3339(finding.at)[11:19]} {finding.text}" for finding in findings)


def _surer(a: float, b: float) -> float:
    return max(a, b, key=lambda p: abs(p - 0.5))


def _late(took_s: float) -> list[str]:
    return [f"the answer was cut short after {_ANSWER_WITHIN_S:g} s"] if took_s >= _ANSWER_WITHIN_S else []
