"""The language model: visual tokens and a question in, text out, one piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from config.errors import EngineFault
from engines.manifest import Model
from engines.onnx.runtime import OnnxRuntime
from engines.tokenizer import TextStream, Tokenizer

FAKE, GLOBAL, IMAGE = "<fake_token_around_image>", "<global-img>", "<image>"
YES, NO = ("yes", "Yes", " yes", " Yes"), ("no", "No", " no", " No")

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Context:
    """What the language model has read: tokens so far, their keys and values, the logits (vocab,) for what comes next.

    Never changed by reading on, so several questions can start from the same picture."""

    length: int
    past: tuple[ort.OrtValue, ...]
    logits: NDArray[np.float32]


class Decoder:
    """Answers questions about the features of a picture, greedily. One call at a time; raises EngineFault.

    The prompt is the manifest's template, its `{image}` spelled as Idefics3Processor does for one unsplit picture.
    """

    def __init__(self, model: Model, *, threads: int = 1, spin: bool = True) -> None:
        manifest = model.manifest
        runtime = OnnxRuntime(model, threads=threads, spin=spin)
        self._connect, self._embed = runtime.session("connect"), runtime.session("embed")
        self._prefill, self._step = runtime.session("prefill"), runtime.session("step")
        self._tokenizer = Tokenizer(model.folder / "tokenizer.json")
        self._fake, self._image = self._tokenizer.id(FAKE), self._tokenizer.id(IMAGE)
        self._eos = {self._tokenizer.id(token) for token in manifest.eos}
        self._template = manifest.prompt.replace("{image}", FAKE + GLOBAL + IMAGE * manifest.visual_tokens + FAKE)
        past = {n[5:]: shape for n, shape in manifest.graphs["prefill"].inputs.items() if n.startswith("past_")}
        empty = [np.zeros([0 if size == "p" else int(size) for size in shape], np.float32) for shape in past.values()]
        self._cached = tuple(past)
        self._nothing = tuple(ort.OrtValue.ortvalue_from_numpy(array) for array in empty)

    def visual_tokens(self, features: Features) -> NDArray[np.float32]:
        """Visual tokens (T / merge², text dim) of features (T, D)."""
        return np.asarray(_run(self._connect, {"features": features})[0], np.float32)

    def look(self, features: Features) -> Context:
        """Read the picture, up to where the question begins. Give the result to `generate` or `yes_no` in place of the
        features to ask several questions about one picture and read it once."""
        ids = self._split("")[0]
        embeds = self._embed_ids(ids)
        embeds[np.array(ids) == self._image] = self.visual_tokens(features)
        return self._read(Context(0, self._nothing, np.empty(0, np.float32)), embeds)

    def generate(
        self, picture: Features | Context, question: str, *, max_tokens: int = 64, stop: Event | None = None
    ) -> Iterator[str]:
        """The answer in pieces of whole characters. Ends at an end token, after `max_tokens`, or once `stop` is set."""
        context = self._ask(picture, question)
        text = TextStream(self._tokenizer)
        for left in range(max_tokens, 0, -1):
            token = int(context.logits.argmax())
            if token in self._eos or (stop is not None and stop.is_set()):
                break
            if piece := text.push(token):
                yield piece
            if left > 1:
                context = self._read(context, self._embed_ids([token]))
        if rest := text.rest():
            yield rest

    def yes_no(self, picture: Features | Context, question: str) -> float:
        """Probability, 0 to 1, that the answer is yes and not no: the likelihoods of both words, in their usual
        spellings, put in proportion."""
        context = self._ask(picture, question)
        yes, no = (self._log_likelihood(context, words) for words in (YES, NO))
        return float(np.exp(yes - np.logaddexp(yes, no)))

    def _log_likelihood(self, context: Context, words: tuple[str, ...]) -> float:
        """Logarithm of the probability that the text goes on with any of these words."""
        each = []
        for ids in sorted({tuple(self._tokenizer.words(word)) for word in words}):
            after, total = context, 0.0
            for i, token in enumerate(ids):
                if i:
                    after = self._read(after, self._embed_ids([ids[i - 1]]))
                logits = after.logits.astype(np.float64)
                total += logits[token] - np.logaddexp.reduce(logits)
            each.append(total)
        return float(np.logaddexp.reduce(each))

    def _ask(self, picture: Features | Context, question: str) -> Context:
        context = picture if isinstance(picture, Context) else self.look(picture)
        ids = self._split(question)[1]
        return self._read(context, self._embed_ids(ids)) if ids else context

    def _split(self, question: str) -> tuple[list[int], list[int]]:
        """Ids of the prompt up to the picture's end, and after it. Special tokens never merge with their neighbours, so
        the first part doesn't depend on the question."""
        ids = self._tokenizer.encode(self._template.replace("{question}", self._tokenizer.without_special(question)))
        end = len(ids) - ids[::-1].index(self._fake)
        return ids[:end], ids[end:]

    def _embed_ids(self, ids: list[int]) -> NDArray[np.float32]:
        return np.array(_run(self._embed, {"ids": np.array(ids, np.int64)})[0], np.float32)

    def _read(self, context: Context, embeds: NDArray[np.float32]) -> Context:
        """Let the model read (s, D) more."""
        start, end = context.length, context.length + len(embeds)
        feeds = {
            "embeds": embeds,
            "position": np.arange(start, end, dtype=np.int64),
            "mask": np.triu(np.full((end - start, end), -np.inf, np.float32), k=start + 1),
        }
        values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
        values |= {f"past_{name}": past for name, past in zip(self._cached, context.past, strict=True)}
        session = self._prefill if start == 0 else self._step
        try:
            logits, *past = session.run_with_ort_values(["logits", *self._cached], values)
        except Exception as error:  # what the runtime throws has no common base
            raise EngineFault(f"ONNX Runtime failed in the language model: {error}") from error
        return Context(end, tuple(past), np.asarray(logits.numpy()[0], np.float32))


def _run(session: ort.InferenceSession, feeds: dict[str, NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    try:
        return list(session.run(None, feeds))
    except Exception as error:  # what the runtime throws has no common base
        raise EngineFault(f"ONNX Runtime failed in the language model: {error}") from error
