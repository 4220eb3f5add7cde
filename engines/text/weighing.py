"""How likely each of some given answers is: questions and answers as one tree, read in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Ids = Sequence[int]
ReadTree = Callable[[Sequence[int], Sequence[int], Sequence[int]], NDArray[np.float32]]
"""Tokens (s,), the row that each follows (-1: none of them), rows asked for (a,) → logits (a, vocab) after those."""


class Tree:
    """Texts that begin alike, each beginning once: tokens, and for each the row that it follows; -1 is the root."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self._rows: dict[tuple[int, int], int] = {}

    def follow(self, row: int, ids: Ids) -> list[int]:
        """The rows of a text that goes on after `row`: `row` itself, then one for each id."""
        path = [row]
        for token in ids:
            step = (path[-1], token)
            if step not in self._rows:
                self._rows[step] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(path[-1])
            path.append(self._rows[step])
        return path


def log_likelihoods(
    questions: Sequence[Ids], options: Sequence[Sequence[Ids]], root: NDArray[np.float32], read: ReadTree
) -> NDArray[np.float64]:
    """(questions, options): logarithm of the probability that the text after the question goes on with any of the
    spellings of the option. root: logits (vocab,) before any of the questions."""
    tree = Tree()
    ends = [tree.follow(-1, question)[-1] for question in questions]
    asked = {row for end in ends for option in options for ids in option for row in tree.follow(end, ids[:-1])}
    rows = sorted(asked - {-1})
    scores = {-1: log_softmax(root)}
    if rows:
        scores |= zip(rows, log_softmax(read(tree.tokens, tree.parents, rows)), strict=True)

    def log_likelihood(end: int, ids: Ids) -> float:
        path = tree.follow(end, ids[:-1])
        return float(sum(scores[row][token] for row, token in zip(path, ids, strict=True)))

    found = [[np.logaddexp.reduce([log_likelihood(end, ids) for ids in option]) for option in options] for end in ends]
    return np.array(found, np.float64).reshape(len(questions), len(options))


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logarithms of the probabilities, over the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float64)
