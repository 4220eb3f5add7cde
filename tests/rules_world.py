"""A camera of six by six tokens in front of rules, and somebody who answers them: no picture, no model, no thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from agent.capture.frame import Frame
from agent.insight.sight import Sight
from agent.rules.asking import Answered
from agent.rules.camera import CameraRules, Moment
from agent.rules.firing import Fired
from config.settings import Rule

GRID, DIM = (6, 6), 32
BEGIN = datetime(2026, 1, 14, 12, 0, tzinfo=timezone.utc)
Floats = NDArray[np.float32]


def scene(seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((GRID[0] * GRID[1], DIM)).astype(np.float32)


def cells(*places: int) -> NDArray[np.bool_]:
    mask = np.zeros(GRID[0] * GRID[1], bool)
    mask[list(places)] = True
    return mask


def with_thing(features: Floats, places: Sequence[int], seed: int = 9) -> Floats:
    changed = features.copy()
    changed[list(places)] = scene(seed)[list(places)]
    return changed


def sight(features: Floats, now_s: float, *, broken: bool = False, utc: datetime | None = None) -> Sight:
    at = utc or BEGIN + timedelta(seconds=now_s)
    frame = Frame(np.zeros((60, 60, 3), np.uint8), "front", int(now_s * 10), int(now_s * 1e9), at)

    def boxes(tokens: NDArray[np.bool_]) -> tuple[tuple[int, int, int, int], ...]:
        rows, cols = np.nonzero(tokens.reshape(GRID))
        if not len(rows):
            return ()
        x, y = int(cols.min()), int(rows.min())
        return ((10 * x, 10 * y, 10 * (int(cols.max()) - x + 1), 10 * (int(rows.max()) - y + 1)),)

    return Sight(frame, features, broken, np.ones(36, bool), {"door": cells(0, 1, 6, 7)}, boxes)


class Oracle:
    """Answers at once, or when it is told to; remembers what it was asked."""

    def __init__(self, answer: Callable[[str, Floats], float], *, at_once: bool = True) -> None:
        self.answer, self.at_once = answer, at_once
        self.asked: list[list[str]] = []
        self.waiting: list[Callable[[], None]] = []

    def ask(self, camera: str, features: Floats, questions: Sequence[str], answered: Answered) -> None:
        self.asked.append(list(questions))
        copy = features.copy()

        def say() -> None:
            answered([self.answer(question, copy) for question in questions])

        if self.at_once:
            say()
        else:
            self.waiting.append(say)


class Diary:
    """A `RuleSink` that notes rule, what, and when."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, float]] = []
        self.moments: list[Moment] = []

    def began(self, rule: Rule, fired: Fired, moment: Moment) -> None:
        self.entries.append((rule.name, "began", moment.sight.now_s))
        self.moments.append(moment)

    def ended(self, rule: Rule, fired: Fired | None, reason: str | None) -> None:
        self.entries.append((rule.name, reason or "ended", -1.0 if fired is None else fired.last_s))


class Front:
    """A camera's rules on a clock of ten frames a second."""

    def __init__(self, rules: Sequence[Rule], oracle: Oracle) -> None:
        self.diary = Diary()
        self.rules = CameraRules("front", rules, oracle, self.diary)
        self.now_s = 0.0

    def run(self, seconds: float, features: Floats | Callable[[float], Floats]) -> None:
        for _ in range(round(seconds * 10)):
            seen = features(self.now_s) if callable(features) else features
            self.rules.see(sight(seen, self.now_s))
            self.now_s = round(self.now_s + 0.1, 1)
