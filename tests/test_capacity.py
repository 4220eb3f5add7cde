"""How a machine is shared among cameras: what each gets when it is too little, and whose frame is next."""

from __future__ import annotations

import heapq
import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from agent.capacity import costs
from agent.capacity.costs import Cost, crowding
from agent.capacity.sharing import Load, fair_rates, fair_shares
from agent.capacity.turns import Seat, Turns
from agent.cli import app
from config.settings import Camera, Events, Settings

WANTS = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=3), st.floats(0.01, 10), min_size=1, max_size=8)


@given(WANTS, st.floats(0.1, 20))
def test_shares_add_up_to_the_machine_and_are_max_min_fair(wants: dict[str, float], have: float) -> None:
    shares = fair_shares(wants, have)
    assert list(shares) == list(wants)
    assert sum(shares.values()) == pytest.approx(min(have, sum(wants.values())))
    for name, share in shares.items():
        assert share <= wants[name] + 1e-9
        if share < wants[name] - 1e-9:  # who gets less than he wants gets no less than anybody else
            assert share >= max(shares.values()) - 1e-9


def test_a_ninth_camera_costs_the_others_what_they_are_told() -> None:
    eight = {f"cam{n}": Load(fps=10, frame_ms=25) for n in range(8)}
    assert set(fair_rates(eight, 2.0).values()) == {10}
    nine = fair_rates({**eight, "cam9": Load(fps=10, frame_ms=25)}, 2.0)
    assert list(nine.values()) == pytest.approx([80 / 9] * 9)
    light = fair_rates({**eight, "greedy": Load(fps=1000, frame_ms=100), "quiet": Load(fps=1, frame_ms=10)}, 1.0)
    assert light["quiet"] == 1
    assert light["greedy"] * 0.1 == pytest.approx(light["cam1"] * 0.025)


def played(loads: dict[str, Load], at_once: int, seconds: float) -> dict[str, float]:
    """Frames a second that each camera gets in a world of such processors, where no frame is dropped."""
    now = [0.0]
    turns = Turns(at_once, clock=lambda: now[0])
    seats = {name: turns.seat() for name in loads}
    queued = dict.fromkeys(loads, 0)
    done = dict.fromkeys(loads, 0)
    asked: set[str] = set()
    going: set[str] = set()
    events = [(place * 1e-3, "frame", name) for place, name in enumerate(loads)]
    heapq.heapify(events)
    while events and events[0][0] < seconds:
        now[0], what, name = heapq.heappop(events)
        if what == "frame":
            queued[name] += 1
            heapq.heappush(events, (now[0] + 1 / loads[name].fps, "frame", name))
        else:
            going.remove(name)
            done[name] += 1
            if not queued[name]:
                turns.leave(seats[name])
        for other in loads:
            if queued[other] and other not in asked and other not in going:
                queued[other] -= 1
                asked.add(other)
                turns.ask(seats[other])
        for other in list(asked):
            if seats[other].called.is_set():
                asked.remove(other)
                going.add(other)
                heapq.heappush(events, (now[0] + loads[other].frame_ms / 1000, "done", other))
    return {name: count / seconds for name, count in done.items()}


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from([2, 5, 10, 25]), st.sampled_from([10, 40, 90])), min_size=4, max_size=9),
    st.sampled_from([1, 2]),
)
def test_turns_give_every_camera_its_fair_rate(kinds: list[tuple[int, int]], at_once: int) -> None:
    loads = {f"cam{place}": Load(fps, ms) for place, (fps, ms) in enumerate(kinds)}
    got, fair = played(loads, at_once, 10.0), fair_rates(loads, float(at_once))
    for name, rate in fair.items():
        assert got[name] >= 0.9 * rate - 0.3, (name, loads, got, fair)


def test_a_camera_that_hangs_in_its_turn_costs_the_others_one_wait() -> None:
    turns = Turns(1, patience_s=0.2)
    stuck, well = turns.seat(), turns.seat()
    turns.ask(stuck)
    assert stuck.called.is_set()
    served = threading.Event()

    def go(seat: Seat) -> None:
        seat.take()
        served.set()
        seat.leave()

    thread = threading.Thread(target=go, args=(well,))
    thread.start()
    assert served.wait(60)
    thread.join()
    turns.ask(well)
    assert well.called.is_set()  # nobody is in the way any more
    turns.leave(well)
    turns.leave(stuck)  # it has come back
    turns.ask(well)
    assert well.called.is_set()  # nobody is in the way any more


def test_what_will_not_fit_is_told_before(tmp_path: Path) -> None:
    def with_cameras(count: int) -> Settings:
        cameras = {f"cam{n}": Camera(source=f"rtsp://10.0.0.{n}/1", fps=10) for n in range(count)}
        return Settings(events=Events(dir=tmp_path), cameras=cameras)

    assert crowding(with_cameras(50)) is None  # nobody has measured
    eight = costs.USABLE * costs.processors() * 1000 / (8 * 10)
    costs.keep(tmp_path, {costs.USUAL: Cost(agent_ms=eight - 1, capture_ms=1)})
    assert crowding(with_cameras(8)) is None
    told = crowding(with_cameras(9))
    assert told is not None and "9 cameras" in told and "cam0 8.9 of 10" in told
    file = tmp_path / "agent.yaml"
    file.write_text(with_cameras(9).model_dump_json(exclude_unset=True))
    said = CliRunner().invoke(app, ["config", "check", str(file)])
    assert said.exit_code == 0 and "cam0 8.9 of 10" in said.output, said.output
    (tmp_path / costs.FILE).write_text(json.dumps({costs.USUAL: "much"}))
    assert crowding(with_cameras(50)) is None
