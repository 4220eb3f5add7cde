"""Whether coherence changes what is said: the same questions about our tokens and about full encodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.capture.scene.language import DESCRIBE, Question, caption, questions, things_in
from agent.capture.scene.truth import SceneTruth
from engines.decoder import Decoder

Floats = NDArray[np.float32]

_ASKED = 6
"""Questions on one picture, besides its description."""
_ALWAYS = tuple(
    Question("presence", ask, "") for ask in ("Is there a person?", "Is there a car?", "How many people are there?")
)
"""What is asked about a picture whose truth nobody knows."""


class Agreement:
    """Asks about every `every`-th frame. Where the truth is known, also who is right."""

    def __init__(self, decoder: Decoder, every: int, seed: int = 0) -> None:
        self.every = every
        self._decoder, self._rng = decoder, np.random.default_rng(seed)
        self._captions: list[tuple[bool, bool, bool]] = []  # the same; full right, ours right
        self._answers: list[tuple[bool, bool, bool]] = []
        self._known = False

    def compare(self, ours: Floats, full: Floats, truth: SceneTruth | None, width: int) -> None:
        """One frame: features (T, D) of both, and what a rendered picture, `width` px wide, shows."""
        self._known = truth is not None
        described, asked = "", list(_ALWAYS)
        if truth is not None:
            things = things_in(truth, width)
            described, asked = caption(truth, things), questions(truth, things, self._rng, _ASKED)
        contexts = self._decoder.look(full), self._decoder.look(ours)
        for question in (Question("caption", DESCRIBE, described), *asked):
            of_full, of_ours = ("".join(self._decoder.generate(c, question.ask)).strip() for c in contexts)
            told = (of_full == of_ours, of_full == question.answer, of_ours == question.answer)
            (self._captions if question.topic == "caption" else self._answers).append(told)

    def report(self) -> dict[str, Any]:
        """exact_match: share of descriptions that are the same word for word; flipped: share of answers that differ;
        right_full, right_ours: share that is true, None where nobody knows."""
        captions, answers = np.array(self._captions, bool), np.array(self._answers, bool)
        return {
            "frames": len(captions),
            "exact_match": float(captions[:, 0].mean()),
            "captions_right": self._right(captions),
            "answers": len(answers),
            "flipped": float(1 - answers[:, 0].mean()),
            "answers_right": self._right(answers),
        }

    def _right(self, told: NDArray[np.bool_]) -> dict[str, float] | None:
        return {"full": float(told[:, 1].mean()), "ours": float(told[:, 2].mean())} if self._known else None
