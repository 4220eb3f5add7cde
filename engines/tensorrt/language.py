"""The language model on TensorRT. What is read is kept here and, of the text that is being read, on the GPU too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from config.errors import EngineFault
from engines.onnx.language import INFINITE, Entrance, seen_by
from engines.onnx.runtime import OnnxRuntime
from engines.tensorrt.recipe import ANSWERS
from engines.tensorrt.runtime import TensorRtRuntime
from engines.tensorrt.seat import Rows, Seat, lowered, raised

Floats = NDArray[np.float32]


class NoRoom(EngineFault):
    """A text is longer than the engine's cache, or one of its questions than what is read at once: no failure."""


class TensorRtLanguage(Entrance):
    """Implements `engines.text.language.Language`. The small graphs before it, `connect` and `embed`, stay with ONNX
    Runtime. runtime: of the purpose DECODER. graphs: replay CUDA graphs, where that works. Raises EngineFault when the
    GPU has no room for the cache."""

    def __init__(self, runtime: TensorRtRuntime, host: OnnxRuntime, *, graphs: bool = True) -> None:
        super().__init__(host)
        self._seat = Seat(runtime, graphs=graphs)
        self.nothing = np.empty(self._seat.shape(0), np.float32)

    def read_on(self, past: Floats, room: int) -> TensorRtReading:
        """See `Language.read_on`. Raises NoRoom."""
        return TensorRtReading(self._seat, past, room, self._count)

    def close(self) -> None:
        """Give the memory on the GPU back. What is read afterwards raises EngineFault."""
        self._seat.close()


class TensorRtReading:
    """A text in the course of being read. All of its keys and values are kept here as the engine gives them, so that
    any number of texts, in any threads, share one cache on the GPU, and another runtime can go on from `past`."""

    def __init__(self, seat: Seat, past: Floats, room: int, count: Callable[[int], None]) -> None:
        self._seat, self._count = seat, count
        self.length: int = past.shape[3]
        self._check(self.length)
        self._rows: Rows = np.zeros(seat.shape(min(seat.slots, self.length + room)), seat.kept)
        self._rows[:, :, :, : self.length] = lowered(past, seat.kept)

    @property
    def past(self) -> Floats:
        return raised(self._rows[:, :, :, : self.length])

    def read(self, embeds: Floats, parents: Sequence[int] | None = None, answer: Sequence[int] = (-1,)) -> Floats:
        """See `Reading.read`. What fails leaves the text as it was. Raises NoRoom, EngineFault."""
        before, asked = self.length, [row % len(embeds) for row in answer]
        try:
            found = dict(self._on(embeds, asked) if parents is None else self._aside(embeds, seen_by(parents), asked))
            logits = np.stack([found[row] for row in asked])
            if not np.isfinite(logits).all():
                raise EngineFault(INFINITE)
        except EngineFault:
            self.length = before
            self._seat.forget()
            raise
        self._count(len(embeds))
        return logits

    def _on(self, embeds: Floats, asked: Sequence[int]) -> Iterator[tuple[int, Floats]]:
        """Each row after the one before, all kept, in as many runs as it takes."""
        self._check(self.length + len(embeds))
        if (more := self.length + len(embeds) - self._rows.shape[3]) > 0:
            room = self._seat.shape(min(self._seat.slots - self._rows.shape[3], max(more, self._rows.shape[3])))
            self._rows = np.concatenate([self._rows, np.zeros(room, self._rows.dtype)], axis=3)
        start = 0
        while start < len(embeds):
            rows = range(start, min(len(embeds), start + self._seat.most))
            here = [row for row in rows if row in asked]
            if len(here) > ANSWERS:
                rows, here = range(start, here[ANSWERS]), here[:ANSWERS]
            n = len(rows)
            new = self._rows[:, :, :, self.length : self.length + n]
            read = [row - start for row in here]
            logits = self._seat.run(self, self._kept, embeds[start : start + n], np.tri(n, dtype=bool), read, new)
            self.length += n
            start += n
            yield from zip(here, logits, strict=True)

    def _aside(self, embeds: Floats, seen: NDArray[np.bool_], asked: Sequence[int]) -> Iterator[tuple[int, Floats]]:
        """Rows side by side, none kept."""
        for rows, here in _groups(seen, asked, self._seat.most):
            if len(rows) > self._seat.most:
                raise NoRoom(f"a question of {len(rows)} rows; {self._seat.most} are read at once")
            read = np.searchsorted(rows, here).tolist()
            yield from zip(
                here, self._seat.run(self, self._kept, embeds[rows], seen[np.ix_(rows, rows)], read, None), strict=True
            )

    @property
    def _kept(self) -> Rows:
        kept: Rows = self._rows[:, :, :, : self.length]
        return kept

    def _check(self, length: int) -> None:
        if length > self._seat.slots:
            raise NoRoom(f"a text of {length} rows; the engine's cache holds {self._seat.slots}")


def _groups(seen: NDArray[np.bool_], asked: Sequence[int], most: int) -> Iterator[tuple[NDArray[np.int64], list[int]]]:
    """Answers that are read in one run: as many as fit, with the rows of all that they follow."""
    rows, here = np.zeros(len(seen), bool), list[int]()
    for row in sorted(set(asked)):
        if here and (len(here) == ANSWERS or (rows | seen[row]).sum() > most):
            yield np.flatnonzero(rows), here
            rows, here = np.zeros(len(seen), bool), []
        rows, here = rows | seen[row], [*here, row]
    if here:
        yield np.flatnonzero(rows), here
