"""What one camera has to tell: changes, anomalies and its own health, each told at once and completed later.

An alert is told with what is known when it is decided; words, snapshot and clip follow under the same id.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from agent.capture.frame import Frame
from agent.describing import Describe, DescribingThread, Description, Look
from agent.events.book import EventBook
from agent.events.model import Anomaly, AnyNews, Box, Condition, Health, SemanticChange, Severity
from agent.evidence.camera import CameraEvidence
from agent.insight.anomaly import HIGH, Alarm
from agent.insight.change import Change
from agent.insight.described import DescribedStates
from agent.insight.tamper import Tampering
from agent.wording import only_in

TEXT = "text"
_TAMPERED = {
    Tampering.COVERED: "the camera shows hardly anything: it is covered, or its lens is dirty",
    Tampering.MOVED: "the camera looks elsewhere than it did; if that lasts, what is normal is learned anew",
}


class CameraReporter:
    """Publishes for one camera. Every method returns at once; words and disk are the business of other threads.

    describe: puts looks into words. None when the model's words mean nothing on this camera: then `mute` is the
    sentence that says so, and stands in each event's `degraded`. fallback: asked when `describe` gives no words.
    picture: makes the JPEG that `describe` gets to see from uint8 RGB (H, W, 3); None when it needs none. evidence:
    what events have beside them; None = nothing.
    """

    def __init__(
        self,
        camera: str,
        book: EventBook,
        describing: DescribingThread,
        describe: Describe | None,
        *,
        fallback: Describe | None = None,
        picture: Callable[[NDArray[np.uint8]], bytes] | None = None,
        mute: str = "",
        evidence: CameraEvidence | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.camera = camera
        self.text = ""
        """What was said last of this camera."""
        self._book, self._describing, self._mute = book, describing, mute
        self._describe, self._fallback, self._picture = describe, fallback, picture
        self.states = DescribedStates()
        """What was said of states of the scene that may come back."""
        self._evidence, self._clock = evidence, clock
        self._muted_until_s = 0.0
        self._alarms: dict[float, str] = {}
        self._loss: str | None = None
        self._tampering: str | None = None
        self._words_every_s, self._why_spared = 0.0, ""
        self._asked_s = -math.inf

    @property
    def muted_until(self) -> datetime | None:
        """No alerts and changes are told until then; None when they are."""
        until_s = self._muted_until_s
        return datetime.fromtimestamp(until_s, timezone.utc) if self._clock() < until_s else None

    def mute(self, for_s: float) -> datetime | None:
        """Tell no alerts and changes for so long (0: tell them again), from any thread. What is open is still completed
        and ended, and the camera's health is always told."""
        self._muted_until_s = self._clock() + for_s
        return self.muted_until

    def follow(self, old: CameraReporter) -> None:
        """Go on with what another, which has stopped, said last of this camera, as silent as it was told to be. That
        the camera is lost is for this one to end; whether it is moved or covered must be seen anew."""
        self.text, self._muted_until_s = old.text, old._muted_until_s
        self._loss, old._loss = old._loss, None
        old.gone("the camera was set up anew")

    def gone(self, reason: str) -> None:
        """Nobody watches this camera any more: end what is said of its health."""
        for event_id in (self._loss, self._tampering):
            if event_id is not None:
                self._book.update(event_id, end=True, notes=(reason,))
        self._loss = self._tampering = None

    def test(self, frame: Frame, text: str) -> str:
        """Tell an alert that nothing led to, as any alert is told, muted or not; returns the event's id."""
        news = Anomaly(
            camera=self.camera,
            frame_ts=frame.utc,
            frame_size=frame.size,
            severity=Severity.LOW,
            text=text,
            evidence={"test": True},
        )
        event_id = self._publish(news, frame, clip=True, words=False)
        self._book.update(event_id, end=True, duration_s=0.0)
        return event_id

    def spare_words(self, every_s: float, reason: str) -> None:
        """Ask for words at most so often from now on, and tell the reason in what goes without; from any thread."""
        self._words_every_s, self._why_spared = every_s, reason

    def first_look(self, frame: Frame, features: NDArray[np.float32]) -> None:
        """Have the scene (float32 (T, D)) described without an event: what a first change will call `before`."""
        self._wish(frame, features, self._remember)

    def changed(
        self,
        change: Change,
        frame: Frame,
        boxes: Sequence[Box],
        zones: Mapping[str, float],
        features: NDArray[np.float32],
    ) -> str | None:
        """Tell a semantic change; returns the event's id, None when muted. zones: those that it touches, and the share
        of each that has changed. features: float32 (T, D), the state to be described."""
        if self.muted_until is not None:
            self._wish(frame, features, self._remember)
            return None
        news = SemanticChange(
            camera=self.camera,
            frame_ts=frame.utc,
            frame_size=frame.size,
            regions=tuple(boxes),
            zones=tuple(zones),
            distance=change.distance,
            before_text=self.text,
            degraded=self._degraded,
            evidence={
                "cause": change.kind.value,
                "area_share": round(change.area_share, 4),
                "seen_for_s": round(frame.monotonic_ns / 1e9 - change.onset_s, 2),
                "zones": {zone: round(share, 3) for zone, share in zones.items()},
            },
        )
        event_id = self._publish(news, frame, clip=False)
        self._wish(frame, features, partial(self._told, event_id, True), change=True)
        return event_id

    def anomaly(
        self,
        alarm: Alarm,
        frame: Frame,
        boxes: Sequence[Box],
        zones: Sequence[str],
        features: NDArray[np.float32],
    ) -> str | None:
        """Tell that an alarm begins, that it has become worse or that it is over; returns the event's id, None when it
        was muted."""
        facts: dict[str, JsonValue] = {
            "streams": [stream.value for stream in alarm.streams],
            "seen_for_s": round(alarm.duration_s, 2),
            "as_high_per_day": alarm.per_day,
            "extrapolated": alarm.extrapolated,
            "accepted": alarm.accepted,
            "normal": alarm.normal,
            "alarms_within_a_day": alarm.today,
        }
        if alarm.too_many:
            facts["often"] = (
                f"alarm {alarm.today} within a day, more than false alarms make by chance: "
                "to `feedback` that one is normal teaches what recurs here"
            )
        severity = Severity.HIGH if alarm.score >= HIGH else Severity.MEDIUM
        if alarm.ended:
            duration_s = round(alarm.duration_s, 3)
            changes: dict[str, Any] = {"score": alarm.score, "severity": severity, "evidence": facts}
            return self.end_alarm(alarm.onset_s, duration_s=duration_s, **changes)
        if self.muted_until is not None:
            return None
        if alarm.again:
            open_id = self._alarms.get(alarm.onset_s)
            if open_id is not None:
                places: dict[str, Any] = {"regions": tuple(boxes), "zones": tuple(zones)}
                self._book.update(open_id, score=alarm.score, severity=severity, evidence=facts, **places)
            return open_id
        news = Anomaly(
            camera=self.camera,
            frame_ts=frame.utc,
            frame_size=frame.size,
            regions=tuple(boxes),
            zones=tuple(zones),
            score=alarm.score,
            severity=severity,
            degraded=self._degraded,
            evidence=facts,
        )
        event_id = self._alarms[alarm.onset_s] = self._publish(news, frame, clip=True)
        self._wish(frame, features, partial(self._told, event_id, False), alert=True)
        return event_id

    def alert(self, news: AnyNews, frame: Frame, features: NDArray[np.float32]) -> str | None:
        """Tell an alert of another part, completed with words, snapshot and clip; from any thread. Returns the event's
        id, None when it was muted."""
        if self.muted_until is not None:
            return None
        news = news.model_copy(update={"degraded": (*news.degraded, *self._degraded)})
        event_id = self._publish(news, frame, clip=True)
        self._wish(frame, features, partial(self._told, event_id, False), alert=True)
        return event_id

    def over(self, event_id: str, **changes: Any) -> None:
        """What an `alert` was about has ended."""
        self._book.update(event_id, end=True, **changes)

    def end_alarm(self, onset_s: float, **changes: Any) -> str | None:
        """An alarm is over; returns the event's id, None when it was not told."""
        event_id = self._alarms.pop(onset_s, None)
        if event_id is not None:
            self._book.update(event_id, end=True, **changes)
        return event_id

    def interrupted(self, reason: str) -> None:
        """End what is open because nothing more will be seen: the camera is gone or the agent stops."""
        for onset_s in tuple(self._alarms):
            self.end_alarm(onset_s, notes=(reason,))

    def lost(self, reason: str) -> None:
        """Tell that the camera gives no frames; once, however often it is tried again."""
        if self._loss is None:
            news = Health(camera=self.camera, condition=Condition.LOST, text=reason)
            self._loss = self._book.publish(news)

    def back(self) -> None:
        """The camera gives frames; tells it when it was lost before."""
        if self._loss is not None:
            self._book.update(self._loss, end=True)
            self._loss = None

    def tampered(self, kind: Tampering | None, frame: Frame) -> None:
        """Tell that the camera was moved or covered; None: it shows what it did before, or that is the new normal."""
        if self._tampering is not None:
            self._book.update(self._tampering, end=True)
            self._tampering = None
        if kind is not None:
            self.interrupted(f"the camera was {kind.value}")
            news = Health(
                camera=self.camera,
                condition=Condition(kind.value),
                frame_ts=frame.utc,
                frame_size=frame.size,
                text=_TAMPERED[kind],
            )
            self._tampering = self._book.publish(news)

    def _publish(self, news: AnyNews, frame: Frame, *, clip: bool, words: bool = True) -> str:
        """Tell it at once with what will follow, and have that made; returns the event's id."""
        within: dict[str, float] = {}
        if words and self._describe is not None:
            within[TEXT] = self._describing.patience_s
        if self._evidence is not None:
            within |= self._evidence.within(clip=clip)
        news = news.model_copy(update={"pending": tuple(within)})
        event_id = self._book.publish(news, within=within)
        if self._evidence is not None:
            self._evidence.collect(event_id, frame, news.regions, news.severity, clip=clip)
        return event_id

    @property
    def _degraded(self) -> tuple[str, ...]:
        return (self._mute,) if self._describe is None and self._mute else ()

    def _wish(
        self,
        frame: Frame,
        features: NDArray[np.float32],
        done: Callable[[Description], None],
        *,
        change: bool = False,
        alert: bool = False,
    ) -> None:
        """Ask for words about a frame and its features; a picture is made only here, and only for who needs one."""
        if self._describe is None:
            return
        now_s = frame.monotonic_ns / 1e9
        if now_s - self._asked_s < self._words_every_s:
            done(Description("", f"no text: words at most every {self._words_every_s:g} s: {self._why_spared}"))
            return
        self._asked_s = now_s
        describe, picture = self._describe, None
        if self._picture is not None:
            picture = self._picture(frame.image)
        elif (known := self.states.recall(features)) is not None:
            describe = partial(_repeat, known)  # takes its turn, so that texts stay in order
        else:
            done = partial(self._described, features.copy(), done)
        look = Look(features, picture, change)
        self._describing.wish(self.camera, describe, look, done, fallback=self._fallback, alert=alert)

    def _told(self, event_id: str, change: bool, description: Description) -> None:
        """On a describing thread: descriptions of a camera come in order, so `text` is what was said before."""
        told: dict[str, Any] = {"text": description.text}
        if change:
            before, after = self.text, description.text
            told |= {"before_text": before, "after_text": after}
            told |= {"new_text": only_in(after, before), "gone_text": only_in(before, after) if after else ""}
        notes = () if description.note is None else (description.note,)
        self._book.update(event_id, done=(TEXT,), notes=notes, **told)
        self._remember(description)

    def _described(
        self, features: NDArray[np.float32], done: Callable[[Description], None], description: Description
    ) -> None:
        """Words have been made of this state; whole ones are kept for when it comes back."""
        if description.text and description.note is None:
            self.states.remember(features, description.text)
        done(description)

    def _remember(self, description: Description) -> None:
        if description.text:
            self.text = description.text


def _repeat(text: str, _look: Look) -> Iterator[str]:
    yield text
