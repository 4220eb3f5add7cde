"""The language model on ONNX Runtime: visual tokens, token embeddings, and texts that are read piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from config.errors import EngineFault
from engines.onnx.runtime import OnnxRuntime, run

PARTS = ("keys", "values")
INFINITE = "the language model gave logits that aren't finite: its input was not, or it overflowed"

Floats = NDArray[np.float32]


_ROOM = 64


class Entrance:
    """The graphs `connect` and `embed` of one model, which turn pictures and tokens into rows of its language model.
    Safe to use from several threads. tokens_read: rows that went through the language model."""

    def __init__(self, runtime: OnnxRuntime) -> None:
        self._connect, self._embed = runtime.session("connect"), runtime.session("embed")
        self.tokens_read = 0
        self._lock = Lock()

    def visual_tokens(self, features: Floats) -> Floats:
        """(T / merge², D) of features (T, dim). Raises EngineFault."""
        return _run(self._connect, {"features": features})

    def embed(self, ids: Sequence[int] | NDArray[np.int64]) -> Floats:
        """(s, D) of s token ids. Raises EngineFault."""
        return _run(self._embed, {"ids": np.asarray(ids, np.int64)})

    def close(self) -> None:
        """Nothing is held but memory of the host."""

    def _count(self, rows: int) -> None:
        with self._lock:
            self.tokens_read += rows


class LanguageModel(Entrance):
    """The language model of one model. Safe to use from several threads.

    `step` reads any number of rows, so `prefill`, which other runtimes build apart, is the same file and isn't opened.
    """

    def __init__(self, runtime: OnnxRuntime) -> None:
        super().__init__(runtime)
        self._step = runtime.session("step")
        keys = [each.shape for each in self._step.get_inputs() if each.name.startswith("keys_")]
        heads, _, size = keys[0]
        self.vocabulary = next(each.shape[1] for each in self._step.get_outputs() if each.name == "logits")
        self.nothing = np.empty((len(keys), len(PARTS), heads, 0, size), np.float32)
        """Keys and values (L, 2, Hkv, 0, dh) of no text at all."""

    def read_on(self, past: Floats, room: int) -> Reading:
        """Go on from keys and values (L, 2, Hkv, p, dh), which are copied, with room for so many rows more."""
        return Reading(self._step, past, room, self.vocabulary, self._count)


class Reading:
    """A text in the course of being read: keys and values (L, 2, Hkv, c, dh), the first `length` of the c slots filled.

    They are bound once, as inputs and outputs of the graph, whose ScatterND then writes the new rows and copies
    nothing. Attention runs over all c slots, so room is made in small blocks when it runs out.
    """

    def __init__(
        self, step: ort.InferenceSession, past: Floats, room: int, vocabulary: int, count: Callable[[int], None]
    ) -> None:
        self._step, self._vocabulary, self._count = step, vocabulary, count
        self.length: int = past.shape[3]
        self._make_room(past, room)

    @property
    def past(self) -> Floats:
        """Keys and values (L, 2, Hkv, length, dh) of what has been read: a view, never written again."""
        return self._cache[:, :, :, : self.length]

    def read(self, embeds: Floats, parents: Sequence[int] | None = None, answer: Sequence[int] = (-1,)) -> Floats:
        """Read s rows (s, D); the logits (a, vocab) of what comes after those in `answer`. Raises EngineFault.

        parents: for each row the one that it follows, -1 for what has been read before: rows see those that they follow
        and no others, so that texts that begin alike are read side by side. They are not kept. None: each row follows
        the one before, and all are kept.
        """
        rows, start = len(embeds), self.length
        end = start + rows
        if end > self._cache.shape[3]:
            self._make_room(self.past, max(rows, _ROOM))
        seen = np.tri(rows, dtype=bool) if parents is None else seen_by(parents)
        mask = np.full((rows, self._cache.shape[3]), -np.inf, np.float32)
        mask[:, :start] = 0
        mask[:, start:end][seen] = 0
        feeds = {
            "embeds": np.ascontiguousarray(embeds),
            "position": seen.sum(axis=1) + (start - 1),
            "slot": np.arange(start, end),
            "mask": mask,
            "answer": np.array(answer, np.int64) % rows,
        }
        logits = np.empty((len(answer), self._vocabulary), np.float32)
        for name, array in feeds.items():
            self._binding.bind_cpu_input(name, array)
        self._binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        run(self._step, self._binding)
        if not np.isfinite(logits).all():
            raise EngineFault(INFINITE)
        self._count(rows)
        if parents is None:
            self.length = end
        return logits

    def _make_room(self, past: Floats, room: int) -> None:
        layers, parts, heads, length, size = past.shape
        # Zeros: what is masked still counts as 0 × its value, and 0 × NaN is not 0.
        self._cache = np.zeros((layers, parts, heads, length + room, size), np.float32)
        self._cache[:, :, :, :length] = past
        self._binding = self._step.io_binding()
        for i, layer in enumerate(self._cache):
            for part, array in zip(PARTS, layer, strict=True):
                memory = ("cpu", 0, np.float32, array.shape, array.ctypes.data)
                self._binding.bind_input(f"{part}_{i}_in", *memory)
                self._binding.bind_output(f"{part}_{i}", *memory)


def seen_by(parents: Sequence[int]) -> NDArray[np.bool_]:
    """bool (s, s): which row sees which, itself and all that it follows."""
    seen = np.eye(len(parents), dtype=bool)
    for row, parent in enumerate(parents):
        if parent >= 0:
            seen[row] |= seen[parent]
    return seen


def _run(session: ort.InferenceSession, feeds: dict[str, NDArray[np.generic]]) -> Floats:
    try:
        return np.asarray(session.run(None, feeds)[0], np.float32)
    except Exception as error:  # what the runtime throws has no common base
        raise EngineFault(f"ONNX Runtime failed in the language model: {error}") from error
