"""Which event goes next: every loss, refusal and silence of a broker, without a broker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import pytest
from events_memory import memory_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.events.model import AnyEvent, EventType, SemanticChange, Severity, event, new_id
from agent.events.outbox import Outbox
from agent.mqtt.delivery import Delivery, Outgoing
from agent.mqtt.session import Ack

TAKEN, NOBODY, DENIED = Ack(0, 0, "Success"), Ack(0, 0x10, "No matching subscribers"), Ack(0, 0x87, "Not authorized")


def telling(severity: Severity) -> AnyEvent:
    news = SemanticChange(camera="front", distance=0.5, severity=severity)
    return event(news, event_id=new_id(), type=EventType.NEW, ts=datetime.now(timezone.utc), device="box")


def put(outbox: Outbox, camera: str = "front", topic: str | None = None, text: str = "") -> int:
    news = SemanticChange(camera=camera, distance=0.5, text=text)
    told = event(news, event_id=new_id(), type=EventType.NEW, ts=datetime.now(timezone.utc), device="box")
    outbox.append(told, topic or f"{camera}/change")
    return outbox.pending(1000)[-1].row


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    with memory_folder() as folder, Outbox(folder / "o.db", monotonic=lambda: 0.0) as made:
        yield made


def rows(sent: list[Outgoing]) -> list[int]:
    return [outgoing.row for outgoing in sent]


def ready(delivery: Delivery, outbox: Outbox, *cameras: str) -> None:
    """Past the slow start of a connection."""
    for camera in cameras:
        row = put(outbox, camera)
        assert row in rows(delivery.next(20, 0.0))
        delivery.acknowledged(row, TAKEN, 0.0)


_steps = st.lists(
    st.sampled_from(["front", "yard", "ack", "ack", "ack all", "nobody", "lose", "step", "step", "wait"]), max_size=60
)


@settings(max_examples=40, deadline=None)
@given(_steps, st.data())
def test_whatever_happens_each_camera_arrives_whole_and_in_order(steps: list[str], data: st.DataObject) -> None:
    """A broker that takes, loses the connection having taken any part of what was in flight, or has no subscribers."""
    with memory_folder() as folder, Outbox(folder / "o.db", monotonic=lambda: 0.0) as outbox:
        delivery = Delivery(outbox, window=5, patience_s=10.0, replay_after_s=1e9)
        now = 0.0
        delivery.begin(now, None)
        delivery.prove()
        flying: list[tuple[int, str, int]] = []
        arrived: list[tuple[str, int]] = []
        expected: list[tuple[str, int]] = []
        seqs = {"front": 0, "yard": 0}

        def send() -> None:
            for out in delivery.next(5, now):
                camera = out.topic.split("/")[0]
                seq = next(s.document["seq"] for s in outbox.pending(1000) if s.row == out.row)
                flying.append((out.row, camera, seq))
            assert len(flying) <= 5

        def acknowledge(ack: Ack) -> None:
            row, camera, seq = flying.pop(0)
            if ack is TAKEN:
                arrived.append((camera, seq))
            delivery.prove()
            delivery.acknowledged(row, ack, now)
            delivery.save(now)

        for n, step in enumerate([*steps, *["step", "ack all", "wait"] * 30]):
            if n >= len(steps) and outbox.depth == 0:
                break
            if step in seqs:
                put(outbox, step)
                seqs[step] += 1
                expected.append((step, seqs[step]))
            elif step == "step":
                send()
            elif step == "wait":
                now += 5.0
            elif step == "lose":
                taken = data.draw(st.integers(0, len(flying)))
                arrived += [(camera, seq) for _, camera, seq in flying[:taken]]
                flying.clear()
                delivery.lost()
                delivery.begin(now, None)
                delivery.prove()
            elif step == "ack all":
                while flying:
                    acknowledge(TAKEN)
            elif flying:
                # Once a camera's subscribers are there they stay: only its first event on a connection may find none.
                acknowledge(NOBODY if step == "nobody" and now < 10.0 and len(flying) == 1 else TAKEN)
        assert outbox.depth == 0
    missing = set(expected) - set(arrived)
    for camera in seqs:
        firsts = list(dict.fromkeys(seq for c, seq in arrived if c == camera))
        assert firsts == sorted(firsts)
    unheard = {entry for entry in missing if not any(c == entry[0] and s < entry[1] for c, s in arrived)}
    assert missing == unheard, "only what came before anybody ever listened is missing"


def test_what_the_broker_refuses_is_tried_for_an_hour_before_it_is_set_aside() -> None:
    """Its camera waits with it for a minute, then its topic only; other cameras don't wait at all."""
    clock = [0.0]
    with memory_folder() as folder, Outbox(folder / "o.db", monotonic=lambda: clock[0]) as outbox:
        delivery = Delivery(outbox, replay_after_s=1e9)
        delivery.begin(0.0, None)
        ready(delivery, outbox, "front", "yard")
        bad, after, other = put(outbox, topic="front/alert"), put(outbox), put(outbox, "yard")
        tries: list[float] = []
        arrived: dict[int, float] = {}
        assert rows(delivery.next(1, 0.0)) == [bad]
        while outbox.depth and clock[0] < 10_000.0:
            now = clock[0]
            for row in [bad] if not tries else rows(delivery.next(20, now)):
                if row == bad:
                    tries.append(now)
                else:
                    arrived[row] = now
                delivery.acknowledged(row, DENIED if row == bad else TAKEN, now)
            delivery.save(now)
            clock[0] += 1.0
        assert outbox.dropped == {"refused": 1}
        assert arrived[other] <= 1.0 and 60.0 <= arrived[after] < 130.0
        assert tries[:5] == [0.0, 1.0, 3.0, 7.0, 15.0]
        assert tries[-1] >= 3600.0 and max(b - a for a, b in itertools.pairwise(tries)) == 60.0


def test_a_short_mistake_in_the_access_list_costs_no_event_and_no_order(outbox: Outbox) -> None:
    delivery = Delivery(outbox)
    delivery.begin(0.0, None)
    ready(delivery, outbox, "front")
    arrived: list[int] = []
    kept = [put(outbox, topic="front/alert")]
    for now in range(100):
        if now == 20:
            kept += [put(outbox, topic=f"front/{kind}") for kind in ("alert", "change", "alert")]
        while sent := delivery.next(20, float(now)):
            for out in sent:
                refused = now < 30 and out.topic == "front/alert"
                arrived += [] if refused else [out.row]
                delivery.acknowledged(out.row, DENIED if refused else TAKEN, float(now))
    assert arrived == kept and outbox.dropped == {}


class Line:
    """A connection that states prove at once; `deadly` says on which rows it dies, `tick` ends it for no reason."""

    def __init__(self, delivery: Delivery, deadly: Callable[[int], bool]) -> None:
        self.delivery, self.deadly = delivery, deadly
        self.arrived: list[int] = []
        self.deaths: list[list[int]] = []
        self.suspects = False

    def live(self, now: float, until: float) -> float:
        """Until it dies, or `until`; returns when."""
        self.delivery.begin(now, None)
        assert not self.suspects or self.delivery.next(20, now) == [], "a suspect waits until the connection is proved"
        self.delivery.prove()
        while now < until:
            sent = rows(self.delivery.next(20, now))
            if any(self.deadly(row) for row in sent):
                self.deaths.append(sent)
                break
            for row in sent:
                self.delivery.acknowledged(row, TAKEN, now)
                self.arrived.append(row)
            self.delivery.save(now)
            now += 0.25
        self.delivery.next(0, now)
        self.suspects = self.delivery.in_flight > 0
        self.delivery.lost()
        return now


@pytest.mark.parametrize("cameras", ["abcd", "aaaa"])
def test_the_event_that_kills_connections_is_found_and_the_others_arrive(outbox: Outbox, cameras: str) -> None:
    all_rows = [put(outbox, camera, text="poison" * (n == 2)) for n, camera in enumerate(cameras)]
    line = Line(Delivery(outbox, max_tries=3), lambda row: row == all_rows[2])
    now = 0.0
    while outbox.depth and now < 600.0:
        now = line.live(now, now + 100.0)
    assert sorted(line.arrived) == [all_rows[0], all_rows[1], all_rows[3]]
    assert outbox.dropped == {"refused": 1}
    assert [all_rows[2]] * 3 == [row for sent in line.deaths[-3:] for row in sent], "alone each time"


def test_two_events_that_kill_connections_are_both_found(outbox: Outbox) -> None:
    all_rows = [put(outbox, camera) for camera in "abcd"]
    line = Line(Delivery(outbox, max_tries=3), lambda row: row in all_rows[:2])
    now = 0.0
    while outbox.depth and now < 1000.0:
        now = line.live(now, now + 100.0)
    assert sorted(line.arrived) == all_rows[2:] and outbox.dropped == {"refused": 2}


def test_a_bad_line_costs_no_event(outbox: Outbox) -> None:
    """It dies ten times right after the only event, then dies for no reason, then holds."""
    row = put(outbox)
    died: list[int] = []
    line = Line(Delivery(outbox), lambda row: len(died) < 10 and not died.append(row))  # type: ignore[func-returns-value]
    now = 0.0
    for _ in range(10):
        now = line.live(now, now + 200.0)
    assert len(died) == 10 and outbox.dropped == {} and outbox.depth == 1
    now = line.live(now, now + 0.5)
    line.live(now, now + 200.0)
    assert line.arrived == [row] and outbox.dropped == {}


def test_deaths_of_a_line_that_also_dies_without_the_event_do_not_count(outbox: Outbox) -> None:
    unlucky = put(outbox, "a")
    now, times = 0.0, 0

    def deadly(row: int) -> bool:
        return row == unlucky and times < 20

    line = Line(Delivery(outbox), deadly)
    while outbox.depth and now < 900.0:
        put(outbox, "b")
        for _ in range(4):
            now = line.live(now, now + 100.0)  # right after the event
            times += 1
        now = line.live(now, now + 0.5)  # and before it comes to that
    assert unlucky in line.arrived and outbox.dropped == {}


def test_a_broker_that_merely_restarts_costs_nothing(outbox: Outbox) -> None:
    delivery = Delivery(outbox, max_tries=3)
    kept = [put(outbox) for _ in range(5)]
    for _ in range(20):  # dies each time before it has acknowledged anything at all
        delivery.begin(0.0, None)
        delivery.next(20, 0.0)
        delivery.lost()
    assert outbox.dropped == {}
    assert [s.row for s in outbox.pending(9)] == kept


def test_after_a_reconnect_events_wait_for_their_listeners_but_not_for_ever(outbox: Outbox) -> None:
    delivery = Delivery(outbox, patience_s=20.0)
    delivery.begin(0.0, None)
    ready(delivery, outbox, "front")
    delivery.save(0.0)
    delivery.lost()
    first, second = put(outbox), put(outbox)
    delivery.begin(100.0, None)
    assert rows(delivery.next(20, 100.0)) == [first], "one at a time until somebody listens"
    delivery.acknowledged(first, NOBODY, 100.0)
    assert rows(delivery.next(20, 100.0)) == []
    wait = delivery.due_in(100.0)
    assert wait is not None and 0 < wait < 1
    assert rows(delivery.next(20, 100.0 + wait)) == [first]
    delivery.acknowledged(first, NOBODY, 121.0)
    assert rows(delivery.next(20, 121.0)) == [second]
    delivery.acknowledged(second, NOBODY, 121.0)
    delivery.save(0.0)
    assert outbox.depth == 0


def test_where_nobody_ever_listened_nothing_waits(outbox: Outbox) -> None:
    delivery = Delivery(outbox)
    delivery.begin(0.0, None)
    row = put(outbox)
    delivery.next(20, 0.0)
    delivery.acknowledged(row, NOBODY, 0.0)
    delivery.save(0.0)
    assert outbox.depth == 0


def test_what_the_broker_says_is_too_large_is_not_sent(outbox: Outbox) -> None:
    delivery = Delivery(outbox)
    put(outbox, text="x" * 2000)
    small = put(outbox)
    delivery.begin(0.0, 1500)
    assert rows(delivery.next(20, 0.0)) == [small]
    assert outbox.dropped == {"refused": 1}


def test_late_events_say_so_and_are_paced() -> None:
    clock = [0.0]
    with memory_folder() as folder, Outbox(folder / "o.db", monotonic=lambda: clock[0]) as outbox:
        delivery = Delivery(outbox, window=1000, replay_per_s=100.0)
        delivery.begin(0.0, None)
        ready(delivery, outbox, "front")
        fresh = put(outbox)
        (sent,) = delivery.next(1000, 0.0)
        assert sent.row == fresh and '"replayed":false,"age_s":0.0' in sent.payload
        delivery.acknowledged(fresh, TAKEN, 0.0)
        for _ in range(120):
            put(outbox)
        clock[0] = 60.0
        count, now = 0, 60.0
        while outbox.depth and now < 70.0:
            for out in delivery.next(1000, now):
                assert '"replayed":true,"age_s":60.0' in out.payload
                delivery.acknowledged(out.row, TAKEN, now)
                count += 1
            delivery.save(now)
            wait = delivery.due_in(now)
            now += wait if wait else 0.0
        assert count == 120
        assert 0.9 < now - 60.0 < 1.5


def test_what_the_disk_refuses_to_note_is_not_sent_twice_and_noted_later(outbox: Outbox) -> None:
    delivery = Delivery(outbox, retry_s=1.0)
    delivery.begin(0.0, None)
    ready(delivery, outbox, "front")
    delivery.save(0.0)
    rows_kept = [put(outbox) for _ in range(3)]
    outbox._db.execute("PRAGMA query_only = ON")
    for row in rows(delivery.next(20, 0.0)):
        delivery.acknowledged(row, TAKEN, 0.0)
    delivery.save(0.0)
    assert delivery.trouble and "readonly" in delivery.trouble[0]
    assert delivery.due_in(0.0) == 1.0
    delivery.lost()
    delivery.begin(0.5, None)
    assert delivery.next(20, 0.5) == [] and outbox.depth == len(rows_kept)
    unstored = telling(Severity.INFO)
    outbox.hold(unstored, "front/change")
    (sent,) = delivery.next(20, 0.5)
    assert unstored.id in sent.payload and '"seq":0' in sent.payload
    delivery.acknowledged(sent.row, TAKEN, 0.5)
    outbox._db.execute("PRAGMA query_only = OFF")
    delivery.save(0.9)
    assert outbox.depth == len(rows_kept), "not before its time"
    delivery.save(1.0)
    assert outbox.depth == 0 and outbox.held() == [] and delivery.trouble == ()


def test_what_waits_in_memory_is_bounded_and_in_its_place(outbox: Outbox) -> None:
    first = put(outbox)
    alert = telling(Severity.HIGH)
    outbox.hold(alert, "front/alert")
    last = put(outbox)
    assert [stored.row for stored in outbox.pending(9)] == [first, -1, last]
    for _ in range(1000):
        outbox.hold(telling(Severity.INFO), "front/change")
    assert len(outbox.held()) == 500 and outbox.held()[0].document["id"] == alert.id
