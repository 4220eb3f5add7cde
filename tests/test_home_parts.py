"""Motion that does not flutter, pictures that fit, settings that outlive a restart, topics that are taken back."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.capture.frame import Frame
from agent.insight.sight import Sight
from agent.insight.stir import Stir
from agent.mqtt.images import fitted
from agent.mqtt.states import StateBoard
from agent.remembering import CameraMemory, Set

GRID = 36


class Motion:
    """A camera at ten frames a second, and what was said of it: (second, moving)."""

    def __init__(self) -> None:
        self.said: list[tuple[float, bool]] = []
        self.stir = Stir(lambda moving: self.said.append((round(self.now_s, 1), moving)))
        self.now_s = 0.0

    def run(self, seconds: float, *, tokens: int = 0, every: int = 1, ignored: bool = False) -> None:
        for n in range(round(seconds * 10)):
            self.now_s += 0.1
            moved = np.zeros(GRID, bool)
            moved[: tokens if n % every == 0 else 0] = True
            counted = np.full(GRID, not ignored)
            image = np.zeros((4, 4, 3), np.uint8)
            frame = Frame(image, "front", n, round(self.now_s * 1e9), datetime.now(timezone.utc))
            features = np.zeros((GRID, 2), np.float32)
            self.stir.see(Sight(frame, features, False, counted, {}, lambda _tokens: (), moved))


def test_motion_begins_at_once_and_ends_when_it_has_been_quiet_for_a_while() -> None:
    camera = Motion()
    camera.run(5)
    camera.run(1, tokens=4)
    camera.run(2)
    camera.run(1, tokens=3)
    camera.run(10)
    begun, ended = camera.said
    assert begun[1] and 5.1 <= begun[0] <= 5.4
    assert not ended[1] and 12.9 <= ended[0] <= 13.2, "four seconds after the last that moved"


def test_a_flicker_a_single_token_and_an_ignored_clock_are_no_motion() -> None:
    for what in ({"tokens": 5, "every": 50}, {"tokens": 1}, {"tokens": 9, "ignored": True}):
        camera = Motion()
        camera.run(20, **what)  # type: ignore[arg-type]
        assert camera.said == [], what


def test_when_analysis_is_switched_off_nothing_is_said_to_move() -> None:
    camera = Motion()
    camera.run(1, tokens=9)
    camera.stir.interrupted("analysis was switched off")
    assert [moving for _, moving in camera.said] == [True, False]


@given(st.integers(32, 400), st.integers(32, 400), st.integers(10_000, 60_000), st.booleans())
def test_a_picture_fits(width: int, height: int, max_bytes: int, noisy: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    picture = noise if noisy else np.full_like(noise, 90)
    jpeg = fitted(picture, max_bytes)
    assert jpeg is not None and len(jpeg) <= max_bytes
    assert fitted(picture, 100) is None
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert abs(shown.shape[1] / shown.shape[0] - width / height) < 0.15 * width / height
    if not noisy:
        assert shown.shape == picture.shape, "what fits is not made smaller"


def test_what_was_set_is_found_again_until_it_is_over(tmp_path: Path) -> None:
    now = [1000.0]
    path = tmp_path / "cameras.json"

    def memory() -> CameraMemory:
        return CameraMemory(path, clock=lambda: now[0])

    memory().mute("front", 60.0)
    memory().enable("yard", False)
    assert (memory().mute_left_s("front"), memory().of("front").enabled) == (60.0, True)
    assert memory().of("yard") == Set(enabled=False)
    now[0] += 61
    assert memory().mute_left_s("front") == 0.0
    memory().mute("front", 0.0)
    memory().enable("yard", True)
    assert path.read_text() == "{}"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"front": 3}', '{"front": {"enabled": []}}', "\0"])
def test_damaged_settings_are_no_reason_not_to_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "cameras.json").write_text(text)
    memory = CameraMemory(tmp_path / "cameras.json")
    assert memory.of("front") == Set()
    memory.enable("front", False)
    assert not CameraMemory(tmp_path / "cameras.json").of("front").enabled


def test_a_topic_is_taken_back_until_the_broker_has_said_so() -> None:
    retracted: list[str] = []
    board = StateBoard(retracted.append)
    board.put("a", "1")
    board.put("b", b"\xff")
    for topic, payload in board.due(0.0):
        board.sent(topic, payload, 0.0)
        board.acknowledged(topic)
    board.put("a", "")
    assert board.due(0.0) == [("a", "")]
    board.sent("a", "", 0.0)
    board.forget_sent()
    assert board.due(0.0) == [("a", "")], (
        "the connection was lost before the broker answered; pictures are not repeated"
    )
    board.sent("a", "", 1.0)
    board.put("a", "2")
    board.acknowledged("a")
    assert retracted == [] and ("a", "2") in board.due(1.0), "somebody wants it again"
    board.sent("a", "2", 1.0)
    board.put("a", "")
    board.sent("a", "", 1.0)
    board.acknowledged("a")
    assert retracted == ["a"] and board.due(1.0) == []
    board.put("b", b"\xfe")
    assert board.due(1.0) == [("b", b"\xfe")]
