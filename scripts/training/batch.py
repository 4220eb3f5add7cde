"""One batch: pairs of pictures, what of the later one is new, and questions on what their window shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from agent.capture.scene.language import (
    DESCRIBE,
    DOINGS,
    MIN_VISIBLE,
    SIDES,
    caption,
    questions,
    thing_of,
    things_in,
    what_changed,
)
from agent.capture.scene.truth import COLOURS, KINDS, SceneTruth
from scripts.training.pictures import FRAME, GRID, MARGIN, MAX_OBJECTS, PATCH, Real, Rendered, mirror
from scripts.training.words import Turn, Words, pack

WINDOW = 12
ACTIONS = tuple(DOINGS)
STILL = 512
"""Unchanged tokens of a batch that are told from each other."""


class Batch:
    """Makes batches of so many `rendered` and `reals` pairs."""

    def __init__(self, words: Words, pool: Rendered, real: Real, *, rendered: int, reals: int) -> None:
        self._words, self._pool, self._real = words, pool, real
        self._rendered, self._reals = rendered, reals

    def make(self, rng: np.random.Generator, edge: int, asked: int) -> dict[str, Any]:
        """A batch that sees `edge` × `edge` of the 20 × 20 patches, with `asked` questions a picture."""
        tokens, count = edge * edge, self._rendered + self._reals
        pictures = np.empty((2, count, edge * PATCH, edge * PATCH, 3), np.uint8)
        slots = np.empty((count, tokens), np.int64)
        source = np.tile(np.arange(tokens), (count, 1))
        revealed = np.zeros((count, tokens), bool)
        labels = {name: np.full((2, self._rendered, tokens), start, np.int64)
                  for name, start in (("thing", 0), ("pose", -1), ("side", -1))}  # fmt: skip
        truths = [
            self._show(rng, edge, pictures[:, b], slots[b], {k: v[:, b] for k, v in labels.items()})
            for b in range(self._rendered)
        ]
        for b in range(self._rendered, count):
            self._slide(rng, edge, pictures[:, b], slots[b], source[b], revealed[b])
        patches = cut(pictures.reshape(2 * count, *pictures.shape[2:]))
        changed = _changed(patches[:count], patches[count:], source, rng) | revealed
        batch = _partly(rng, edge, slots, changed, shifted=(source != np.arange(tokens)).any(axis=1))
        batch["source"] = source
        still = np.argwhere(~(batch["fresh"] | batch["coarse"]))
        batch["still"] = still[rng.permutation(len(still))[:STILL]]
        batch["use_part"] = rng.random(self._rendered) < 0.5
        batch["slots"] = np.tile(slots, (2, 1))
        batch["picture_rows"] = np.concatenate([np.arange(self._rendered), count + np.arange(self._rendered)])
        batch |= {name: label.reshape(2 * self._rendered, tokens) for name, label in labels.items()}
        ready: dict[str, Any] = {name: torch.from_numpy(array) for name, array in batch.items()}
        self._pixels(rng, patches, ready)
        ready["truths"] = truths
        self.ask(ready, rng, asked)
        return ready

    def ask(self, batch: dict[str, Any], rng: np.random.Generator, asked: int) -> None:
        """Other questions about the pictures of a batch; in half of the batches the later picture comes first."""
        truths, visual = batch["truths"], batch["source"].shape[1] // 4
        single = [self._ask(both[n], rng, asked) for n in range(2) for both in truths]
        batch["single"] = pack(self._words, single, visual, 1)
        batch["backwards"] = bool(rng.random() < 0.5)
        double = [self._compare(both[::-1] if batch["backwards"] else both) for both in truths]
        batch["double"] = pack(self._words, double, visual, 2)

    def _show(
        self, rng: np.random.Generator, edge: int, out: np.ndarray, slots: np.ndarray, labels: dict[str, np.ndarray]
    ) -> list[SceneTruth]:
        """A window of a rendered pair, mirrored at random; the truths of what the window shows."""
        i, mirrored = int(rng.integers(len(self._pool.truths))), rng.random() < 0.5
        row, column = (2 * int(v) for v in rng.integers(0, (GRID - edge) // 2 + 1, 2))
        window = np.s_[row : row + edge, column : column + edge]
        slots[:] = np.arange(GRID * GRID).reshape(GRID, GRID)[window].reshape(-1)
        shown = []
        for n in range(2):
            picture = self._pool.pictures[i, n]
            cover = self._pool.coverage[i, n].reshape(MAX_OBJECTS, GRID, GRID)
            truth = self._pool.truths[i][n]
            if mirrored:
                picture, cover, truth = picture[:, ::-1], cover[:, :, ::-1], mirror(truth)
            out[n] = picture[row * PATCH : (row + edge) * PATCH, column * PATCH : (column + edge) * PATCH]
            inside = cover[(slice(None), *window)].reshape(MAX_OBJECTS, -1).astype(int)
            share = inside.sum(1) / np.maximum(cover.reshape(MAX_OBJECTS, -1).sum(1, dtype=int), 1)
            strongest, clear = inside.argmax(0), inside.max(0) >= PATCH * PATCH // 4
            for number, o in enumerate(truth.objects[:MAX_OBJECTS]):
                here = clear & (strongest == number)
                labels["thing"][n][here] = 1 + KINDS.index(o.kind) * len(COLOURS) + COLOURS.index(o.colour)
                labels["pose"][n][here] = ACTIONS.index(o.action) if o.action in DOINGS else -1
                labels["side"][n][here] = SIDES.index(thing_of(o, FRAME[0]).side)
            seen = [replace(o, visible=o.visible * float(share[k])) for k, o in enumerate(truth.objects[:MAX_OBJECTS])]
            shown.append(replace(truth, objects=tuple(o for o in seen if o.visible > 0.02)))
        return shown

    def _ask(self, truth: SceneTruth, rng: np.random.Generator, count: int) -> list[Turn]:
        things = things_in(truth, FRAME[0], MIN_VISIBLE)
        turns = [self._words.turn(DESCRIBE, caption(truth, things), "caption")]
        return turns + [self._words.turn(q.ask, q.answer, q.topic) for q in questions(truth, things, rng, count)]

    def _compare(self, truths: list[SceneTruth]) -> list[Turn]:
        asked = what_changed(truths[0], truths[1], FRAME[0])
        return [self._words.turn(q.ask, q.answer, q.topic) for q in asked]

    def _slide(
        self, rng: np.random.Generator, edge: int, out: np.ndarray, slots: np.ndarray, source: np.ndarray,
        revealed: np.ndarray,
    ) -> None:  # fmt: skip
        """A window of two real frames. In half of the pairs the later window has slid by one or two whole patches: a
        token comes from where its content was, what came into view has none."""
        first, second = self._real.pair(rng)
        wide = edge < GRID or rng.random() < 0.5
        frames = self._real.wide if wide else self._real.small
        down, right = (int(v) for v in rng.integers(-2, 3, 2)) if wide and rng.random() < 0.5 else (0, 0)
        room = frames.shape[1] - edge * PATCH
        y, x = (int(rng.integers(PATCH * MARGIN, room - PATCH * MARGIN + 1)) if wide else 0 for _ in range(2))
        for n, (frame, at) in enumerate(((first, (0, 0)), (second, (down, right)))):
            top, left = y + PATCH * at[0], x + PATCH * at[1]
            out[n] = frames[frame, top : top + edge * PATCH, left : left + edge * PATCH]
        if rng.random() < 0.5:
            out[:] = out[:, :, ::-1].copy()
            right = -right
        row, column = (2 * int(v) for v in rng.integers(0, (GRID - edge) // 2 + 1, 2))
        slots[:] = np.arange(GRID * GRID).reshape(GRID, GRID)[row : row + edge, column : column + edge].reshape(-1)
        at_row, at_column = (v.reshape(-1) for v in np.mgrid[0:edge, 0:edge])
        from_row, from_column = at_row + down, at_column + right
        outside = (from_row < 0) | (from_row >= edge) | (from_column < 0) | (from_column >= edge)
        source[:] = np.where(outside, at_row * edge + at_column, from_row * edge + from_column)
        revealed[:] = outside

    def _pixels(self, rng: np.random.Generator, patches: np.ndarray, ready: dict[str, Any]) -> None:
        """Normalised pixels, each picture at an exposure of its own, and the colours (2×2 means) of each patch at the
        exposure that both have in common: a camera adapts, and the world stays the same."""
        count, tokens = patches.shape[:2]
        half, pairs = PATCH // 2, count // 2
        gain, offset = np.tile(rng.uniform(0.92, 1.08, pairs), 2), np.tile(rng.uniform(-0.04, 0.04, pairs), 2)
        means = patches.reshape(count, tokens, 2, half, 2, half, 3).mean(axis=(3, 5), dtype=np.float32)
        colours = means.reshape(count, tokens, 12) * (gain * 2 / 255)[:, None, None] + (offset - 1)[:, None, None]
        ready["colours"] = torch.from_numpy(colours.astype(np.float32))
        spread = np.where(rng.random(pairs) < 0.5, 0.015, 0.13)
        gain[pairs:] *= np.exp(rng.uniform(-spread, spread))
        offset[pairs:] += rng.uniform(-spread, spread) / 4
        values = patches.astype(np.float32) * (gain * 2 / 255).astype(np.float32)[:, None, None, None, None]
        values += (offset - 1).astype(np.float32)[:, None, None, None, None]
        ready["patches"] = torch.from_numpy(
            np.ascontiguousarray(values.transpose(0, 1, 4, 2, 3)).reshape(count, tokens, -1)
        )
        edge = int(tokens**0.5)
        later = values[count // 2 :].reshape(count // 2, edge // 2, 2, edge // 2, 2, PATCH, PATCH, 3)
        area = (
            later.transpose(0, 1, 3, 2, 5, 4, 6, 7)
            .reshape(count // 2, tokens // 4, PATCH, 2, PATCH, 2, 3)
            .mean(axis=(3, 5))
        )
        coarse = np.zeros((count // 2, tokens, 3 * PATCH * PATCH), np.float32)
        coarse[:, _firsts(edge)] = area.transpose(0, 1, 4, 2, 3).reshape(count // 2, tokens // 4, -1)
        ready["coarse_patches"] = torch.from_numpy(coarse)


def cut(pictures: np.ndarray) -> np.ndarray:
    """uint8 (B, S, S, 3) → patches (B, T, 14, 14, 3)."""
    count, edge = len(pictures), pictures.shape[1] // PATCH
    cells = pictures.reshape(count, edge, PATCH, edge, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return cells.reshape(count, edge * edge, PATCH, PATCH, 3)


def _firsts(edge: int) -> np.ndarray:
    """Top left token of each 2×2 cell, row by row."""
    grid = np.arange(edge * edge).reshape(edge, edge)
    return grid[::2, ::2].reshape(-1)


def _changed(before: np.ndarray, now: np.ndarray, source: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """bool (P, T): patches whose highest fifth of differences (2×2 means, grey) exceeds a threshold of 8–20 levels."""
    half = PATCH // 2
    grey = [
        part.reshape(*part.shape[:2], half, 2, half, 2, 3).mean(axis=(3, 5, 6), dtype=np.float32)
        for part in (before, now)
    ]
    grey = [part.reshape(*part.shape[:2], half * half) for part in grey]
    moved = np.take_along_axis(grey[0], source[..., None], axis=1)
    difference = np.abs(grey[1] - moved)
    top = np.partition(difference, 38, axis=-1)[..., 39:].mean(axis=-1)
    return top > rng.uniform(8, 20, len(before))[:, None]


def _partly(
    rng: np.random.Generator, edge: int, slots: np.ndarray, changed: np.ndarray, shifted: np.ndarray
) -> dict[str, np.ndarray]:
    """Which tokens of the later picture are encoded anew, and which cells of a third of the pairs in half size."""
    pairs, tokens = changed.shape
    few = rng.uniform(0, 0.1, pairs) * (rng.random(pairs) < 0.5)
    fresh = changed | (rng.random(changed.shape) < few[:, None])
    grid = np.arange(tokens).reshape(edge, edge)
    first_of = np.repeat(np.repeat(grid[::2, ::2], 2, axis=0), 2, axis=1).reshape(-1)
    share = rng.uniform(0.1, 0.7, pairs) * (rng.random(pairs) < 0.35) * ~shifted
    cells = rng.random((pairs, tokens)) < share[:, None]
    coarse = cells[:, first_of]
    first = coarse & (np.arange(tokens) == first_of)
    owner = np.where(coarse, first_of, np.arange(tokens))
    own_cell = np.stack([first_of, first_of + 1, first_of + edge, first_of + edge + 1], axis=-1)
    return {"fresh": fresh, "coarse": coarse, "first": first, "owner": owner, "cell_slots": slots[:, own_cell]}
