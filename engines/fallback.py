"""An encoder, and a language model, that another one stands behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
import structlog
from numpy.typing import NDArray

from config.errors import EngineFault, in_words
from engines.plan import EncodePlan, Encoder, TokenMap
from engines.text.language import Floats, Language, Reading

PATIENCE = 3
"""Failures in a row, after which the first encoder is given up: one can be chance, and the frame is encoded in full
after it; a GPU that has lost its context fails for ever."""

_log = structlog.get_logger(__name__)


class FallbackEncoder:
    """Implements `Encoder`. Failures of the first are raised as they come; at the third in a row the call, and every
    later one, goes to the second, which is made then, and the first is closed. A full encode follows each failure, so
    selective ones are counted by themselves: three of them with none between that succeeds count as a row too. tell: is
    told why, once.

    degraded: the same sentence, None as long as all is well.
    """

    def __init__(self, first: Encoder, second: Callable[[], Encoder], tell: Callable[[str], object]) -> None:
        self._now, self._second, self._tell = first, second, tell
        self._failed = self._selective_failed = 0
        self.degraded: str | None = None

    @property
    def crossover(self) -> int:
        return self._now.crossover

    @crossover.setter
    def crossover(self, tokens: int) -> None:
        self._now.crossover = tokens

    @property
    def grid(self) -> tuple[int, int]:
        return self._now.grid

    @property
    def dim(self) -> int:
        return self._now.dim

    @property
    def patch_size(self) -> int:
        return self._now.patch_size

    def encode(self, picture: NDArray[np.uint8], plan: EncodePlan) -> TokenMap:
        selective = not plan.full and not self._failed
        try:
            tokens = self._now.encode(picture, plan)
        except ValueError:  # the plan's fault
            raise
        except Exception as error:  # PyCUDA's errors derive from none of ours
            self._count(error, selective)
            return self._now.encode(picture, plan)
        self._failed = 0
        if 0 < tokens.encoded < len(tokens.features):
            self._selective_failed = 0
        return tokens

    def encode_full(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            return self._now.encode_full(picture)
        except Exception as error:  # as above
            self._count(error, False)
            return self._now.encode_full(picture)

    def reset(self) -> None:
        self._now.reset()

    def close(self) -> None:
        self._now.close()

    def _count(self, error: Exception, selective: bool) -> None:
        """Raise it as EngineFault, until it is time for the second encoder."""
        self._failed += 1
        self._selective_failed += selective
        if self.degraded is not None or max(self._failed, self._selective_failed) < PATIENCE:
            if isinstance(error, EngineFault):
                raise error
            raise EngineFault(in_words(error)) from error
        first, self._now = self._now, self._second()
        _close(first)
        form = "the encoder" if self._failed >= PATIENCE else "selective encoding"
        reason = f"{form} failed {PATIENCE} times in a row ({in_words(error)})"
        self.degraded = f"{reason}; ONNX Runtime on the CPU does its work"
        self._tell(self.degraded)


class FallbackLanguage:
    """Implements `Language`. What the first fails to read the second reads, from where the text had come to, so that no
    answer is lost; after the third failure in a row it reads everything, and the first is closed. The second is made
    when it is first wanted.
    first: raises `no_room` for what it can't hold, which is no failure. tell: is told why, once.

    degraded: the same sentence, None as long as all is well. passed_on: texts that the first had no room for.
    """

    def __init__(
        self,
        first: Language,
        second: Callable[[], Language],
        tell: Callable[[str], object],
        no_room: type[EngineFault],
    ) -> None:
        self._first, self._make, self._tell, self._no_room = first, second, tell, no_room
        self._second: Language | None = None
        self._lock = Lock()
        self._failed = 0
        self.degraded: str | None = None
        self.passed_on = 0

    @property
    def nothing(self) -> Floats:
        return self._first.nothing

    @property
    def tokens_read(self) -> int:
        return self._first.tokens_read + (self._second.tokens_read if self._second is not None else 0)

    def visual_tokens(self, features: Floats) -> Floats:
        return self._first.visual_tokens(features)

    def embed(self, ids: Sequence[int] | NDArray[np.int64]) -> Floats:
        return self._first.embed(ids)

    def read_on(self, past: Floats, room: int) -> Reading:
        if self.degraded is not None:
            return self.second.read_on(past, room)
        try:
            return _FallbackReading(self, self._first.read_on(past, room))
        except ValueError:  # the caller's fault
            raise
        except Exception as error:  # as in `FallbackEncoder`
            self.failed(error)
            return self.second.read_on(past, room)

    def close(self) -> None:
        self._first.close()

    @property
    def second(self) -> Language:
        with self._lock:
            if self._second is None:
                self._second = self._make()
            return self._second

    def succeeded(self) -> None:
        with self._lock:
            self._failed = 0

    def failed(self, error: Exception) -> None:
        with self._lock:
            if isinstance(error, self._no_room):
                self.passed_on += 1
                return
            self._failed += 1
            if self.degraded is not None or self._failed < PATIENCE:
                return
            reason = f"the decoder failed {PATIENCE} times in a row ({in_words(error)})"
            self.degraded = f"{reason}; ONNX Runtime on the CPU does its work"
        _close(self._first)
        self._tell(self.degraded)


class _FallbackReading:
    """A text that changes over to the second language model at its first failure, for good."""

    def __init__(self, language: FallbackLanguage, reading: Reading) -> None:
        self._language, self._now = language, reading
        self._moved = False

    @property
    def length(self) -> int:
        return self._now.length

    @property
    def past(self) -> Floats:
        return self._now.past

    def read(self, embeds: Floats, parents: Sequence[int] | None = None, answer: Sequence[int] = (-1,)) -> Floats:
        try:
            logits = self._now.read(embeds, parents, answer)
        except ValueError:  # the caller's fault
            raise
        except Exception as error:  # as in `FallbackEncoder`
            if self._moved:
                raise
            self._language.failed(error)
            self._now, self._moved = self._language.second.read_on(self._now.past, len(embeds)), True
            return self._now.read(embeds, parents, answer)
        if not self._moved:
            self._language.succeeded()
        return logits


def _close(failed: Encoder | Language) -> None:
    """What has failed for good may not even let go of what it holds; its place is taken all the same."""
    try:
        failed.close()
    except Exception:
        _log.exception("what was given up can't be closed")
