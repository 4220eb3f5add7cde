"""Power and heat, from a faked sysfs to what cameras, broker and metrics notice of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from board_sysfs import Board
from hypothesis import given
from hypothesis import strategies as st

from agent.capture.frame import Frame
from agent.daemon import Daemon, RunOptions
from agent.doctor import examine
from agent.events.model import PowerStatus
from agent.power.policy import LADDER, Limits, PowerPolicy
from agent.power.sensors import Reading, Sensors, Zone
from config.errors import ConfigError
from config.settings import Camera, Events, Settings

LIMITS = Limits(near_c=5, far_c=10, up_after_s=10, down_after_s=60)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "sys")


def at(celsius: float) -> Reading:
    return Reading(zones=(Zone("tj-thermal", celsius, 99.0),))


def run(policy: PowerPolicy, celsius: float, seconds: range) -> list[int]:
    return [policy.process(at(celsius), second).step for second in seconds]


def test_a_board_is_read_as_the_kernel_tells_it(board: Board) -> None:
    board.celsius(1, 71.25)
    board.alert(1)
    board.over_current("oc3", 813)
    reading = Sensors(board.root).read()
    assert [(rail.name, rail.watts) for rail in reading.rails] == [
        ("VDD_IN", pytest.approx(15.2)),
        ("VDD_CPU_GPU_CV", pytest.approx(3.8)),
    ]
    assert reading.watts == pytest.approx(15.2)  # the input rail feeds the other one
    assert reading.rails[0].limit_ratio == pytest.approx(0.2)
    assert [zone.name for zone in reading.zones] == ["cpu-thermal", "tj-thermal"]
    assert reading.hottest == Zone("tj-thermal", 71.25, 99.0)
    assert reading.throttled == ("gpu-throttle-alert",)
    assert reading.over_current == {"oc1": 0, "oc2": 0, "oc3": 813}


def test_a_machine_without_sensors_is_left_alone_and_the_doctor_says_so(tmp_path: Path, board: Board) -> None:
    nothing = Sensors(tmp_path / "nothing")
    assert not nothing.found and nothing.read() == Reading()
    assert examine("none", sysfs=tmp_path / "nothing").parts["power"].used.startswith("off: ")
    used = examine("none", sysfs=board.root).parts["power"].used
    assert "VDD_IN" in used and "tj-thermal" in used


def test_trip_points_that_firmware_has_switched_off_are_no_limits(board: Board) -> None:
    for zone in (0, 1):
        for trip, value in enumerate((-274_000, 0, 200_000)):
            board.write(f"class/thermal/thermal_zone{zone}/trip_point_{trip}_temp", value)
    assert [zone.limit_c for zone in Sensors(board.root).read().zones] == [None, None]


def test_heat_takes_the_frame_rate_first_then_detail_then_words() -> None:
    policy = PowerPolicy(LIMITS)
    steps = run(policy, 96, range(100))
    assert steps[:41:10] == [1, 2, 3, 4, 4]
    frames, detail, words = (
        [getattr(rung, name) != getattr(LADDER[0], name) for rung in LADDER[1:4]]
        for name in ("frames", "detail", "words_every_s")
    )
    assert (frames, detail, words) == ([True, True, True], [False, True, True], [False, False, True])
    assert "tj-thermal at 96 °C, throttled from 99 °C" in policy.process(at(96), 100).reason


def test_it_stays_as_it_is_between_the_limits_and_comes_back_one_step_at_a_time() -> None:
    policy = PowerPolicy(LIMITS)
    run(policy, 96, range(11))
    assert set(run(policy, 91.5, range(11, 500))) == {2}
    cooled = run(policy, 85, range(500, 640))
    assert [cooled[second] for second in (0, 59, 60, 119, 120)] == [2, 2, 1, 1, 0]
    assert policy.process(at(85), 640).reason == ""


@given(st.lists(st.tuples(st.floats(60, 99), st.integers(1, 150)), min_size=1, max_size=8))
def test_it_never_jumps_and_never_flaps(stretches: list[tuple[float, int]]) -> None:
    policy = PowerPolicy(LIMITS)
    temperatures = [celsius for celsius, seconds in stretches for _ in range(seconds)]
    steps = [0, *(policy.process(at(celsius), second).step for second, celsius in enumerate(temperatures))]
    changes = [(second, b - a) for second, (a, b) in enumerate(pairwise(steps)) if a != b]
    assert all(abs(change) == 1 for _, change in changes)
    for (before, _), (second, change) in pairwise(changes):
        assert change > 0 or second - before >= LIMITS.down_after_s
    for second, change in changes:
        assert temperatures[second] > 94 if change > 0 else max(temperatures[second - 60 : second + 1]) <= 89


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (lambda board: board.alert(2), "firmware throttles: gpu-throttle-alert"),
        (lambda board: board.over_current("oc2", 1), "the supply is overloaded (oc2)"),
        (lambda board: board.amps(4.1), "rail VDD_IN is over its current limit at 77.9 W"),
        (lambda board: board.over_current("oc3", 99), ""),  # a spike; doing less would not end it
    ],
)
def test_what_else_makes_it_do_less(board: Board, cause, expected: str) -> None:  # type: ignore[no-untyped-def]
    policy, sensors = PowerPolicy(LIMITS), Sensors(board.root)
    assert policy.process(sensors.read(), 0).step == 0
    cause(board)
    decision = policy.process(sensors.read(), 1)
    assert (decision.step, decision.reason) == (1 if expected else 0, expected)


def test_limits_that_would_chase_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="far_c"):
        Limits(near_c=10, far_c=10)


@pytest.fixture
def daemon(board: Board, tmp_path: Path) -> Iterator[Daemon]:
    """One rendered camera, 40 frames in four seconds, on that board."""
    scene = "scene:yard?seed=3&width=160&height=90&fps=10&seconds=4"
    settings = Settings(events=Events(dir=tmp_path / "state"), cameras={"cam": Camera(source=scene)})
    made = Daemon(settings, RunOptions(sysfs=board.root))
    yield made
    made.close()


def test_a_hot_board_looks_at_half_the_frames_and_says_why(board: Board, daemon: Daemon) -> None:
    board.celsius(1, 97)
    daemon.run(threading.Event())
    camera, value = daemon.cameras["cam"], daemon.metrics.registry.get_sample_value
    assert 0 < camera.watch.frames + camera.dropped <= 32  # all of them in the first second, then every other one
    assert value("stillwatch_power_step") == 1
    assert value("stillwatch_temperature_celsius", {"zone": "tj-thermal"}) == 97
    assert value("stillwatch_power_watts", {"rail": "board"}) == pytest.approx(15.2)
    assert daemon.power.trouble == "does less, 50% of the frames: tj-thermal at 97 °C, throttled from 99 °C"
    assert daemon.power.status == PowerStatus(
        step=1, reason="tj-thermal at 97 °C, throttled from 99 °C", watts=15.2, hottest="tj-thermal", celsius=97
    )


def test_a_frame_encodes_no_more_than_the_detail_that_is_left(daemon: Daemon) -> None:
    watch, rng = daemon.cameras["cam"].watch, np.random.default_rng(0)

    def encoded(frames: int) -> list[int]:
        """Tokens of each of so many frames, in which everything is new."""
        spent = []
        for _ in range(frames):
            before, index = watch.encoded, watch.frames
            image = rng.integers(0, 256, (280, 280, 3), dtype=np.uint8)
            watch.see(Frame(image, "cam", index, index * 100_000_000, datetime.now(timezone.utc)))
            spent.append(watch.encoded - before)
        return spent

    assert encoded(2) == [400, 400]
    watch.limit(0.25)
    assert all(0 < count <= 100 for count in encoded(3))
    watch.limit(None)
    assert encoded(1) == [400]
