"""The true answers to rules on a rendered scene, and how rules did against what is true."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from agent.capture.scene.language import PLURALS, Thing, things_in
from agent.capture.scene.truth import SceneTruth

_BARELY = 0.1
"""Share of a thing's pixels: with less to be seen than this it is not there, with less than half nobody can tell."""
_LOWEST, _HIGHEST = 0.05, 0.95
"""Of a proposed threshold."""
_A = r"an? (?P<what>.+)"


def scene_answer(question: str, truth: SceneTruth, width: int) -> bool | None:
    """The answer to a question of the reference model's grammar about a picture `width` pixels wide. None where it can
    be said neither way, as a thing comes into view, and for a question that is not of this grammar."""
    clearly, barely = (_answer(question, truth, things_in(truth, width, least)) for least in (0.5, _BARELY))
    return clearly if clearly == barely else None


def _answer(question: str, truth: SceneTruth, things: Sequence[Thing]) -> bool | None:
    text = question.strip()
    if found := re.fullmatch(rf"Is there {_A}\?", text):
        return any(found["what"] in _names(thing) for thing in things)
    if found := re.fullmatch(r"Are there no (\w+)\?", text):
        return all(PLURALS[thing.kind] != found[1] for thing in things)
    if text == "Is nobody there?":
        return all(thing.kind != "person" for thing in things)
    if found := re.fullmatch(r"Is the (\w+) empty\?", text):
        return not things if found[1] == truth.place else None
    if found := re.fullmatch(rf"Is this {_A}\?", text):
        return found["what"] == truth.place
    if text == "Is it raining?":
        return truth.weather == "rain"
    if found := re.fullmatch(r"Is it (day|dusk|night)\?", text):
        return found[1] == truth.light
    return None


def _names(thing: Thing) -> tuple[str, ...]:
    kind = thing.kind
    return kind, thing.noun, f"{kind}{thing.doing}", f"{kind} {thing.side}", f"{thing.noun}{thing.doing}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Answers against the truth: yes that was right, yes that was wrong, no that was wrong, no that was right."""

    true_yes: int
    false_yes: int
    false_no: int
    true_no: int

    @classmethod
    def of(cls, answers: Sequence[tuple[float, bool]], threshold: float) -> Agreement:
        """answers: probability of yes, and what is true."""
        counts = [0, 0, 0, 0]
        for probability, true in answers:
            yes = probability >= threshold
            counts[(0 if true else 1) if yes else (2 if true else 3)] += 1
        return cls(*counts)

    @property
    def precision(self) -> float | None:
        """None where nothing was said to be so."""
        said = self.true_yes + self.false_yes
        return self.true_yes / said if said else None

    @property
    def recall(self) -> float | None:
        """None where nothing was so."""
        there = self.true_yes + self.false_no
        return self.true_yes / there if there else None

    @property
    def balanced(self) -> float:
        """Mean of the shares of yes and of no that were found; a share that nothing speaks of is left out."""
        shares = [
            right / both
            for right, both in (
                (self.true_yes, self.true_yes + self.false_no),
                (self.true_no, self.true_no + self.false_yes),
            )
            if both
        ]
        return sum(shares) / len(shares)


def best_threshold(answers: Sequence[tuple[float, bool]]) -> float | None:
    """The threshold at which most of the yes and most of the no are found: the middle of the widest stretch of those
    that are equally good, 0.05 to 0.95. None without both a yes and a no among what is true."""
    if len({true for _, true in answers}) < 2:
        return None
    cuts = sorted({_LOWEST, _HIGHEST, *(p for p, _ in answers if _LOWEST < p < _HIGHEST)})
    stretches = list(pairwise(cuts))
    scores = [Agreement.of(answers, (low + high) / 2).balanced for low, high in stretches]
    best = max(scores)
    low, high = max(
        (stretch for stretch, score in zip(stretches, scores, strict=True) if score == best),
        key=lambda stretch: stretch[1] - stretch[0],
    )
    return round((low + high) / 2, 3)


def gap_threshold(probabilities: Sequence[float]) -> float | None:
    """Without truth: the middle of the widest gap between answers, 0.05 to 0.95; None where all are on one side."""
    if not probabilities or min(probabilities) >= 0.5 or max(probabilities) < 0.5:
        return None
    cuts = sorted({min(_HIGHEST, max(_LOWEST, p)) for p in probabilities})
    low, high = max(pairwise(cuts), key=lambda gap: gap[1] - gap[0])
    return round((low + high) / 2, 3)
