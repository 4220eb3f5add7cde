"""The words: what the language model reads out of pictures beside the host's own, and how soon it says something."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.acceptance.backends import Backends
from agent.acceptance.stages import Material
from agent.capture.scene.language import DESCRIBE
from agent.coherence.cuts import token_cosines
from engines.decoder import Decoder

_LEAST = 0.999
"""Cosine of the logits after a picture and after a question, less their mean, with the host's."""
_WORDS = 24


@dataclass(frozen=True, slots=True)
class WordsResult:
    """cosine: the least, None when the words are the host's own. first_ms: from a picture to the first piece of text.
    piece_ms: each further one."""

    runs_on: str
    own: bool
    cosine: float | None
    passed: bool | None
    first_ms: float | None
    piece_ms: float | None
    host_first_ms: float | None
    host_piece_ms: float | None
    fault: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def words_result(backends: Backends, material: Material) -> WordsResult:
    """Raises nothing that a backend raises: it is the result."""
    words, own = backends.words, backends.words.own
    ours, theirs = (Decoder(backends.model, language=each) for each in (words.used, words.host))
    features = [backends.encoders.host.encode_full(picture).copy() for picture in material.pictures[:2]]
    try:
        first_ms, piece_ms = _times(ours, features[0])
        found = None if own else _logits(ours, features)
    except Exception as error:  # see `agent.acceptance.stages.run_stage`
        fault = f"{type(error).__name__}: {error}"
        return WordsResult(words.name, own, None, False, None, None, None, None, fault)
    if found is None:
        return WordsResult(words.name, own, None, None, first_ms, piece_ms, None, None)
    cosine = round(float(token_cosines(found, _logits(theirs, features)).min()), 6)
    return WordsResult(words.name, own, cosine, cosine >= _LEAST, first_ms, piece_ms, *_times(theirs, features[0]))


def _logits(decoder: Decoder, features: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """After each picture, and after the second one seen beside the first; less their mean."""
    looks = [*(decoder.look(each) for each in features), decoder.look(features[1], before=features[0])]
    logits = np.stack([look.logits for look in looks])
    return np.asarray(logits - logits.mean(axis=1, keepdims=True), np.float32)


def _times(decoder: Decoder, features: NDArray[np.float32]) -> tuple[float, float | None]:
    """Milliseconds to the first piece of an answer, and for each further one. The second answer counts."""
    for _ in decoder.generate(features, DESCRIBE, max_tokens=1):
        pass
    began = time.perf_counter()
    at = [time.perf_counter() - began for _ in decoder.generate(features, DESCRIBE, max_tokens=_WORDS)]
    if not at:
        at = [time.perf_counter() - began]
    each = 1e3 * (at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else None
    return round(1e3 * at[0], 1), None if each is None else round(each, 2)
