"""The words: what the language model reads out of pictures beside the host's own, and how soon it says something."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.acceptance.backends import Backends
from agent.acceptance.meter import Cost, Meter
from agent.acceptance.stages import Material
from agent.capture.scene.language import DESCRIBE
from agent.coherence.cuts import token_cosines
from engines.decoder import Decoder

_LEAST = 0.999
"""Cosine of the logits after a picture and after a question, less their mean, with the host's."""
_WORDS = 24


@dataclass(frozen=True, slots=True)
class Pace:
    """first: from a picture to the first piece of text. answer: to the last of `pieces`."""

    first: Cost
    answer: Cost
    pieces: int


@dataclass(frozen=True, slots=True)
class WordsResult:
    """cosine: the least, None when the words are the host's own."""

    runs_on: str
    own: bool
    cosine: float | None
    passed: bool | None
    pace: Pace | None
    host_pace: Pace | None
    fault: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def words_result(backends: Backends, material: Material, meter: Meter) -> WordsResult:
    """Raises nothing that a backend raises: it is the result."""
    words, own = backends.words, backends.words.own
    ours, theirs = (Decoder(backends.model, language=each, prefix_bytes=0) for each in (words.used, words.host))
    features = [backends.encoders.host.encode_full(picture).copy() for picture in material.pictures[:2]]
    try:
        pace = _pace(ours, features[0], meter)
        found = None if own else _logits(ours, features)
    except Exception as error:  # see `agent.acceptance.stages.run_stage`
        return WordsResult(words.name, own, None, False, None, None, f"{type(error).__name__}: {error}")
    if found is None:
        return WordsResult(words.name, own, None, None, pace, None)
    cosine = round(float(token_cosines(found, _logits(theirs, features)).min()), 6)
    return WordsResult(words.name, own, cosine, cosine >= _LEAST, pace, _pace(theirs, features[0], meter))


def _logits(decoder: Decoder, features: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """After each picture, and after the second one seen beside the first; less their mean."""
    looks = [*(decoder.look(each) for each in features), decoder.look(features[1], before=features[0])]
    logits = np.stack([look.logits for look in looks])
    return np.asarray(logits - logits.mean(axis=1, keepdims=True), np.float32)


def _pace(decoder: Decoder, features: NDArray[np.float32], meter: Meter) -> Pace:
    def say(most: int) -> int:
        return sum(1 for _ in decoder.generate(features, DESCRIBE, max_tokens=most))

    return Pace(meter.cost(lambda: say(1)), meter.cost(lambda: say(_WORDS)), say(_WORDS))
