"""Semantic change: has the meaning of the picture moved away from what was last described?

Each token's accumulated feature is compared with its value when the scene was last described. Against the *previous
frame* slow change never shows; against the last description it adds up until it is told. The distance is half the
squared difference of unit vectors, which is the cosine distance, after the shift that all tokens share is taken away
(`agent.insight.shift`).

A token drifts when its distance passes `enter` times the mean distance between two places of the described picture: a
model whose tokens are all alike is judged by its own measure. Where the token's own noise, `noise_factor` times, is
more, that is the limit: what a swaying tree does to its tokens is learned per token from the 90th percentile of
one-second distances. Steps of that running percentile are bounded, so a passing person hardly moves it, and a slow
drift, small within any one second, doesn't feed it at all. The token drifts until its distance is below `leave` times
the limit (hysteresis).

A change is told when a connected area of drifted tokens has been there for `persist_s`, at most once in
`min_interval_s`; one that lingers between the two limits is told once `max_interval_s` has passed since the last
description. A scene cut is itself one change, unless what it shows is what was described; cuts that follow within
`min_interval_s` are told as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from agent.insight.checks import require
from agent.insight.reference import Reference, row_distance, unit_rows
from agent.insight.regions import CellBox, large_components, merge_close

_REPLACED = 0.5
"""Share of drifted tokens from which a cut has replaced what was described; a flash or a reconnect shows it again."""
_MOST_NOISE = 1.8
"""How many times noise may raise the limit: a lane with traffic is restless too, and still shows what has parked."""
_NOISE_EVERY_S = 1.0
_NOISE_PERCENTILE = 0.9
_NOISE_STEP = 0.3
"""Largest step of the logarithm of a token's noise at one sample."""


@dataclass(frozen=True, slots=True)
class ChangeSettings:
    """enter: distance from which a token has drifted, as a share of the mean distance between two places. leave:
    share of its limit below which it is back. noise_factor: limit in units of the token's own noise, where that is
    more than `enter`. min_cells: smallest connected area in tokens. persist_s, persist_frames: how long it must be
    there. min_interval_s: least time between two changes. max_interval_s: after this long without a description, a
    change below the limit is told too. warm_up_s: time to learn the noise at the start and after a cut, during which
    only cuts are told."""

    enter: float = 0.5
    leave: float = 0.6
    noise_factor: float = 2.5
    min_cells: int = 3
    persist_s: float = 0.7
    persist_frames: int = 3
    min_interval_s: float = 5.0
    max_interval_s: float = 600.0
    warm_up_s: float = 5.0

    def __post_init__(self) -> None:
        require("change.enter", self.enter, 0 < self.enter <= 2, "more than 0, at most 2")
        require("change.leave", self.leave, 0 < self.leave < 1, "a share of `enter` above 0 and below 1")
        require("change.noise_factor", self.noise_factor, self.noise_factor >= 1, "1 or more")
        require("change.min_cells", self.min_cells, self.min_cells >= 1, "1 token or more")
        require("change.persist_s", self.persist_s, self.persist_s >= 0, "0 s or more")
        require("change.persist_frames", self.persist_frames, self.persist_frames >= 1, "1 frame or more")
        require("change.warm_up_s", self.warm_up_s, self.warm_up_s >= 0, "0 s or more")
        require("change.min_interval_s", self.min_interval_s, self.min_interval_s >= 0, "0 s or more")
        rule = "longer than `min_interval_s`"
        require("change.max_interval_s", self.max_interval_s, self.max_interval_s > self.min_interval_s, rule)


class ChangeKind(str, Enum):
    """drift: part of the picture no longer means what was described. cut: the whole picture was replaced."""

    DRIFT = "drift"
    CUT = "cut"


class ChangePhase(str, Enum):
    """warming_up: the noise isn't known yet. steady: nothing to tell. drifting: something differs and isn't told yet.
    told: it was told and waits for `described`."""

    WARMING_UP = "warming_up"
    STEADY = "steady"
    DRIFTING = "drifting"
    TOLD = "told"


@dataclass(frozen=True, slots=True)
class ChangeState:
    """Where a SemanticChange stands. progress: of the warm-up, 0–1. area_share: tokens that drift now, 0–1."""

    phase: ChangePhase
    progress: float
    area_share: float


@dataclass(frozen=True, slots=True)
class Change:
    """One semantic change, ready to be told.

    onset_s: when it was first seen, on the clock of `update`. regions: boxes in cells, largest connected area first.
    distance: mean cosine distance of the changed tokens from the description, 0–2. area_share: changed tokens of all,
    0–1. tokens: bool (T,), those that changed.
    """

    kind: ChangeKind
    onset_s: float
    regions: tuple[CellBox, ...]
    distance: float
    area_share: float
    tokens: NDArray[np.bool_]


class SemanticChange:
    """Watches one camera's accumulated tokens. `grid` is (rows, cols); times are seconds on one monotonic clock."""

    def __init__(self, grid: tuple[int, int], settings: ChangeSettings | None = None) -> None:
        self._grid = grid
        self._settings = settings or ChangeSettings()
        self.reset()

    def reset(self) -> None:
        """Forget everything, as after a loss of the picture. The next frame starts a new warm-up and is no change."""
        self._reference: Reference | None = None
        self._started_s = self._now_s = -np.inf
        self._described_s = self._last_change_s = -np.inf
        self._untold_cut_s: float | None = None
        self._begin_scene()

    def update(
        self,
        features: NDArray[np.float32],
        now_s: float,
        *,
        cut: bool = False,
        ignored: NDArray[np.bool_] | None = None,
    ) -> Change | None:
        """Take in one frame and say whether there is a change to tell.

        features: float32 (T, D), accumulated, row-major over the grid; only read. cut: this frame starts a new shot,
        and `features` hold nothing from before it. ignored: bool (T,), tokens that never count (clocks, padding).
        """
        unit = unit_rows(features)
        self._now_s = now_s
        counted = None if ignored is None else ~ignored
        if cut and self._reference is not None:
            distance = self._reference.distance(unit, counted)
            cut = float((distance >= self._reference.limit(self._settings.enter)).mean()) >= _REPLACED
            if cut and self._untold_cut_s is None:
                self._untold_cut_s, self._cut_distance = now_s, float(distance.mean())
        if cut or self._reference is None:
            self._begin_scene()
            self._reference = Reference(unit)
            self._started_s = now_s
        self._learn_noise(unit, now_s, counted)
        if self._untold_cut_s is not None and self._interval_over():
            return self._tell_cut()
        if self._warming_up():
            if not self._described_in_scene:
                self._reference = Reference(unit)
            return None
        return self._drift(unit, counted)

    def described(self, features: NDArray[np.float32]) -> None:
        """Take `features` (T, D) as the state that people have been told of. Call it with the tokens of the frame
        that was described, when the event goes out."""
        self._reference = Reference(unit_rows(features))
        self._described_s = self._now_s
        self._described_in_scene = True
        self._clear()

    @property
    def state(self) -> ChangeState:
        warm_up = self._settings.warm_up_s
        progress = 1.0 if warm_up == 0 else float(np.clip((self._now_s - self._started_s) / warm_up, 0, 1))
        if self._reference is None:
            return ChangeState(ChangePhase.WARMING_UP, 0.0, 0.0)
        if self._warming_up():
            phase = ChangePhase.WARMING_UP
        elif self._onset_s is None:
            phase = ChangePhase.STEADY
        else:
            phase = ChangePhase.TOLD if self._told else ChangePhase.DRIFTING
        return ChangeState(phase, progress, float(self._drifted.mean()))

    def _begin_scene(self) -> None:
        self._noise: NDArray[np.float32] | None = None
        self._sample: NDArray[np.float32] | None = None
        self._sample_s = -np.inf
        self._described_in_scene = False
        self._clear()

    def _clear(self) -> None:
        self._drifted = np.zeros(self._grid, bool)
        self._onset_s: float | None = None
        self._frames = 0
        self._told = False

    def slide(self, source: NDArray[np.int64], revealed: NDArray[np.bool_], features: NDArray[np.float32]) -> None:
        """The camera has moved by whole tokens: slot `i` shows what slot `source[i]` showed, and what is `revealed`
        (T,) is as it was described: coming into view is no change. features: (T, D), accumulated, of this frame."""
        if self._reference is None:
            return
        moved = self._reference.unit[source]
        moved[revealed] = unit_rows(features)[revealed]
        self._reference = Reference(moved)
        self._noise = None if self._noise is None else self._noise[source]
        self._sample = None if self._sample is None else self._sample[source]
        self._drifted = np.asarray(self._drifted.reshape(-1)[source].reshape(self._grid), bool)

    def _warming_up(self) -> bool:
        return self._now_s - self._started_s < self._settings.warm_up_s

    def _interval_over(self) -> bool:
        return self._now_s - self._last_change_s >= self._settings.min_interval_s

    def _learn_noise(self, unit: NDArray[np.float32], now_s: float, counted: NDArray[np.bool_] | None) -> None:
        """Move each token's running percentile of one-second distances by one bounded step."""
        if now_s - self._sample_s < _NOISE_EVERY_S:
            return
        if self._sample is not None:
            moved = np.maximum(row_distance(unit, self._sample, counted), 1e-6)
            if self._noise is None:
                self._noise = moved
            else:
                step = np.where(moved > self._noise, _NOISE_PERCENTILE, _NOISE_PERCENTILE - 1) * _NOISE_STEP
                self._noise *= np.exp(step, dtype=np.float32)
        self._sample, self._sample_s = unit, now_s

    def _tell_cut(self) -> Change:
        assert self._untold_cut_s is not None
        onset_s, self._untold_cut_s = self._untold_cut_s, None
        self._last_change_s = self._now_s
        rows, cols = self._grid
        everywhere = np.ones(rows * cols, bool)
        return Change(ChangeKind.CUT, onset_s, ((0, 0, cols, rows),), self._cut_distance, 1.0, everywhere)

    def _drift(self, unit: NDArray[np.float32], counted: NDArray[np.bool_] | None) -> Change | None:
        settings = self._settings
        assert self._reference is not None
        distance = self._reference.distance(unit, counted)
        least = self._reference.limit(settings.enter)
        noise = np.zeros_like(distance) if self._noise is None else settings.noise_factor * self._noise
        limit = np.clip(noise, least, _MOST_NOISE * least)
        since_s = self._now_s - max(self._described_s, self._started_s)
        enter = settings.leave if since_s >= settings.max_interval_s else 1.0
        ratio = (distance / limit).reshape(self._grid)
        if counted is not None:
            ratio[~counted.reshape(self._grid)] = 0
        drifted = (ratio >= enter) | (self._drifted & (ratio >= settings.leave))
        areas, boxes = large_components(drifted, settings.min_cells)
        if not boxes:
            self._clear()
            self._drifted = drifted
            return None
        self._drifted = drifted
        if self._onset_s is None:
            self._onset_s = self._now_s
        self._frames += 1
        persists = self._frames >= settings.persist_frames and self._now_s - self._onset_s >= settings.persist_s
        if self._told or not persists or not self._interval_over():
            return None
        self._told = True
        self._last_change_s = self._now_s
        tokens = areas.reshape(-1)
        mean, share = float(distance[tokens].mean()), float(tokens.mean())
        return Change(ChangeKind.DRIFT, self._onset_s, tuple(merge_close(boxes)), mean, share, tokens)
