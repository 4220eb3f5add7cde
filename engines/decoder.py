"""The language model: pictures and a question in, text or probabilities out, and nothing read twice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event

import numpy as np
from numpy.typing import NDArray

from engines.calibration import sigmoid
from engines.manifest import Model
from engines.onnx.language import LanguageModel
from engines.onnx.runtime import OnnxRuntime
from engines.text.drafting import Drafts, continued
from engines.text.language import Language, Reading
from engines.text.prefixes import Context, Floats, Prefix, Prefixes, same_rows
from engines.text.prompt import Prompt
from engines.text.sampling import GREEDY, Sampling
from engines.text.weighing import log_likelihoods
from engines.tokenizer import StopStrings, TextStream, Tokenizer

YES, NO = ("yes", "Yes"), ("no", "No")
_ROOM = 64  # tokens of an answer for which room is made at first
_PACKED = 16  # questions read side by side

Picture = Floats | Context
"""Features (T, dim) of a picture, or what `Decoder.look` made of one or two."""


class Decoder:
    """Answers questions about a picture, or about two. Safe to use from several threads. Methods raise EngineFault.

    What was last read under a `key`, such as a camera's id, is kept, and of the next pictures with this key only that
    is read which comes after the leading positions that are the same bit for bit: nothing when nothing has changed. The
    result is that of reading everything, up to the order of floating-point sums. prefix_bytes: what is kept at most.
    `tokens_read` counts the rows that went through the language model. language: what reads them; ONNX Runtime's, with
    `threads` and `spin`, when None.
    """

    def __init__(
        self,
        model: Model,
        *,
        language: Language | None = None,
        threads: int = 1,
        spin: bool = True,
        prefix_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokenizer = Tokenizer(model.folder / "tokenizer.json")
        self._prompt = Prompt(model, self._tokenizer)
        self._eos = {
            self._tokenizer.id(token, why="key `eos` of the manifest names it") for token in model.manifest.eos
        }
        self._language: Language = language or LanguageModel(OnnxRuntime(model, threads=threads, spin=spin))
        self._calibration = model.manifest.yes_no or (1.0, 0.0)
        self._prefixes = Prefixes(prefix_bytes)
        self._drafts = Drafts()
        self._clock = clock

    @property
    def tokens_read(self) -> int:
        return self._language.tokens_read

    def visual_tokens(self, features: Floats) -> Floats:
        """Visual tokens (T / merge², text dim) of features (T, dim)."""
        return self._language.visual_tokens(features)

    def look(self, features: Floats, *, before: Floats | None = None, key: str = "") -> Context:
        """Read the picture, up to where the question begins; with `before`, that picture and then this one. Give the
        result to the other methods in place of features to ask about it and read it once."""
        given = [np.ascontiguousarray(each, np.float32) for each in (before, features) if each is not None]
        kept = self._prefixes.of(key)
        for prefix in kept:
            if prefix.shows(given):
                self._prefixes.keep(key, prefix)
                return prefix.context
        pictures = tuple(each.copy() for each in given)  # the encoder writes its next frame into the same array
        visual = tuple(self._visual(picture, kept) for picture in pictures)
        ids = np.array(self._prompt.start(len(pictures)))
        embeds = self._language.embed(ids)
        embeds[ids == self._prompt.image] = np.concatenate(visual)
        context = self._look(embeds, kept)
        self._prefixes.keep(key, Prefix(pictures, visual, embeds, context))
        return context

    def generate(
        self,
        picture: Picture,
        question: str,
        *,
        key: str = "",
        sampling: Sampling = GREEDY,
        until: Sequence[str] = (),
        max_tokens: int = 64,
        budget_s: float = math.inf,
        stop: Event | None = None,
        again: bool = False,
    ) -> Iterator[str]:
        """The answer in pieces of whole characters. Ends at an end token, before the first of the texts `until`, after
        `max_tokens`, or with the token during which `budget_s` is over or `stop` is set. Nothing is read before the
        first piece is asked for. key: as for `look`. again: the last answer to this question under this key is taken
        for a guess, so that what is said again costs less; the answer is the same, up to the order of floating-point
        sums. Raises ValueError at once for limits that allow nothing."""
        if max_tokens < 1 or not budget_s > 0:
            raise ValueError(f"found max_tokens {max_tokens}, budget_s {budget_s}; expected 1 or more, more than 0")
        ending = StopStrings(until)
        begin: float | None = None

        def over() -> bool:
            nonlocal begin
            begin = self._clock() if begin is None else begin
            return (stop is not None and stop.is_set()) or self._clock() - begin >= budget_s

        again = again and sampling.temperature == 0  # what is drawn by chance is not said again
        before = self._drafts.of(key, question) if again else []
        tokens = self._tokens(picture, question, key, sampling, max_tokens, over, before)
        return self._text(self._noted(tokens, key, question) if again else tokens, ending)

    def choose(
        self, picture: Picture, question: str, options: Sequence[str | tuple[str, ...]], *, key: str = ""
    ) -> NDArray[np.float64]:
        """Probabilities (n,) that the answer begins with this option and not with another. A tuple is one option in
        several spellings; a space before them makes no difference. No option should begin another."""
        found = self._weigh(picture, [question], options, key)[0]
        return np.asarray(np.exp(found - np.logaddexp.reduce(found)), np.float64)

    def yes_no(self, picture: Picture, question: str, *, key: str = "") -> float:
        """Probability, 0 to 1, that the answer is yes and not no, calibrated as the manifest's `yes_no` says."""
        return float(self.yes_no_many(picture, [question], key=key)[0])

    def yes_no_many(self, picture: Picture, questions: Sequence[str], *, key: str = "") -> NDArray[np.float64]:
        """`yes_no` of each question, (n,). They are read side by side, each seeing the picture and itself, in less time
        than one after the other."""
        slope, offset = self._calibration
        return sigmoid(slope * self._log_odds(picture, questions, key) + offset)

    def yes_no_log_odds(self, picture: Picture, question: str, *, key: str = "") -> float:
        """Logarithm of how many times likelier yes is than no, as the model itself sees it: not calibrated."""
        return float(self._log_odds(picture, [question], key)[0])

    def _log_odds(self, picture: Picture, questions: Sequence[str], key: str) -> NDArray[np.float64]:
        yes, no = self._weigh(picture, questions, (YES, NO), key).T
        return np.asarray(yes - no, np.float64)

    def _weigh(
        self, picture: Picture, questions: Sequence[str], options: Sequence[str | tuple[str, ...]], key: str
    ) -> NDArray[np.float64]:
        spellings = [(option,) if isinstance(option, str) else option for option in options]
        if not spellings or not all(texts and all(texts) for texts in spellings):
            raise ValueError(f"options: found {options!r}, expected some, none of them empty")
        words = [{tuple(self._tokenizer.words(s + text)) for text in texts for s in ("", " ")} for texts in spellings]
        ids = [sorted(each) for each in words]
        context = self._context(picture, key)

        def read(tokens: Sequence[int], parents: Sequence[int], rows: Sequence[int]) -> Floats:
            return self._language.read_on(context.past, len(tokens)).read(self._language.embed(tokens), parents, rows)

        packs = [questions[i : i + _PACKED] for i in range(0, len(questions), _PACKED)]
        found = [log_likelihoods([*map(self._prompt.rest, pack)], ids, context.logits, read) for pack in packs]
        return np.concatenate([np.empty((0, len(ids))), *found])

    def _visual(self, features: Floats, kept: list[Prefix]) -> Floats:
        for prefix in kept:
            if (known := prefix.visual_of(features)) is not None:
                return known
        return self.visual_tokens(features)

    def _look(self, embeds: Floats, kept: list[Prefix]) -> Context:
        """Rows (n, D) as a context, going on from that of the kept ones which has most of its beginning."""
        shared, past = 0, self._language.nothing
        for prefix in kept:
            same = same_rows(prefix.embeds, embeds)
            if same > shared:
                shared, past = same, prefix.context.past
        shared = min(shared, len(embeds) - 1)  # of the last row the logits are needed too
        reading = self._language.read_on(past[:, :, :, :shared], len(embeds) - shared)
        logits = reading.read(embeds[shared:])[0]
        return Context(reading.past, logits)

    def _context(self, picture: Picture, key: str) -> Context:
        return picture if isinstance(picture, Context) else self.look(picture, key=key)

    def _noted(self, tokens: Iterator[int], key: str, question: str) -> Iterator[int]:
        """The same tokens, kept for the next time once they have come to their end."""
        said: list[int] = []
        for token in tokens:
            said.append(token)
            yield token
        self._drafts.keep(key, question, said)

    def _tokens(
        self,
        picture: Picture,
        question: str,
        key: str,
        sampling: Sampling,
        most: int,
        over: Callable[[], bool],
        before: Sequence[int] = (),
    ) -> Iterator[int]:
        if over():
            return
        context = self._context(picture, key)
        random = np.random.default_rng(sampling.seed)
        unread, logits = self._prompt.rest(question), context.logits
        reading = self._language.read_on(context.past, len(unread) + min(most, _ROOM))
        said: list[int] = []
        guessed = False
        while len(said) < most and not over():
            guess = [] if guessed or not unread else continued(before, said)
            guessed = len(guess) > 0
            if guessed:
                chosen = self._believed(reading, unread, guess, sampling, random)
            else:
                if unread:
                    logits = reading.read(self._language.embed(unread))[0]
                chosen, unread = [sampling.choose(logits, random)], []
            for token in chosen[: most - len(said)]:
                if token in self._eos:
                    return
                yield token
                said.append(token)
            unread = [*unread, *chosen]

    def _believed(
        self,
        reading: Reading,
        unread: Sequence[int],
        guess: Sequence[int],
        sampling: Sampling,
        random: np.random.Generator,
    ) -> list[int]:
        """What follows the rows not read yet: the guess as far as the model would have said the same, and the token
        after that. Nothing is kept of what is read."""
        rows = [*unread, *guess]
        asked = range(len(unread) - 1, len(rows))
        found = reading.read(self._language.embed(rows), range(-1, len(rows) - 1), asked)
        chosen = [sampling.choose(logits, random) for logits in found]
        same = next((i for i, (g, c) in enumerate(zip(guess, chosen, strict=False)) if g != c), len(guess))
        return chosen[: same + 1]

    def _text(self, tokens: Iterator[int], ending: StopStrings) -> Iterator[str]:
        stream = TextStream(self._tokenizer)
        for token in tokens:
            piece, ended = ending.push(stream.push(token))
            if piece:
                yield piece
            if ended:
                return
        piece, ended = ending.push(stream.rest())
        if rest := piece + ending.rest():
            yield rest
