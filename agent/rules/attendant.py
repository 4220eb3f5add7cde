"""What attends to a camera besides change and anomaly: its rules, and what it saw of late for questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.insight.sight import Follower
from agent.questions.moments import Moments
from agent.rules.camera import CameraRules
from config.settings import Rule
from engines.decoder import Decoder

Floats = NDArray[np.float32]
Say = Callable[[Floats, str, float], Iterator[str]]
Weigh = Callable[[Floats, str], float]


@dataclass(frozen=True, slots=True)
class Attendant:
    """Of one camera. configured: its rules of the configuration; zones: names of its zones. mute: why the model's words
    mean nothing here, empty when they do; then no rule is asked. say, weigh: the model's answer to a question about
    features (T, D), in pieces within so many seconds, and the probability that it is yes. May raise EngineFault."""

    configured: Sequence[Rule]
    zones: frozenset[str]
    mute: str
    rules: CameraRules
    moments: Moments
    say: Say
    weigh: Weigh

    @property
    def followers(self) -> tuple[Follower, ...]:
        return () if self.mute else (self.rules, self.moments)


def answers_of(decoder: Decoder, camera: str) -> tuple[Say, Weigh]:
    """`say` and `weigh` of a camera."""
    key = f"{camera} asked"  # not the key of descriptions: what was read for them stays

    def say(features: Floats, question: str, budget_s: float) -> Iterator[str]:
        return decoder.generate(features, question, key=key, budget_s=budget_s, again=True)

    def weigh(features: Floats, question: str) -> float:
        return decoder.yes_no(features, question, key=key)

    return say, weigh
