"""Eight cameras in one agent, one of them crashing in a loop: the others keep their frames."""

from __future__ import annotations

import os

import pytest

from scripts.isolating import isolation

CAMERAS = int(os.environ.get("STILLWATCH_MANY_CAMERAS", "8"))
WINDOW_S = float(os.environ.get("STILLWATCH_MANY_SECONDS", "8"))
_ROUNDS = 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_seven_cameras_keep_their_frame_rate_while_the_eighth_crashes_in_a_loop() -> None:
    """Other work on this machine can take frames from any window. So what counts is a round whose windows before and
    after are whole; in one such round of three the window between them must be, too."""
    rounds = []
    for _ in range(_ROUNDS):
        found = isolation(CAMERAS, 5.0, WINDOW_S)
        rounds.append(found)
        assert found.crashes >= 2
        if found.verdict == "kept":
            return
    if all(found.verdict == "too slow" for found in rounds):
        pytest.skip(f"this machine does not carry {CAMERAS} cameras at 5 frames a second now")
    pytest.fail(f"frames were lost while one crashed, and not without: {rounds}")
