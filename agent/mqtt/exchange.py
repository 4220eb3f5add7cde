"""What goes over one connection: acknowledgements in; answers, states and events out, in this order of urgency.

At most `limit` publishes are unacknowledged at once, fewer where the broker says so (Receive Maximum). What the broker
refuses is noted by topic. Used by one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import structlog

from agent.mqtt.answers import Answer, Answers
from agent.mqtt.delivery import NO_SUBSCRIBERS, Delivery, Outgoing
from agent.mqtt.session import PACKET_OVERHEAD, Ack, Session
from agent.mqtt.states import Payload, StateBoard
from agent.mqtt.topics import EVENT_FORM

log = structlog.get_logger()

_LIMIT = 20


@dataclass(frozen=True, slots=True)
class _Sent:
    """A publish that waits for its acknowledgement. row: of an event. answer: what it says to who asked."""

    kind: Literal["event", "form", "state", "answer"]
    topic: str
    at: float
    row: int = 0
    answer: Answer | None = None


class Exchange:
    """Made for a fresh session; gone with it. denied: topic → why the broker does not take it. Times are monotonic
    seconds."""

    def __init__(self, session: Session, delivery: Delivery, states: StateBoard, answers: Answers, now: float) -> None:
        self._session = session
        self._delivery = delivery
        self._states = states
        self._answers = answers
        self._limit = min(_LIMIT, session.receive_maximum)
        self._sent: dict[int, _Sent] = {}
        self.denied: dict[str, str] = {}
        states.forget_sent()
        answers.begin()
        delivery.begin(now, session.max_packet)

    @property
    def unacknowledged(self) -> int:
        return len(self._sent)

    def waiting_s(self, now: float) -> float:
        """For how long the oldest publish has waited for its acknowledgement, 0 when none does."""
        return max((now - sent.at for sent in self._sent.values()), default=0.0)

    def step(self, now: float, *, events: bool = True) -> None:
        """Take in what came, send what is due. Without `events` none is begun."""
        for ack in self._session.acks():
            self._settle(ack, now)
        while (refusal := self._session.refused_subscription()) is not None:
            topic, reason = refusal
            self.denied[f"our listening to {topic}"] = reason
        while self._room > 0 and (answer := self._answers.next()) is not None:
            self._say(answer, now)
        for topic, payload in self._states.due(now)[: self._room]:
            self._states.sent(topic, payload, now)
            self._publish(_Sent("state", topic, now), payload)
        if events:
            for outgoing in self._delivery.next(self._room // 2 if self._limit > 1 else self._room, now):
                self._tell(outgoing, now)
        self._delivery.save(now)

    def lost(self) -> None:
        """The connection is gone, and this with it. Answers that were on their way go back to those that wait."""
        self._answers.lost([sent.answer for sent in self._sent.values() if sent.answer is not None])
        self._sent.clear()

    def _say(self, answer: Answer, now: float) -> None:
        reply = answer.reply
        if reply.correlation is not None and not self._session.correlates:
            log.warning("an answer is dropped: this connection can't say which request it is for", topic=reply.topic)
            return
        self._publish(_Sent("answer", reply.topic, now, answer=answer), reply.payload, correlation=reply.correlation)

    def _tell(self, outgoing: Outgoing, now: float) -> None:
        """The form first: a broker answers in order, so when it has taken the event it has had the form, too."""
        if self._limit > 1:
            self._publish(_Sent("form", f"{outgoing.topic.rpartition('/')[0]}/{EVENT_FORM}", now), outgoing.form)
        self._publish(_Sent("event", outgoing.topic, now, outgoing.row), outgoing.payload)

    def due_in(self, now: float) -> float | None:
        """Seconds until `step` has something to send by itself; None when only others can bring something."""
        if self._room == 0:
            return None
        times = (self._states.due_in(now), self._delivery.due_in(now), self._answers.due_in())
        return min((time for time in times if time is not None), default=None)

    @property
    def _room(self) -> int:
        return max(0, self._limit - len(self._sent))

    def _publish(self, sent: _Sent, payload: Payload, correlation: bytes | None = None) -> None:
        size = (
            len(payload.encode() if isinstance(payload, str) else payload)
            + len(sent.topic.encode())
            + len(correlation or b"")
            + PACKET_OVERHEAD
        )
        if sent.kind != "event" and self._session.max_packet is not None and size > self._session.max_packet:
            self.denied[sent.topic] = f"{size} bytes, the broker takes packets of {self._session.max_packet}"
            return
        try:
            mid = self._session.publish(sent.topic, payload, retain=sent.kind == "state", correlation=correlation)
        except ValueError as error:  # a response topic that can't be one
            log.warning("can't publish", topic=sent.topic, reason=str(error))
            return
        self._sent[mid] = sent

    def _settle(self, ack: Ack, now: float) -> None:
        sent = self._sent.pop(ack.mid, None)
        if sent is None:
            return
        self._delivery.prove()
        if ack.refused and self.denied.get(sent.topic) != ack.reason:
            log.warning("the broker does not take a topic", topic=sent.topic, reason=ack.reason)
            self.denied[sent.topic] = ack.reason
        elif not ack.refused:
            self.denied.pop(sent.topic, None)
            if sent.kind == "state":
                self._states.acknowledged(sent.topic)
        if sent.kind == "event":
            self._delivery.acknowledged(sent.row, ack, now)
        if sent.answer is not None and ack.code == NO_SUBSCRIBERS:
            self._answers.unheard(sent.answer)
